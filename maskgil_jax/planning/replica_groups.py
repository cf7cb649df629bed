"""The groups of devices that exchange with one another, from the four ways that XLA writes them."""

import re

import numpy as np


def groups_of(attributes: str, devices: int) -> np.ndarray:
    """Numbers of the devices of each group [groups, devices of one], in the order of the mesh.

    Args:
      attributes: of a collective, as printed.
      devices: of the program; without a word on groups they are one.

    Raises:
      ValueError: groups of different sizes, of which a ring has no one speed.
    """
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](.*?)\{([^}]*)\}", attributes):
        return _of_mesh(mesh[1], mesh[2], mesh[3])
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        return _iota(iota[3], iota[4]).reshape(int(iota[1]), int(iota[2]))
    if listed := re.search(r"replica_groups=\{(\{[\d,{}]+\})\}", attributes):
        groups = [_numbers(group) for group in re.findall(r"\{([\d,]+)\}", listed[1])]
        if len({len(group) for group in groups}) != 1:
            raise ValueError(f"groups of different sizes: {listed[0][:100]}")
        return np.array(groups)
    if pairs := re.search(r"source_target_pairs=\{([\d,{}]+)\}", attributes):
        return np.array([_numbers(pair) for pair in re.findall(r"\{(\d+,\d+)\}", pairs[1])])
    return np.arange(devices)[None]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _iota(sizes: str, order: str | None) -> np.ndarray:
    """All numbers from 0 in an array of these sizes, transposed."""
    shape = _numbers(sizes)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return numbers.transpose(_numbers(order)) if order else numbers


def _of_mesh(axes: str, ids: str, over: str) -> np.ndarray:
    """As `mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}`: an axis may be a part, `'a':(1)2`."""
    names, sizes = zip(*(axis.split("=") for axis in axes.replace("'", "").split(",")), strict=True)
    shape = [int(size) for size in sizes]
    listed = re.search(r"device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\)", ids)
    numbers = _iota(listed[1], listed[2]) if listed else np.arange(np.prod(shape))
    parts: list[int] = []  # sizes of the axes after those that are exchanged over in part are split
    chosen: list[int] = []  # of these, the ones that are exchanged over
    exchanged = dict(_axis(axis) for axis in re.findall(r"'[^']+'(?::\(\d+\)\d+)?", over))
    for name, size in zip(names, shape, strict=True):
        before, part = exchanged.get(name, (1, 1))
        part = part or size
        if name in exchanged:
            chosen.append(len(parts) + 1)
        parts += [before, part, size // (before * part)]
    split = np.moveaxis(numbers.reshape(parts), chosen, range(-len(chosen), 0))
    return split.reshape(-1, int(np.prod([parts[axis] for axis in chosen])))


def _axis(text: str) -> tuple[str, tuple[int, int]]:
    """Name of an axis, the size of what comes before the part of it, and of the part; 0: whole."""
    name, _, part = text.partition("':")
    if not part:
        return name.strip("'"), (1, 0)
    before, size = part.removeprefix("(").split(")")
    return name.strip("'"), (int(before), int(size))
