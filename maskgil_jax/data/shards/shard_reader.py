"""Code shards: an image set as token codes, in ArrayRecord files with an index beside them.

`index.json` names the tokenizer (fingerprint), the source, the crops, the bucket list and the
counts, and says `complete` once every shard is there. A record is msgpack `{codes: bytes, grid,
label, id, size, captions: [bytes], features: [bytes]}`. Beside each shard lies NAME.grids.npy with
the number of each record's grid, so that the records of a grid are known without reading any.

Index and numbers of grids have to be right. A shard or a record that is damaged, or that holds what
cannot be, is left out, counted and named.
"""

import bisect
import itertools
import logging
import uuid
from collections.abc import Sequence

import numpy as np
from etils import epath

from maskgil_jax.data.formats import array_records
from maskgil_jax.data.records.census import of_shards
from maskgil_jax.data.shards.code_records import CodeRecord, Unpacker
from maskgil_jax.data.shards.shard_files import open_shards
from maskgil_jax.data.shards.shard_index import INDEX, read_index
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")


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
        written = read_index(path)
        if written is None:
            raise InputError(
                f"data source arrayrecord:{directory}: no {INDEX} there; expected a directory "
                "written by maskgil_jax.tokenize"
            )
        self.index, counts = written
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
            data = array_records.read(self._paths[shard], self._version, number)
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
    examples, reason = [], ""
    for index in indices:
        try:
            examples.append((index, shards[index]))
        except Unreadable as error:
            reason = str(error)
            log.warning("left out codes that cannot be read: %s", reason)
    if not examples:
        raise InputError(f"none of {len(indices)} examples can be read, the last: {reason}")
    return examples
