"""The tensors of CTranslate2's model.bin, read with numpy alone; nothing in it executes.

Source: OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py (`_serialize`) and
src/models/model.cc (`Model::load`).
"""

import math
import struct
from typing import Any

import ml_dtypes
import numpy as np

from maskgil_jax.runtime.errors import InputError

Tensors = dict[str, np.ndarray]

VERSIONS = (4, 5, 6)  # in which tensors have their dtypes beside them
DTYPES = tuple(
    map(np.dtype, (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16))
)


def read(path: str, specification: str) -> Tensors:
    """All variables of a file, by their names.

    Args:
      path: of model.bin.
      specification: the kind of model that it has to be, such as "WhisperSpec".

    Raises:
      InputError: another file, another kind of model, or a truncated one.
    """
    with open(path, "rb") as file:
        reader = _Reader(path, file.read())
    (version,) = reader.numbers("I")
    if version not in VERSIONS:
        raise InputError(f"source={path} is no model of CTranslate2 of versions {VERSIONS}")
    kind = reader.string()
    if kind != specification:
        raise InputError(f"source={path} holds a {kind}, expected a {specification}")
    _, variables = reader.numbers("II")  # the first is the specification's revision
    return dict(reader.variable() for _ in range(variables))


class _Reader:
    """Takes little-endian values off the front of some bytes."""

    def __init__(self, path: str, data: bytes):
        self._path, self._data, self._at = path, memoryview(data), 0

    def take(self, size: int) -> memoryview:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise InputError(
                f"source={self._path} is truncated: {len(self._data)} bytes, "
                f"{self._at + size} or more expected"
            )
        self._at += size
        return taken

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def string(self) -> str:
        (size,) = self.numbers("H")
        return bytes(self.take(size)).decode("utf-8", "replace").rstrip("\0")

    def variable(self) -> tuple[str, np.ndarray]:
        name = self.string()
        (rank,) = self.numbers("B")
        shape = self.numbers(f"{rank}I")
        kind, size = self.numbers("BI")
        if kind >= len(DTYPES) or size != math.prod(shape) * DTYPES[kind].itemsize:
            raise InputError(f"source={self._path}: {name} {shape} has {size} bytes of type {kind}")
        return name, np.frombuffer(self.take(size), DTYPES[kind]).reshape(shape)
