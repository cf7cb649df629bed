"""Slices: groups of devices with fast links, joined by the network of the data center (DCN)."""

import functools
import logging
from collections.abc import Sequence

import jax

from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def split(devices: Sequence[jax.Device], count: int) -> list[list[jax.Device]]:
    """Devices by slice, in the order of the slices.

    Args:
      devices: all of them.
      count: of slices. 0: as many as TPUs say that they are of; of other devices one. Devices that
        say nothing of it, or GPUs, are split in runs of equal length.

    Raises:
      InputError: TPUs are of another number of slices, or `count` does not divide the devices.
    """
    own, tpu = _by_slice(devices), devices[0].platform == "tpu"
    count = count or (len(own) if tpu else 1)
    if count == len(own):
        return own
    if tpu:
        raise InputError(
            f"config.mesh.slices = {count}, but the {len(devices)} TPUs are of {len(own)} slices: "
            f"expected {len(own)}, or 0"
        )
    if count < 0 or len(devices) % count:
        raise InputError(
            f"config.mesh.slices = {count} does not divide {len(devices)} devices: expected a "
            "divisor, or 0 for what the devices are of"
        )
    size = len(devices) // count
    if count > 1:
        _say_split(count, size)
    return [list(devices[start : start + size]) for start in range(0, len(devices), size)]


def _by_slice(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Devices by the slice that they name; those that name none are one."""
    groups: dict[int, list[jax.Device]] = {}
    for device in devices:
        groups.setdefault(getattr(device, "slice_index", 0), []).append(device)
    return [groups[number] for number in sorted(groups)]


@functools.cache
def _say_split(count: int, size: int) -> None:
    log.info(
        "the devices do not say that they are of %d slices: each run of %d counts as one",
        *(count, size),
    )
