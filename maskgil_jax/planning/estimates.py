"""What one call of a compiled program takes on a TPU: memory, seconds, FLOPs, exchanges."""

import collections
from collections.abc import Sequence
from typing import Any

import jax

from maskgil_jax.planning import hlo
from maskgil_jax.planning.chips import CHIPS, Chip
from maskgil_jax.planning.programs import Program, compiled
from maskgil_jax.runtime import device_memory

# Vector operations for an exponential, those around it included: of the attention kernel there are
# 23 forward and 46 backward in the compiler's own schedule (its dumps of "final bundles"). By that
# schedule all layers of XXL take 28, 65 and 47 ms of 32 images on v5p, v5e and v6e, by this 36, 90
# and 50.
VECTORS = 46
COSTLIEST = 10


def estimate(program: Program, generation: str) -> dict[str, Any]:
    """Compile a program and estimate one call of it, on one chip and on all of them.

    Args:
      program: for devices of the TPU `generation`.
      generation: a key of CHIPS.

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
    }
    try:
        executable, traced_flops, compile_seconds = compiled(program)
    except jax.errors.JaxRuntimeError as error:
        if (refusal := _memory_refused(str(error))) is None:
            raise
        return size | refusal
    text = hlo.parse(executable.as_text() or "")
    times = _times(text, chip, devices)
    return (
        size
        | _memory(executable, chip)
        | {"hardware_flops_per_step": traced_flops}
        | times
        | _rates(program, traced_flops, chip.flops * devices, times)
        | {"compile_seconds": compile_seconds}
    )


def _memory_refused(message: str) -> dict[str, Any] | None:
    """The memory of a program that the compiler refuses, None where it does for another reason."""
    if (numbers := device_memory.refusal(message)) is None:
        return None
    needed, available = numbers
    return {"fits": False, "bytes_total": needed, "bytes_free": available - needed}


def _memory(executable: jax.stages.Compiled, chip: Chip) -> dict[str, Any]:
    """What the compiler reserves on a chip, in bytes."""
    memory: Any = executable.memory_analysis()
    reserved = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "output": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }
    total = sum(reserved.values())
    return {
        "fits": total <= chip.hbm_bytes,
        "bytes": reserved,
        "bytes_total": total,
        "bytes_free": chip.hbm_bytes - total,
    }


def _times(program: hlo.Program, chip: Chip, devices: int) -> dict[str, Any]:
    """Seconds of compute and of exchanges, in all and of what they consist of."""
    executions = list(hlo.executions(program))
    cycles = sum((instruction.cycles or 0) * times for instruction, times in executions)
    collectives = _by_kind(hlo.collectives(program, devices), chip.link_bytes)
    kernels = [(kernel, _kernel_seconds(kernel, chip)) for kernel in hlo.kernels(program)]
    kernel_seconds = sum(seconds for _, seconds in kernels)
    compute = cycles / chip.clock + kernel_seconds
    communicate = sum(kind["seconds"] for kind in collectives.values())
    return {
        "estimated_cycles": cycles,
        "kernel_seconds": kernel_seconds,
        "compute_seconds": compute,
        "collective_seconds": communicate,
        "step_seconds": compute + communicate,
        "collectives": collectives,
        "costliest": _costliest(executions, kernels, compute, chip.clock),
        "unestimated": _unestimated(executions, {k.instruction.name for k, _ in kernels}),
    }


def _rates(
    program: Program, traced_flops: int, peak: float, times: dict[str, Any]
) -> dict[str, float]:
    """Shares of the peak (FLOP/s of all chips together) that are used, and speeds."""
    step, compute = times["step_seconds"], times["compute_seconds"]
    return {
        "mfu": program.model_flops / peak / step,
        "mfu_of_compute": program.model_flops / peak / compute,
        "hfu_of_compute": traced_flops / peak / compute,
        "tokens_per_second": program.batch_size * program.tokens_per_example / step,
        "images_per_second": program.batch_size / step,
    }


def _by_kind(
    collectives: Sequence[hlo.Collective], link_bytes: float
) -> dict[str, dict[str, float]]:
    """Bytes, seconds and number of the exchanges of each kind."""
    kinds: dict[str, dict[str, float]] = {}
    for collective in collectives:
        kind = kinds.setdefault(collective.kind, dict(bytes_sent=0.0, seconds=0.0, times=0))
        kind["bytes_sent"] += collective.sent_bytes
        kind["seconds"] += collective.sent_bytes / link_bytes
        kind["times"] += collective.times
    return kinds


def _kernel_seconds(kernel: hlo.Kernel, chip: Chip) -> float:
    """Seconds of all runs of a kernel, by our estimate."""
    products = kernel.flops / chip.flops
    exponentials = VECTORS * kernel.transcendentals / chip.vectors
    memory = kernel.bytes_accessed / chip.hbm_bandwidth
    return kernel.times * (products + exponentials + memory)


def _costliest(
    executions: Sequence[tuple[hlo.Instruction, int]],
    kernels: Sequence[tuple[hlo.Kernel, float]],
    total: float,
    clock: float,
) -> list[dict[str, Any]]:
    """The instructions that take the most seconds, for JSON; their share is of `total` seconds."""
    costs = [(one, times, (one.cycles or 0) * times / clock, False) for one, times in executions]
    costs += [(kernel.instruction, kernel.times, s, True) for kernel, s in kernels]
    ordered = sorted(costs, key=lambda cost: -cost[2])
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
    """Runs and bytes of the results of instructions without an estimate, by opcode.

    Args:
      executions: instructions and how often each runs.
      kernels: names of instructions that run kernels, which have an estimate of ours.
    """
    without: dict[str, dict[str, float]] = collections.defaultdict(lambda: dict(times=0, bytes=0))
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
            without[name]["times"] += times
            without[name]["bytes"] += times * one.nbytes
    return dict(without)
