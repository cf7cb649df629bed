"""How the chips of a slice are linked, and how fast a group of them exchanges."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from maskgil_jax.planning.chips import Chip
from maskgil_jax.planning.collectives import Collective

NAMES = "xyz"


class Line(NamedTuple):
    """The chips of a group along one axis of the torus.

    Attributes:
      axis: of NAMES.
      chips: in a row.
      ring: whether the last is linked to the first.
      stride: chips from one of the group to the next; as many groups share the links.
    """

    axis: str
    chips: int
    ring: bool
    stride: int


class Torus:
    """The chips that a program runs on, by their places in the slice.

    Args:
      devices: of the program in the order of its mesh, each with `coords`.
      chip: what they are.
    """

    def __init__(self, devices: Iterable[Any], chip: Chip):
        self._places = np.array([device.coords for device in devices])
        self._chip, self.chips = chip, len(self._places)
        shape = self._places.max(axis=0) - self._places.min(axis=0) + 1
        self.shape = tuple(map(int, shape))

    def is_ring(self, axis: int) -> bool:
        """Whether the chips along an axis of the slice are linked around."""
        length = self.shape[axis]
        if self._chip.ring_of:
            return length == self._chip.ring_of
        return all(size % 4 == 0 for size in self.shape)  # made of whole cubes of 4x4x4

    def lines(self, group: Sequence[int]) -> list[Line]:
        """The axes of the torus that a group of devices, by number, fills a box of.

        Returns:
          No lines: the group is no box, and its chips are not linked to one another as a ring is.
        """
        places = self._places[list(group)]
        along = [np.unique(places[:, axis]) for axis in range(places.shape[1])]
        steps = [set(np.diff(numbers).tolist()) or {1} for numbers in along]
        if math.prod(map(len, along)) != len(group) or any(len(step) > 1 for step in steps):
            return []
        return [
            Line(NAMES[axis], len(numbers), self._closed(axis, len(numbers), stride), stride)
            for axis, (numbers, (stride,)) in enumerate(zip(along, steps, strict=True))
            if len(numbers) > 1
        ]

    def _closed(self, axis: int, chips: int, stride: int) -> bool:
        """Whether so many chips of an axis are linked around; of two it is the same link twice."""
        return chips > 2 and self.is_ring(axis) and chips * stride == self.shape[axis]

    def bandwidth(self, group: Sequence[int]) -> float:
        """Bytes a second that each of a group sends while all of it exchange.

        A ring sends both ways. The chips at the ends of a line hear of the others over one link,
        and so the line is as fast as that. Over several axes parts of an array go at the same time.
        """
        lines = self.lines(group)
        links = sum((2 if line.ring else 1) / line.stride for line in lines) or 1
        return links * self._chip.link_bytes

    def seconds(self, collective: Collective) -> float:
        """Of one execution; at least what the first byte takes to the chip that is farthest."""
        if collective.chips == 1:
            return 0.0
        group = min(collective.groups, key=self.bandwidth)  # the slowest is waited for
        hops = sum(
            line.stride * (line.chips // 2 if line.ring else line.chips - 1)
            for line in self.lines(group)
        )
        rounds = 2 if collective.kind == "all-reduce" else 1
        return max(
            collective.sent_bytes / self.bandwidth(group), rounds * hops * self._chip.hop_seconds
        )


def _slice(device: Any) -> int:
    return getattr(device, "slice_index", None) or 0


def layout(mesh: Mesh, torus: Torus) -> dict[str, dict[str, Any]]:
    """Where the axes of a mesh lie on a slice's torus, for JSON; none of those of one device."""
    numbers = np.arange(mesh.devices.size).reshape(mesh.devices.shape)
    laid = {}
    for i, name in enumerate(mesh.axis_names):
        line = np.moveaxis(numbers, i, 0).reshape(numbers.shape[i], -1)[:, 0].tolist()
        first = mesh.devices.flat[line[0]]
        group = [n for n in line if _slice(mesh.devices.flat[n]) == _slice(first)]
        if len(group) > 1:
            laid[name] = {
                "torus": [line._asdict() for line in torus.lines(group)],
                "bytes_per_second": torus.bandwidth(group),
            }
    return laid
