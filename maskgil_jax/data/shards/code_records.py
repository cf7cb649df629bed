"""Code records: one example of code shards as it is written, and checked when it is read."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import msgpack
import numpy as np

from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.shards.shard_index import Index
from maskgil_jax.runtime.errors import Unreadable


class CodeRecord(NamedTuple):
    """One example.

    Attributes:
      codes: integers [views, h, w].
      label: the class.
      id: of the image that it was made from.
      size: (height, width) of that image in pixels.
      captions: int32 [n], token ids of each of its captions.
      features: [n, C] of each of its captions, or none.
      recording: the file of its recording, or b"".
    """

    codes: np.ndarray
    label: int
    id: str
    size: Size
    captions: tuple[np.ndarray, ...] = ()
    features: tuple[np.ndarray, ...] = ()
    recording: bytes = b""


def pack(record: CodeRecord) -> bytes:
    """A record, with codes of the dtype to store, as bytes."""
    content = record._asdict() | {
        "codes": record.codes.tobytes(),
        "grid": record.codes.shape[1:],
        "captions": [ids.tobytes() for ids in record.captions],
        "features": [values.tobytes() for values in record.features],
    }
    if not record.recording:
        del content["recording"]
    return msgpack.packb(content, unicode_errors=_ERRORS)


_SIDES = [int, int]
_ERRORS = "surrogateescape"  # names of files need not be text
_TYPES = dict(codes=bytes, grid=list, label=int, id=str, size=list, captions=list, features=list)


class Unpacker:
    """Makes records of bytes again, and checks all that is in them.

    Args:
      index: of the shards that they are of.
    """

    def __init__(self, index: Index):
        self._index = index
        self._classes = max(1, len(index.class_names))
        self._dtype = np.dtype(index.dtype)
        self._unsigned = np.dtype(f"u{self._dtype.itemsize}")
        self._codes_end = index.tokenizer["codebook_size"]
        self._features_dtype = jnp.dtype(index.features or "float32")

    def record(self, data: bytes, grid: Size) -> CodeRecord:
        """The record that `pack` made.

        Args:
          data: what it made.
          grid: (height, width) in tokens, which it should have.

        Raises:
          Unreadable: it is of something else, or has values that cannot be.
        """
        try:
            content = msgpack.unpackb(data, unicode_errors=_ERRORS)
        except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as e:
            raise Unreadable(f"not msgpack ({str(e)[:80] or type(e).__name__})") from None
        _check_types(content)
        if tuple(content["grid"]) != grid:
            raise Unreadable(f"grid {str(content['grid'])[:40]}, expected {[*grid]}")
        label, size = content["label"], content["size"]
        if not 0 <= label < self._classes:
            raise Unreadable(f"class {label}, expected 0 to {self._classes - 1}")
        if [*map(type, size)] != _SIDES or min(size) < 1:
            raise Unreadable(f"size {str(size)[:40]}, expected [height, width] in pixels")
        codes = self._codes(content["codes"], grid)
        captions, features = content["captions"], content["features"]
        if captions or features or self._index.encoder:
            captions = self._captions(captions)
            features = self._features(features, captions)
        recording = content.get("recording", b"")
        if type(recording) is not bytes or bool(recording) != self._index.recordings:
            expected = "one" if self._index.recordings else "none"
            raise Unreadable(f"a recording of {_described(recording)}, expected {expected}")
        texts = tuple(captions), tuple(features)
        return CodeRecord(codes, label, content["id"], tuple(size), *texts, recording)

    def _codes(self, data: bytes, grid: Size) -> np.ndarray:
        """Int32 [views, h, w]."""
        shape = self._index.views, *grid
        expected = shape[0] * shape[1] * shape[2] * self._dtype.itemsize
        if len(data) != expected:
            raise Unreadable(f"{len(data)} bytes of codes, expected {expected}")
        # Taken for unsigned, a negative number is a large one.
        if np.frombuffer(data, self._unsigned).max() >= self._codes_end:
            codes = np.frombuffer(data, self._dtype)
            raise Unreadable(
                f"codes from {codes.min()} to {codes.max()}, expected 0 to {self._codes_end - 1} "
                "(the tokenizer's)"
            )
        return np.frombuffer(data, self._dtype).astype(np.int32).reshape(shape)

    def _captions(self, stored: list[Any]) -> tuple[np.ndarray, ...]:
        """Int32 [n] of each."""
        if bool(stored) != bool(self._index.encoder):
            expected = "some" if self._index.encoder else "none"
            raise Unreadable(f"{len(stored)} captions, expected {expected}")
        most = 4 * self._index.caption_tokens
        for data in stored:
            if type(data) is not bytes or len(data) % 4 or not 0 < len(data) <= most:
                raise Unreadable(
                    f"a caption is {_described(data)}, expected ids of 4 bytes each, {most} at most"
                )
        captions = tuple(np.frombuffer(data, np.int32) for data in stored)
        for ids in captions:
            if ids.min() < 0:
                raise Unreadable(f"a caption has token id {ids.min()}, expected 0 or more")
        return captions

    def _features(
        self, stored: list[Any], captions: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, ...]:
        """[n, C] of each caption."""
        expected = len(captions) if self._index.features else 0
        if len(stored) != expected:
            raise Unreadable(f"features of {len(stored)} captions, expected of {expected}")
        if not expected:
            return ()
        width = self._index.encoder["width"]
        for data, ids in zip(stored, captions, strict=True):
            size = len(ids) * width * self._features_dtype.itemsize
            if type(data) is not bytes or len(data) != size:
                raise Unreadable(
                    f"features of a caption are {_described(data)}, expected {size} bytes"
                )
        features = tuple(
            np.frombuffer(data, self._features_dtype).reshape(-1, width) for data in stored
        )
        if not all(map(_finite, features)):
            raise Unreadable("features of a caption are not finite")
        return features


def _check_types(content: Any) -> None:
    if type(content) is not dict:
        raise Unreadable(f"a {type(content).__name__}, expected fields by name")
    for name, expected in _TYPES.items():
        if type(content.get(name)) is not expected:
            actual = _described(content[name]) if name in content else "missing"
            raise Unreadable(f"{name} is {actual}, expected {expected.__name__}")


def _described(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"


def _finite(values: np.ndarray) -> bool:
    """As np.isfinite of all, six times faster for bfloat16: no exponent is all ones."""
    if values.dtype != jnp.bfloat16:
        return bool(np.isfinite(values).all())
    exponents = values.view(np.uint16) & 0x7F80
    return bool((exponents != 0x7F80).all())
