"""What one call of a compiled program takes on a TPU: memory, seconds, FLOPs, exchanges."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from maskgil_jax.planning import calibration, collectives, dcn, hlo, kernels, timeline
from maskgil_jax.planning.chips import CHIPS, Chip
from maskgil_jax.planning.compilation import Compiler
from maskgil_jax.planning.executions import executions
from maskgil_jax.planning.kernel_work import Work
from maskgil_jax.planning.programs import Program
from maskgil_jax.planning.torus import Torus, layout
from maskgil_jax.runtime import slices
from maskgil_jax.runtime.traced_flops import traced_flops

COSTLIEST = 10


def estimate(
    program: Program, generation: str, compiler: Compiler, calibrated: bool = False
) -> dict[str, Any]:
    """Compile a program and estimate one call of it, on one chip and on all of them.

    Args:
      program: for devices of the TPU `generation`.
      generation: a key of CHIPS.
      compiler: of programs.
      calibrated: whether its products are compiled by themselves too.

    Returns:
      A dict for JSON: seconds, bytes, FLOPs and shares. `fits` is False where the compiler refuses
      the program for want of memory; then there are no times.
    """
    chip, devices = CHIPS[generation], program.mesh.devices.size
    size = {
        "chips": devices,
        "mesh": dict(program.mesh.shape),
        "batch_size": program.batch_size,
        "tokens_per_example": program.tokens_per_example,
        "parameters": program.parameters,
        "model_flops_per_step": program.model_flops,
        "compiler_options": dict(program.compiler_options),
    }
    compiled, jaxpr = compiler(program)
    if compiled.refused:
        needed, available = compiled.refused
        return size | {"fits": False, "bytes_total": needed, "bytes_free": available - needed}
    one_slice = _of_one_slice(program.mesh)
    hardware_flops, torus = traced_flops(jaxpr), Torus(one_slice.devices.flat, chip)
    text = hlo.parse(compiled.text)
    times = _times(text, chip, torus, kernels.traced(jaxpr, chip))
    return (
        size
        | _memory(compiled.memory, chip)
        | {"hardware_flops_per_step": hardware_flops}
        | {"slices": program.mesh.size // one_slice.size}
        | {"links": layout(one_slice, torus)}
        | times
        | _rates(program, hardware_flops, chip.flops * devices, times)
        | (_bound(program, text, chip, compiler, times) if calibrated else {})
        | {"compile_seconds": compiled.seconds}
    )


def _of_one_slice(mesh: Mesh) -> Mesh:
    """The part of a mesh that is on the first slice; replica groups number the chips of one."""
    count = len(slices.split(list(mesh.devices.flat), 0))
    return Mesh(mesh.devices[: len(mesh.devices) // count], mesh.axis_names)


def _memory(reserved: Mapping[str, int], chip: Chip) -> dict[str, Any]:
    """What the compiler reserves on a chip, in bytes."""
    total = sum(reserved.values())
    return {
        "fits": total <= chip.hbm_bytes,
        "bytes": dict(reserved),
        "bytes_total": total,
        "bytes_free": chip.hbm_bytes - total,
    }


def _times(
    program: hlo.Program, chip: Chip, torus: Torus, works: Mapping[str, Work]
) -> dict[str, Any]:
    """Seconds of compute and of exchanges, in all and of what they consist of."""
    runs = list(executions(program))
    cycles = sum((instruction.cycles or 0) * times for instruction, times in runs)
    found = kernels.compiled(program, works)
    of_kernels: dict[str, float] = defaultdict(float)  # one run of an instruction
    for kernel in found:
        if kernel.work is not None:
            of_kernels[kernel.instruction.name] += kernel.work.seconds(chip)

    def compute(instruction: hlo.Instruction) -> float:
        return (instruction.cycles or 0) / chip.clock + of_kernels.get(instruction.name, 0.0)

    times = timeline.run(program, torus.chips, compute, torus.seconds)
    between = _between_slices(program, chip)
    waits = between["dcn_seconds"]
    return between | {
        "estimated_cycles": cycles,
        "kernel_seconds": sum(k.work.seconds(chip) * k.times for k in found if k.work),
        "compute_seconds": times.compute,
        "collective_seconds": times.exchanges,
        "step_seconds": times.as_compiled + waits,  # it is not known what hides these
        "step_seconds_nothing_overlapped": times.nothing_overlapped + waits,
        "step_seconds_all_hidden": max(times.all_hidden, waits),
        "collectives": _by_kind(program, torus),
        "kernels": _kernels(found, chip),
        "costliest": _costliest(runs, compute, set(of_kernels), times.compute),
        "unestimated": _unestimated(runs, set(of_kernels)),
    }


def _rates(
    program: Program, hardware_flops: int, peak: float, times: dict[str, Any]
) -> dict[str, float]:
    """Shares of the peak (FLOP/s of all chips together) that are used, and speeds as compiled."""
    step, compute = times["step_seconds"], times["compute_seconds"]
    least = program.model_flops / peak
    return {
        "mfu": least / step,
        "mfu_nothing_overlapped": least / times["step_seconds_nothing_overlapped"],
        "mfu_all_hidden": least / times["step_seconds_all_hidden"],
        "hfu_of_compute": hardware_flops / peak / compute,
        "tokens_per_second": program.batch_size * program.tokens_per_example / step,
        "images_per_second": program.batch_size / step,
    }


def _bound(
    program: Program, text: hlo.Program, chip: Chip, compiler: Compiler, times: dict[str, Any]
) -> dict[str, Any]:
    """What products reach by themselves, and the MFU with nothing beside them and the kernels."""
    device, options = program.mesh.devices.flat[0], program.compiler_options
    shares = calibration.calibrate(text, device, chip, options, compiler)
    if "products_seconds" not in shares:
        return {"calibration": shares}
    least = program.model_flops / program.mesh.size / chip.flops
    bound = least / (shares["products_seconds"] + times["kernel_seconds"])
    return {"calibration": shares, "mfu_bound": bound}


def _by_kind(program: hlo.Program, torus: Torus) -> dict[str, dict[str, float]]:
    """Bytes, seconds and number of the exchanges of each kind, and how many are asynchronous."""
    kinds: dict[str, dict[str, float]] = {}
    for collective, asynchronous, times in collectives.counted(program, torus.chips):
        empty = dict(bytes_sent=0.0, seconds=0.0, times=0, asynchronous=0)
        kind = kinds.setdefault(collective.kind, empty)
        kind["bytes_sent"] += collective.sent_bytes * times
        kind["seconds"] += torus.seconds(collective) * times
        kind["times"] += times
        kind["asynchronous"] += times * asynchronous
    return kinds


def _between_slices(program: hlo.Program, chip: Chip) -> dict[str, Any]:
    """Bytes, seconds and number of the exchanges over the data center's network, by kind."""
    kinds: dict[str, dict[str, float]] = {}
    for one in dcn.transfers(program):
        kind = kinds.setdefault(one.kind, dict(bytes_sent=0.0, seconds=0.0, times=0))
        kind["bytes_sent"] += one.sent_bytes
        kind["seconds"] += one.sent_bytes / chip.dcn_bytes
        kind["times"] += one.times
    return {"dcn": kinds, "dcn_seconds": sum(kind["seconds"] for kind in kinds.values())}


