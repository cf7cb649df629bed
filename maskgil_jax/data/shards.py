"""Code shards: an image set as token codes, in ArrayRecord files with an index beside them.

`index.json` names the tokenizer (fingerprint), the source, the crops, the bucket list and the
counts, and says `complete` once every shard is there. A record is msgpack `{codes: bytes, grid,
label, id, size, captions: [bytes], features: [bytes]}`. Beside each shard lies NAME.grids.npy with
the number of each record's grid, so that the records of a grid are known without reading any.

Index and numbers of grids have to be right. A shard or a record that is damaged, or that holds what
cannot be, is left out, counted and named.
"""

import bisect
import io
import itertools
import logging
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from maskgil_jax.data import shard_files
from maskgil_jax.data.buckets import Size
from maskgil_jax.data.census import of_shards
from maskgil_jax.data.code_records import CodeRecord as CodeRecord
from maskgil_jax.data.code_records import Unpacker, pack
from maskgil_jax.data.shard_index import INDEX as INDEX
from maskgil_jax.data.shard_index import Index as Index
from maskgil_jax.data.shard_index import read_index as read_index
from maskgil_jax.data.shard_index import write_index as write_index
from maskgil_jax.runtime import npy
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")

OPENERS = 16  # threads, which wait for slow disks together
MISSING = "missing"


def write_shard(path: epath.Path, records: Iterable[CodeRecord], grids: tuple[Size, ...]) -> int:
    """Write records, with codes of the dtype to store, and return their number.

    The file appears when it is whole, and its numbers of `grids` are there before it.
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
    again = f"remove {shard.name} and run maskgil_jax.tokenize again, which makes it anew"
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
        count = shard_files.count(str(path))
    except Unreadable as error:
        return Opened(grids, str(error))
    if count != len(grids):
        raise Unfit(
            f"{_grids_of(path)} is of {len(grids)} records, but {path.name} has {count}: remove "
            "both and run maskgil_jax.tokenize again, which makes them anew"
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


class CodeShards:
    """Random access to the examples of a directory of shards.

    Attributes:
      index: what the shards are of.
      grids: number in `index.grids` of the grid of every example, uint16 [N].
      lost: number of examples in shards that cannot be opened.
      census: what the source of the images held, and what of it is not among the examples.

    Raises:
      InputError: no shards there, or not all of them yet; the index or the numbers of grids are
        damaged, or do not fit the shards.
    """

    def __init__(self, directory: str):
        path = epath.Path(directory)
        found = read_index(path)
        if found is None:
            raise InputError(
                f"data source arrayrecord:{directory}: no {INDEX} there; expected a directory "
                "written by maskgil_jax.tokenize"
            )
        self.index, counts = found
        if not counts["complete"]:
            raise InputError(
                f"data source arrayrecord:{directory}: not all of {len(self.index.shards)} shards "
                "are written; run maskgil_jax.tokenize again to finish"
            )
        self.census = of_shards(counts, self.index.class_names, str(path / INDEX))
        opened = open_shards(path, self.index)
        self.grids = np.concatenate([shard.grids for shard in opened])
        if len(self.grids) != counts["examples"]:
            raise InputError(
                f"{path / INDEX}: field 'examples' is {counts['examples']}, but the shards hold "
                f"{len(self.grids)}; remove it and run maskgil_jax.tokenize again"
            )
        if not len(self.grids):
            raise InputError(f"data source arrayrecord:{directory} has no examples")
        self._paths = [str(path / name) for name in self.index.shards]
        self._faults = [shard.fault for shard in opened]
        self._ends = list(itertools.accumulate(len(shard.grids) for shard in opened))
        self._unpacker = Unpacker(self.index)
        self._version = uuid.uuid4().hex  # what is opened from now on
        self.lost = sum(len(shard.grids) for shard in opened if shard.fault)
        for shard, name in zip(opened, self._paths, strict=True):
            if shard.fault:
                examples = len(shard.grids)
                log.warning("%s: none of %d examples is used: %s", name, examples, shard.fault)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.index.class_names

    def __len__(self) -> int:
        return len(self.grids)

    def name(self, index: int) -> str:
        """Shard and number in it of an example, whether or not that can be read."""
        shard, number = self._place(index)
        return f"{self._paths[shard]}, record {number}"

    def __getitem__(self, index: int) -> CodeRecord:
        """The example at `index`.

        Raises:
          Unreadable: names the shard and the record, which is damaged or holds what cannot be.
        """
        shard, number = self._place(index)
        try:
            if self._faults[shard]:
                raise Unreadable(self._faults[shard])
            data = shard_files.read(self._paths[shard], self._version, number)
            return self._unpacker.record(data, self.index.grids[self.grids[index]])
        except Unreadable as error:
            raise Unreadable(f"{self.name(index)}: {error}") from None

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)


def readable(shards: CodeShards, indices: Sequence[int]) -> list[tuple[int, CodeRecord]]:
    """The examples among `indices` that can be read, with their index; the others are named.

    Raises:
      InputError: none can.
    """
    found, reason = [], ""
    for index in indices:
        try:
            found.append((index, shards[index]))
        except Unreadable as error:
            reason = str(error)
            log.warning("left out codes that cannot be read: %s", reason)
    if not found:
        raise InputError(f"none of {len(indices)} examples can be read, the last: {reason}")
    return found
