"""Code shards: an image set as token codes, in ArrayRecord files with an index beside them.

`index.json` names the tokenizer (fingerprint), the source, the crops and the counts, and says
`complete` once every shard is there. A record is msgpack `{codes: bytes, label: int, id: str}`.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from maskgil_jax import checkpoint
from maskgil_jax.errors import InputError

FORMAT = 1
INDEX = "index.json"


@dataclasses.dataclass(frozen=True)
class Index:
    """What a directory of shards holds.

    Attributes:
      tokenizer: {path, fingerprint, codebook_size, downsample} of the tokenizer that made them.
      source: where the images came from, with its number of images.
      crops: crop policy; `views` codes are kept per image.
      grid: (height, width) in tokens.
      dtype: of the stored codes, uint16 or int32.
      class_names: one per class.
    """

    tokenizer: dict[str, Any]
    source: dict[str, Any]
    image_size: int
    crops: str
    views: int
    grid: tuple[int, int]
    dtype: str
    class_names: tuple[str, ...]
    shards: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return json.loads(json.dumps({**dataclasses.asdict(self), "format": FORMAT}))


def read_index(directory: epath.PathLike) -> tuple[Index, dict[str, Any]] | None:
    """The index of a directory and the counts in it, or None where there is none."""
    path = epath.Path(directory) / INDEX
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    if content.pop("format", None) != FORMAT:
        raise InputError(f"{path}: another format than {FORMAT}; make the shards again")
    fields = {field.name for field in dataclasses.fields(Index)}
    counts = {key: content.pop(key) for key in list(content) if key not in fields}
    tuples = {key: tuple(content[key]) for key in ("grid", "class_names", "shards")}
    return Index(**{**content, **tuples}), counts


def write_index(directory: epath.PathLike, index: Index, counts: dict[str, Any]) -> None:
    """Write or replace the index in one go."""
    checkpoint.write_json(epath.Path(directory) / INDEX, {**index.to_json(), **counts})


def write_shard(path: epath.Path, records: Iterable[tuple[np.ndarray, int, str]]) -> int:
    """Write (codes [views, h, w], label, id) records; the file appears when it is whole."""
    temporary = path.with_name(path.name + ".tmp")
    writer = ArrayRecordWriter(str(temporary), "group_size:1")  # one record a read: random access
    count = 0
    for codes, label, name in records:
        record = {"codes": codes.tobytes(), "label": label, "id": name}
        writer.write(msgpack.packb(record))
        count += 1
    writer.close()
    temporary.rename(path)
    return count


class CodeRecord(NamedTuple):
    """One example.

    Attributes:
      codes: int32 [views, h, w].
      label: the class.
      id: of the image that it was made from.
    """

    codes: np.ndarray
    label: int
    id: str


class CodeShards:
    """Random access to the examples of a directory of shards.

    Raises:
      InputError: no shards there, or not all of them yet.
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
        if not counts.get("complete"):
            raise InputError(
                f"data source arrayrecord:{directory}: not all of {len(self.index.shards)} shards "
                "are written; run maskgil_jax.tokenize again to finish"
            )
        self._data = _open(path, self.index)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.index.class_names

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> CodeRecord:
        record = msgpack.unpackb(self._data[index])
        codes = np.frombuffer(record["codes"], self.index.dtype).astype(np.int32)
        return CodeRecord(codes.reshape(-1, *self.index.grid), record["label"], record["id"])


def count_examples(directory: epath.Path, index: Index) -> int:
    """Number of records in all shards."""
    return len(_open(directory, index))


def _open(directory: epath.Path, index: Index) -> ArrayRecordDataSource:
    return ArrayRecordDataSource([str(directory / name) for name in index.shards])
