"""Code shards: an image set as token codes, in ArrayRecord files with an index beside them.

`index.json` names the tokenizer (fingerprint), the source, the crops, the bucket list and the
counts, and says `complete` once every shard is there. A record is msgpack `{codes: bytes, grid,
label, id, size, captions: [bytes], features: [bytes]}`. Beside each shard lies NAME.grids.npy with
the number of each record's grid, so that the records of a grid are known without reading any.
"""

import dataclasses
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax.numpy as jnp
import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from maskgil_jax.data.buckets import Size
from maskgil_jax.errors import InputError
from maskgil_jax.runtime import files

FORMAT = 2  # 1 had one grid in the index, and no size of images
INDEX = "index.json"


@dataclasses.dataclass(frozen=True)
class Index:
    """What a directory of shards holds.

    Attributes:
      tokenizer: {path, fingerprint, codebook_size, downsample} of the tokenizer that made them.
      source: where the images came from, with its number of images.
      image_size: side in pixels of the square, or of the square among the sizes.
      buckets: name of the bucket list; "": squares only.
      crops: crop policy; `views` codes are kept per image.
      seed: of random crops.
      encoder: {path, fingerprint, width, ...} of the text encoder of the captions; {}: none are
        kept.
      caption_tokens: most that are kept of a caption.
      features: dtype of the features that are kept of each caption; "": none.
      grids: (height, width) in tokens of each size.
      dtype: of the stored codes, uint16 or int32.
      class_names: one per class.
      color: how pixels were taken from files, key of color.COLORS; shards without it are older.
    """

    tokenizer: dict[str, Any]
    source: dict[str, Any]
    image_size: int
    buckets: str
    crops: str
    views: int
    seed: int
    encoder: dict[str, Any]
    caption_tokens: int
    features: str
    grids: tuple[Size, ...]
    dtype: str
    class_names: tuple[str, ...]
    shards: tuple[str, ...]
    color: str = "ignore"

    @property
    def grid(self) -> Size:
        """The one grid of all codes.

        Raises:
          InputError: there are several.
        """
        if len(self.grids) > 1:
            raise InputError(
                f"code shards of {self.source['name']} with buckets = {self.buckets!r} hold "
                f"{len(self.grids)} grids, expected shards of squares"
            )
        return self.grids[0]

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return json.loads(json.dumps({**dataclasses.asdict(self), "format": FORMAT}))


def read_index(directory: epath.PathLike) -> tuple[Index, dict[str, Any]] | None:
    """The index of a directory and the counts in it, or None where there is none.

    Raises:
      InputError: of another format.
    """
    path = epath.Path(directory) / INDEX
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    if (found := content.pop("format", None)) != FORMAT:
        raise InputError(
            f"{path} is of format {found}, expected {FORMAT}: make the shards again with "
            "maskgil_jax.tokenize, in another directory"
        )
    fields = {field.name for field in dataclasses.fields(Index)}
    counts = {key: content.pop(key) for key in list(content) if key not in fields}
    tuples = {key: tuple(content[key]) for key in ("class_names", "shards")}
    grids = tuple((height, width) for height, width in content["grids"])
    return Index(**{**content, **tuples, "grids": grids}), counts


def write_index(directory: epath.PathLike, index: Index, counts: dict[str, Any]) -> None:
    """Write or replace the index in one go."""
    files.write_json(epath.Path(directory) / INDEX, {**index.to_json(), **counts})


class CodeRecord(NamedTuple):
    """One example.

    Attributes:
      codes: integers [views, h, w].
      label: the class.
      id: of the image that it was made from.
      size: (height, width) of that image in pixels.
      captions: int32 [n], token ids of each of its captions.
      features: [n, C] of each of its captions, or none.
    """

    codes: np.ndarray
    label: int
    id: str
    size: Size
    captions: tuple[np.ndarray, ...] = ()
    features: tuple[np.ndarray, ...] = ()


def write_shard(path: epath.Path, records: Iterable[CodeRecord], grids: tuple[Size, ...]) -> int:
    """Write records, with codes of the dtype to store, and return their number.

    The file appears when it is whole, and its numbers of `grids` are there before it.
    """
    temporary = path.with_name(path.name + ".tmp")
    writer = ArrayRecordWriter(str(temporary), "group_size:1")  # one record a read: random access
    numbers = []
    for record in records:
        grid = record.codes.shape[1:]
        numbers.append(grids.index(grid))
        arrays = {
            "codes": record.codes.tobytes(),
            "captions": [ids.tobytes() for ids in record.captions],
            "features": [values.tobytes() for values in record.features],
        }
        content = {**record._asdict(), **arrays, "grid": grid}
        writer.write(msgpack.packb(content))
    writer.close()
    with _grids_of(path).open("wb") as file:
        np.save(file, np.array(numbers, np.uint16))
    temporary.rename(path)
    return len(numbers)


def _grids_of(shard: epath.Path) -> epath.Path:
    return shard.with_name(shard.name + ".grids.npy")


def read_grids(directory: epath.Path, index: Index) -> np.ndarray:
    """The number in `index.grids` of the grid of every record: uint16 [records].

    Raises:
      InputError: a file is missing.
    """

    def read(name: str) -> np.ndarray:
        try:
            with _grids_of(directory / name).open("rb") as file:
                return np.load(file, allow_pickle=False)
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename} is missing, without which {name} cannot be used: remove that "
                "file too and run maskgil_jax.tokenize again"
            ) from None

    with ThreadPoolExecutor(16) as pool:
        return np.concatenate(list(pool.map(read, index.shards)))


def counts_of(directory: epath.Path, index: Index) -> dict[str, Any]:
    """What a complete index says of its records: how many there are, and of each grid."""
    grids = np.bincount(read_grids(directory, index), minlength=len(index.grids))
    return {
        "examples": len(_open(directory, index)),
        "examples_of_grid": {
            f"{height}x{width}": int(count)
            for (height, width), count in zip(index.grids, grids, strict=True)
        },
    }


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
        self.grids = read_grids(path, self.index)
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
        captions = tuple(np.frombuffer(ids, np.int32) for ids in record["captions"])
        features = tuple(
            np.frombuffer(values, jnp.dtype(self.index.features)).reshape(len(ids), -1)
            for values, ids in zip(record["features"], captions, strict=False)
        )
        return CodeRecord(
            codes.reshape(-1, *record["grid"]),
            record["label"],
            record["id"],
            tuple(record["size"]),
            captions,
            features,
        )


def _open(directory: epath.Path, index: Index) -> ArrayRecordDataSource:
    return ArrayRecordDataSource([str(directory / name) for name in index.shards])
