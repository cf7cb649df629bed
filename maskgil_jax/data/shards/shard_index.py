"""The index of a directory of code shards: what made them, and how many examples they hold."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from etils import epath

from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.images.color import COLORS
from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError

FORMAT = 2  # 1 had one grid in the index, and no size of images
INDEX = "index.json"
DTYPES = {"uint16": 2**16, "int32": 2**31}  # of stored codes: codebook sizes that they can hold
FEATURES = ("", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Index:
    """What a directory of shards holds.

    Attributes:
      tokenizer: {path, fingerprint, codebook_size, downsample} of the tokenizer that made them.
      source: where the images came from, with its number of images.
      image_size: side in pixels of the square, or of the square among the sizes.
      buckets: name of the bucket list; "": squares only.
      crops: crop policy; `views` codes are stored per image.
      seed: of random crops.
      encoder: {path, fingerprint, width, ...} of the text encoder of the captions; {}: none are
        kept.
      caption_tokens: the most that are stored of a caption.
      features: dtype of the features that are stored of each caption; "": none.
      grids: (height, width) in tokens of each size.
      dtype: of the stored codes, uint16 or int32.
      class_names: one per class.
      color: how pixels were taken from files, key of color.COLORS; older shards do not say it.
      recordings: whether the recording of each image is kept; older shards keep none.
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
    recordings: bool = False

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


_FIELDS: dict[str, files.Types] = {
    **dict(tokenizer=dict, source=dict, image_size=int, buckets=str, crops=str, views=int),
    **dict(seed=int, encoder=dict, caption_tokens=int, features=str, grids=list, dtype=str),
    **dict(class_names=list, shards=list, color=str, recordings=bool),
}
_TOKENIZER: dict[str, files.Types] = dict(
    path=str, fingerprint=str, codebook_size=int, downsample=int
)
_ENCODER: dict[str, files.Types] = dict(path=str, fingerprint=str, width=int)
_COUNTS: dict[str, files.Types] = dict(examples=int, examples_of_grid=dict, unreadable=int)


def read_index(directory: epath.PathLike) -> tuple[Index, dict[str, Any]] | None:
    """The index of a directory and the counts in it, or None where there is none.

    Raises:
      InputError: of another format, or not as `write_index` writes it; names file and field.
    """
    path = epath.Path(directory) / INDEX
    if not path.exists():
        return None
    content = files.read_json(path, {})
    if (version := content.pop("format", None)) != FORMAT:
        raise InputError(
            f"{path} is of format {str(version)[:40]}, expected {FORMAT}: make the shards "
            "again with maskgil_jax.tokenize, in another directory"
        )
    content.setdefault("color", "ignore")  # all that there was before it was written down
    content.setdefault("recordings", False)
    _check(path, content)
    fields = {field.name for field in dataclasses.fields(Index)}
    counts = {key: content.pop(key) for key in list(content) if key not in fields}
    tuples = {key: tuple(content[key]) for key in ("class_names", "shards")}
    grids = tuple((height, width) for height, width in content["grids"])
    return Index(**{**content, **tuples, "grids": grids}), counts


def write_index(directory: epath.PathLike, index: Index, counts: dict[str, Any]) -> None:
    """Write or replace the index in one go."""
    files.write_json(epath.Path(directory) / INDEX, {**index.to_json(), **counts})


def _check(path: epath.Path, content: Mapping[str, Any]) -> None:
    files.check_object(content, {**_FIELDS, "complete": bool}, str(path))
    tokenizer, encoder = content["tokenizer"], content["encoder"]
    files.check_object(tokenizer, _TOKENIZER, f"{path}: field 'tokenizer'")
    files.check_object(content["source"], dict(name=str), f"{path}: field 'source'")
    if encoder:
        files.check_object(encoder, _ENCODER, f"{path}: field 'encoder'")
    if content["complete"]:
        files.check_object(content, _COUNTS, str(path))
        _expect(path, content, "examples", content["examples"] >= 0, "0 or more")
    for name in ("image_size", "views"):
        _expect(path, content, name, content[name] >= 1, "1 or more")
    for name in ("codebook_size", "downsample"):
        _expect(path, tokenizer, name, tokenizer[name] >= 1, "1 or more")
    _expect(path, content, "dtype", content["dtype"] in DTYPES, f"one of {', '.join(DTYPES)}")
    most = DTYPES[content["dtype"]]
    _expect(path, tokenizer, "codebook_size", tokenizer["codebook_size"] <= most, f"at most {most}")
    dtypes = FEATURES if encoder else ("",)
    _expect(path, content, "features", content["features"] in dtypes, f"one of {dtypes}")
    if encoder:
        _expect(path, content, "caption_tokens", content["caption_tokens"] >= 1, "1 or more")
        _expect(path, encoder, "width", encoder["width"] >= 1, "1 or more")
    grids, names = content["grids"], content["class_names"]
    pairs = bool(grids) and all(map(_is_grid, grids))
    _expect(path, content, "grids", pairs, "a list of [height, width] in tokens")
    square = [content["image_size"] // tokenizer["downsample"]] * 2
    _expect(path, content, "grids", square in grids, f"the square {square} among them")
    _expect(path, content, "color", content["color"] in COLORS, f"one of {', '.join(COLORS)}")
    are_texts = all(isinstance(name, str) for name in names)
    _expect(path, content, "class_names", are_texts, "a list of texts")
    shards = content["shards"]
    plain = bool(shards) and all(map(_is_plain, shards)) and len({*shards}) == len(shards)
    _expect(path, content, "shards", plain, "a list of different names of files, without folders")


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_positive, value))


def _is_positive(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_plain(value: Any) -> TypeGuard[str]:
    # An index must not make us read or write elsewhere.
    return isinstance(value, str) and not {*value} & {*"/\\\0"} and value not in ("", ".", "..")


def _expect(
    path: epath.Path, content: Mapping[str, Any], field: str, holds: bool, expected: str
) -> None:
    if not holds:
        text = json.dumps(content[field])
        beginning = text if len(text) <= 60 else f"{text[:60]}..."
        raise InputError(f"{path}: field {field!r} is {beginning}, expected {expected}")
