"""What a compiled program takes and gives: numbers, tables and a plot."""

import collections
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from maskgil_jax.generation import pictures
from maskgil_jax.planning import hlo
from maskgil_jax.planning.chips import CHIPS, Chip
from maskgil_jax.planning.programs import Program, compiled
from maskgil_jax.workflows import tables

# Vector operations for an exponential, those around it included: of the attention kernel there are
# 23 forward and 46 backward in the compiler's own schedule (its dumps of "final bundles"). By that
# schedule all layers of XXL take 28, 65 and 47 ms of 32 images on v5p, v5e and v6e, by this 36, 90
# and 50.
VECTORS = 46
NOTES = {
    "counted": "parameters; model FLOPs (matrix products of one forward and two backward passes); "
    "hardware FLOPs (all products and convolutions that JAX traced, recomputation included); bytes "
    "that the compiler reserves; bytes that collectives send in a ring",
    "estimated": "compute_seconds: the compiler's own cycles of each instruction, times the loop's "
    "trips, at the chip's clock, and kernel_seconds; kernel_seconds: our estimate of Pallas "
    "kernels, for which the compiler has none, their products at peak, their bytes at HBM's "
    f"bandwidth and {VECTORS} vector operations for each exponential, one after another; "
    "collective_seconds: bytes sent over the published bandwidth of all links of a chip "
    "(cloud.google.com/tpu/docs); step_seconds: compute and collectives, nothing overlapped",
    "not in the estimate": "input pipeline, host, pictures, checkpoints, instructions that the "
    "compiler gives no cycles (unestimated), and an encoder of text or speech that runs in the "
    "step: features come as code shards hold them",
}
COSTLIEST = 10


def measured(program: Program, generation: str) -> dict[str, Any]:
    """Compile a program and say what it takes, on one chip and in all.

    Args:
      program: for devices of the TPU `generation`.
      generation: one of CHIPS.

    Returns:
      A dict for JSON: seconds, bytes, FLOPs and shares. `fits` is False where the compiler refuses
      the program for want of memory; then there are no times.
    """
    chip, devices = CHIPS[generation], program.mesh.devices.size
    known = {
        "chips": devices,
        "mesh": dict(program.mesh.shape),
        "batch_size": program.batch_size,
        "tokens_per_example": program.tokens_per_example,
        "parameters": program.parameters,
        "model_flops_per_step": program.model_flops,
    }
    try:
        executable, traced, seconds = compiled(program)
    except jax.errors.JaxRuntimeError as error:
        wanted = _memory_wanted(str(error))
        if wanted is None:
            raise
        used, limit = wanted
        return known | {"fits": False, "bytes_total": used, "bytes_free": limit - used}
    text = hlo.parse(executable.as_text() or "")
    memory: Any = executable.memory_analysis()
    reserved = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "output": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }
    total = sum(reserved.values())
    executions = list(hlo.executions(text))
    cycles = sum((one.cycles or 0) * times for one, times in executions)
    exchanges = _by_kind(hlo.collectives(text, devices), chip.link_bytes)
    kernels = [(one, _kernel_seconds(one, chip)) for one in hlo.kernels(text)]
    in_kernels = sum(seconds for _, seconds in kernels)
    compute = cycles / chip.clock + in_kernels
    communicate = sum(one["seconds"] for one in exchanges.values())
    peak = chip.flops * devices
    step = compute + communicate
    return known | {
        "fits": total <= chip.hbm_bytes,
        "bytes": reserved,
        "bytes_total": total,
        "bytes_free": chip.hbm_bytes - total,
        "hardware_flops_per_step": traced,
        "estimated_cycles": cycles,
        "kernel_seconds": in_kernels,
        "compute_seconds": compute,
        "collective_seconds": communicate,
        "step_seconds": step,
        "mfu": program.model_flops / peak / step,
        "mfu_of_compute": program.model_flops / peak / compute,
        "hfu_of_compute": traced / peak / compute,
        "tokens_per_second": program.batch_size * program.tokens_per_example / step,
        "images_per_second": program.batch_size / step,
        "collectives": exchanges,
        "costliest": _costliest(executions, kernels, compute, chip.clock),
        "unestimated": _unestimated(executions, {one.instruction.name for one, _ in kernels}),
        "compile_seconds": seconds,
    }


def _memory_wanted(message: str) -> tuple[float, float] | None:
    """Bytes that a program wants and that there are, of the two ways the compiler refuses it in."""
    number = r"\(?([\d.]+)([GM])\)?"
    for words in (rf"Used {number} of {number} hbm", rf"{number} exceeds available HBM {number}"):
        if found := re.search(words, message):
            unit = {"G": 2**30, "M": 2**20}
            return float(found[1]) * unit[found[2]], float(found[3]) * unit[found[4]]
    return None


def _by_kind(found: Sequence[hlo.Collective], link_bytes: float) -> dict[str, dict[str, float]]:
    kinds: dict[str, dict[str, float]] = {}
    for one in found:
        kind = kinds.setdefault(one.kind, dict(bytes_sent=0.0, seconds=0.0, times=0))
        kind["bytes_sent"] += one.sent_bytes
        kind["seconds"] += one.sent_bytes / link_bytes
        kind["times"] += one.times
    return kinds