def _kernels(found: Sequence[kernels.Kernel], chip: Chip) -> list[dict[str, Any]]:
    """The kernels, for JSON: what is counted of all runs of each, and the seconds of them."""
    return [
        {
            "source": kernel.instruction.source,
            "times": kernel.times,
            "seconds": kernel.work.seconds(chip) * kernel.times,
            **{name: value * kernel.times for name, value in kernel.work._asdict().items()},
        }
        for kernel in found
        if kernel.work is not None
    ]


def _costliest(
    runs: Sequence[tuple[hlo.Instruction, int]],
    compute: Callable[[hlo.Instruction], float],
    of_kernels: set[str],
    total: float,
) -> list[dict[str, Any]]:
    """The instructions that take the most seconds, for JSON; their share is of `total` seconds."""
    ordered = sorted(runs, key=lambda run: -compute(run[0]) * run[1])
    return [
        {
            "seconds": compute(one) * times,
            "share": compute(one) * times / total,
            "is_kernel": one.name in of_kernels,
            "times": times,
            "name": one.name,
            "result": one.shape,
            "source": one.source,
        }
        for one, times in ordered[:COSTLIEST]
    ]


# These only name values, or are waited for where the compiler says so.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call"}
_FREE |= {"async-start", "async-update", "async-done", "conditional", "replica-id", "partition-id"}
_FREE |= {"copy-start", "copy-done", "slice-start", "slice-done"}  # beside other work


def _unestimated(
    runs: Sequence[tuple[hlo.Instruction, int]], of_kernels: set[str]
) -> dict[str, dict[str, float]]:
    """Runs and bytes of the results of instructions without an estimate, by opcode.

    Args:
      runs: instructions and how often each runs.
      of_kernels: names of instructions that run kernels, which have an estimate of ours.
    """
    without: dict[str, dict[str, float]] = defaultdict(lambda: dict(times=0, bytes=0))
    for one, times in runs:
        kind = one.opcode.removesuffix("-start").removesuffix("-done")
        name = one.target or one.opcode
        exchange = name == "fusion" and "all-reduce-scatter" in one.attributes
        free = (
            one.opcode in _FREE
            or one.name in of_kernels
            or name in ("AllocateBuffer", "AssumeGatherIndicesInBound")
        )
        if one.cycles is None and not (free or exchange or kind in collectives.SENT):
            without[name]["times"] += times
            without[name]["bytes"] += times * one.nbytes
    return dict(without)
