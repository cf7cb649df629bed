"""How well a run uses its chips: model FLOPs, MFU, and the most memory that was taken."""

import logging
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from maskgil_jax.data.images.buckets import Size
from maskgil_jax.runtime import peaks
from maskgil_jax.runtime.traced_flops import traced_flops

log = logging.getLogger("maskgil_jax")

GIB = 2**30


class StepFlops:
    """Model FLOPs of a training step, over all devices, by the grid of its batch.

    Args:
      step: the jitted step, whose trace is counted where there is no `count`.
      count: of a grid, from the network's shape; what is computed twice is not in it.
    """

    def __init__(self, step: Any, count: Callable[[Size], int] | None):
        self._step, self._count = step, count
        self._known: dict[Size, int] = {}

    def __contains__(self, grid: Size) -> bool:
        return grid in self._known

    def of(self, grid: Size, *arguments: Any) -> int:
        """Those of a step on a grid; the arguments are the step's, traced only for a new one."""
        if grid not in self._known:
            if self._count is None:
                # The call that follows finds this trace.
                self._known[grid] = traced_flops(self._step.trace(*arguments).jaxpr.jaxpr)
            else:
                self._known[grid] = self._count(grid)
        return self._known[grid]


class ChipUse:
    """MFU of the devices of a mesh; of a kind without a known peak the rate of FLOPs instead."""

    def __init__(self, mesh: Mesh):
        kind = mesh.devices.flat[0].device_kind
        peak = peaks.of_kind(kind)
        self._peak = None if peak is None else peak * mesh.devices.size
        if peak is None:
            log.info(
                "the peak of %r is not known: the log has flops_per_second instead of mfu", kind
            )

    def of(self, rates: Mapping[str, float]) -> dict[str, float]:
        """The rates, with `mfu` (of the peak in bfloat16) in place of `flops_per_second`."""
        values = dict(rates)
        if self._peak is not None:
            values["mfu"] = values.pop("flops_per_second") / self._peak
        return values


def peak_memory() -> dict[str, float]:
    """GiB that were taken at most so far: of the fullest device here, and of this process."""
    device = [(one.memory_stats() or {}).get("peak_bytes_in_use", 0) for one in jax.local_devices()]
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    known = {"device_peak_gib": max(device) / GIB} if max(device) else {}  # CPUs do not tell it
    return known | {"host_peak_gib": host / GIB}
