"""Shards as files: written, and opened without reading their records.

Beside each shard lies NAME.grids.npy with the number of each record's grid, so that the records of
a grid are known without reading any.
"""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from maskgil_jax.data.formats import array_records
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.shards.code_records import CodeRecord, pack
from maskgil_jax.data.shards.shard_index import INDEX, Index
from maskgil_jax.runtime import npy
from maskgil_jax.runtime.errors import InputError, Unreadable

OPENERS = 16  # threads, which wait for slow disks together


MISSING = "missing"


def write_shard(path: epath.Path, records: Iterable[CodeRecord], grids: tuple[Size, ...]) -> int:
    """Write records, with codes of the dtype to store, and return their number.

    The file appears atomically, and its numbers of `grids` are there before it.
    """
    temporary = path.with_name(path.name + ".tmp")
    writer = ArrayRecordWriter(str(temporary), "group_size:1")  # one record a read: random access
    numbers = []
    for record in records:
        numbers.append(grids.index(record.codes.shape[1:]))
        writer.write(pack(record))
    writer.close()
    with _grids_of(path).open("wb") as file:
        np.save(file, np.array(numbers, np.uint16))
    temporary.replace(path)  # a damaged one may be there
    return len(numbers)


def _grids_of(shard: epath.Path) -> epath.Path:
    return shard.with_name(shard.name + ".grids.npy")


class Unfit(InputError):
    """The file beside a shard, of the numbers of its grids, does not fit it."""


def _read_grids(shard: epath.Path, index: Index) -> np.ndarray:
    """The number in `index.grids` of the grid of each record of a shard: uint16 [records].

    Raises:
      Unfit: the file is missing, or another.
      InputError: it cannot be read.
    """
    path = _grids_of(shard)
    again = f"remove {shard.name} and run maskgil_jax.tokenize again, which makes it again"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Unfit(
            f"{path} is missing, without which {shard.name} cannot be used: {again}"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        numbers = npy.read_npy(io.BytesIO(data), len(data))
        if numbers.dtype != np.uint16 or numbers.ndim != 1:
            raise ValueError(f"is {numbers.dtype} {numbers.shape}")
    except ValueError as error:
        raise Unfit(
            f"{path} is damaged, expected uint16 [records] as .npy, but it {error}: {again}"
        ) from None
    if (most := int(numbers.max(initial=0))) >= len(index.grids):
        raise Unfit(f"{path} has grid {most}, but {INDEX} has {len(index.grids)} of them: {again}")
    return numbers


class Opened(NamedTuple):
    """What is known of a shard without reading its records.

    Attributes:
      grids: number in `index.grids` of the grid of each record, uint16 [records].
      fault: why none of the records can be read, or "".
    """

    grids: np.ndarray
    fault: str


def open_shard(path: epath.Path, index: Index) -> Opened:
    """Look at a shard and the file beside it.

    Raises:
      Unfit: the numbers of its grids are missing, damaged or of another shard.
      InputError: one of them cannot be read.
    """
    grids = _read_grids(path, index)
    try:
        count = array_records.count(str(path))
    except Unreadable as error:
        return Opened(grids, str(error))
    if count != len(grids):
        raise Unfit(
            f"{_grids_of(path)} is of {len(grids)} records, but {path.name} has {count}: remove "
            "both and run maskgil_jax.tokenize again, which makes them again"
        )
    return Opened(grids, "")


def open_shards(directory: epath.Path, index: Index) -> list[Opened]:
    """All shards of an index, as `open_shard`."""
    with ThreadPoolExecutor(OPENERS) as pool:
        return list(pool.map(lambda name: open_shard(directory / name, index), index.shards))


def fault_of(path: epath.Path, index: Index) -> str:
    """Why a shard has to be made, MISSING for example, or "" where it looks whole.

    The file beside it counts too; its records are not read.

    Raises:
      InputError: there is a folder in its place, or it cannot be read.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a shard: remove it")
    if not path.exists():
        return MISSING
    try:
        return open_shard(path, index).fault
    except Unfit as error:
        return str(error)


def counts_of(directory: epath.Path, index: Index) -> dict[str, Any]:
    """What a complete index says of its records: how many there are, and of each grid.

    Raises:
      InputError: a shard is missing or damaged.
    """
    opened = open_shards(directory, index)
    for name, (_, fault) in zip(index.shards, opened, strict=True):
        if fault:
            raise InputError(f"{directory / name} cannot be read back: {fault}")
    grids = np.concatenate([shard.grids for shard in opened])
    of_grid = np.bincount(grids, minlength=len(index.grids))
    return {
        "examples": len(grids),
        "examples_of_grid": {
            f"{height}x{width}": int(count)
            for (height, width), count in zip(index.grids, of_grid, strict=True)
        },
    }