def _kernel_seconds(kernel: hlo.Kernel, chip: Chip) -> float:
    """Of all its runs, by our estimate."""
    vectors = VECTORS * kernel.transcendentals / chip.vectors
    moved = kernel.bytes_accessed / chip.hbm_bandwidth
    return kernel.times * (kernel.flops / chip.flops + vectors + moved)


def _costliest(
    executions: Sequence[tuple[hlo.Instruction, int]],
    kernels: Sequence[tuple[hlo.Kernel, float]],
    total: float,
    clock: float,
) -> list[dict[str, Any]]:
    found = [(one, times, (one.cycles or 0) * times / clock, False) for one, times in executions]
    found += [(one.instruction, one.times, seconds, True) for one, seconds in kernels]
    ordered = sorted(found, key=lambda row: -row[2])
    return [
        {
            "seconds": seconds,
            "share": seconds / total,
            "is_kernel": is_kernel,
            "times": times,
            "name": one.name,
            "result": one.shape,
            "source": one.source,
        }
        for one, times, seconds, is_kernel in ordered[:COSTLIEST]
    ]


# These only name values, or are waited for where the compiler says so.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call"}
_FREE |= {"async-start", "async-update", "async-done", "conditional", "replica-id", "partition-id"}
_FREE |= {"copy-start", "copy-done", "slice-start", "slice-done"}  # beside other work


def _unestimated(
    executions: Sequence[tuple[hlo.Instruction, int]], kernels: set[str]
) -> dict[str, dict[str, float]]:
    """Times and bytes of the results of what has no estimate, by opcode; kernels have ours."""
    found: dict[str, dict[str, float]] = collections.defaultdict(lambda: dict(times=0, bytes=0))
    for one, times in executions:
        kind = one.opcode.removesuffix("-start").removesuffix("-done")
        name = one.target or one.opcode
        exchange = name == "fusion" and "all-reduce-scatter" in one.attributes
        free = (
            one.opcode in _FREE
            or one.name in kernels
            or name in ("AllocateBuffer", "AssumeGatherIndicesInBound")
        )
        if one.cycles is None and not (free or exchange or kind in hlo.COLLECTIVES):
            found[name]["times"] += times
            found[name]["bytes"] += times * one.nbytes
    return dict(found)


COLUMNS: dict[str, Callable[[Any], str]] = {
    "topology": str,
    "chips": str,
    "mesh": lambda mesh: "x".join(map(str, mesh.values())),
    "batch_size": "{:,}".format,
    "fits": lambda fits: "yes" if fits else "no",
    "bytes_total": lambda n: f"{n / 2**30:.1f} GiB",
    "step_seconds": "{:.3f}".format,
    "collective_seconds": "{:.3f}".format,
    "mfu": "{:.3f}".format,
    "mfu_of_compute": "{:.3f}".format,
    "tokens_per_second": "{:,.0f}".format,
    "training_days": "{:.2f}".format,
    "chip_hours": "{:,.0f}".format,
}


def write(output: epath.PathLike, plans: Sequence[Mapping[str, Any]]) -> None:
    """Write OUTPUT's table (.md, .csv) and, of several plans, its plot (.png) beside it.

    Args:
      output: of the JSON file, FILE.json.
      plans: of one config on one topology or several.
    """
    path = epath.Path(output)
    stem = path.with_name(path.stem)
    rows = [{name: plan[name] for name in COLUMNS if name in plan} for plan in plans]
    tables.write(stem, rows, COLUMNS)
    timed = [plan for plan in plans if "mfu" in plan]
    if len(timed) > 1:
        _plot(stem.with_name(f"{stem.name}.png"), timed)


def _plot(path: epath.Path, plans: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    speed, use = figure.subplots(1, 2)
    generations = list(dict.fromkeys(plan["topology"].split(":")[0] for plan in plans))
    for generation in generations:
        ours = sorted(
            (plan for plan in plans if plan["topology"].startswith(f"{generation}:")),
            key=lambda plan: plan["chips"],
        )
        chips = [plan["chips"] for plan in ours]
        speed.plot(chips, [plan["tokens_per_second"] for plan in ours], "o-", label=generation)
        use.plot(chips, [plan["mfu"] for plan in ours], "o-", label=generation)
        use.plot(
            chips,
            [plan["mfu_of_compute"] for plan in ours],
            *("o:",),
            color=use.lines[-1].get_color(),
            label=f"{generation}, exchanges hidden",
        )
    speed.set(xscale="log", yscale="log", xlabel="chips", ylabel="image tokens per second")
    use.set(xscale="log", xlabel="chips", ylabel="MFU", ylim=(0, None))
    for axes in (speed, use):
        axes.legend(frameon=False, fontsize=8)
        axes.set_xticks(sorted({plan["chips"] for plan in plans}))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    figure.suptitle(f"{plans[0]['config']}: estimated by the TPU's compiler, not measured")
    pictures.save_figure(path, figure, dpi=120)
