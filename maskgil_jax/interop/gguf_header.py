"""Whether the header of a GGUF file can be true, before a library goes by the numbers in it.

Source: ggml-org/ggml, docs/gguf.md.
"""

import os
import struct
from typing import BinaryIO

MAGIC = b"GGUF"
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes, by type
STRING, ARRAY = 8, 9
LEAST = {STRING: 8, ARRAY: 12} | SIZES  # bytes that a value of each type takes at least
LEAST_FIELD, LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
MOST_AXES = 8
DEEPEST = 4  # arrays of arrays


def check(path: str) -> None:
    """Raise ValueError where a header counts or measures more than the file holds."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        (version,) = _read(file, "I")
        if version not in (2, 3):
            raise ValueError(f"it is of version {version}, expected 2 or 3")
        tensors, fields = _read(file, "QQ")
        _check_count(file, size, tensors, LEAST_TENSOR, "tensors")
        _check_count(file, size, fields, LEAST_FIELD, "fields")
        for _ in range(fields):
            _skip_string(file, size)
            (kind,) = _read(file, "I")
            _skip_values(file, size, kind, 1)
        for _ in range(tensors):
            _skip_string(file, size)
            (axes,) = _read(file, "I")
            if axes > MOST_AXES:
                raise ValueError(f"a tensor has {axes} axes, expected at most {MOST_AXES}")
            _read(file, f"{axes}QIQ")


def _read(file: BinaryIO, form: str) -> tuple[int, ...]:
    length = struct.calcsize(f"<{form}")
    data = file.read(length)
    if len(data) < length:
        raise ValueError("it ends in its header")
    return struct.unpack(f"<{form}", data)


def _check_count(file: BinaryIO, size: int, count: int, least: int, what: str) -> None:
    if count * least > size - file.tell():
        raise ValueError(f"it says {count:,} {what}, which cannot be in {size:,} bytes")


def _skip_string(file: BinaryIO, size: int) -> None:
    (length,) = _read(file, "Q")
    _check_count(file, size, length, 1, "characters")
    file.seek(length, os.SEEK_CUR)


def _skip_values(file: BinaryIO, size: int, kind: int, count: int, depth: int = 0) -> None:
    if kind not in LEAST or depth > DEEPEST:
        raise ValueError(f"it holds a value of type {kind}, nested {depth} times")
    _check_count(file, size, count, LEAST[kind], "values")
    if kind in SIZES:
        file.seek(count * SIZES[kind], os.SEEK_CUR)
        return
    for _ in range(count):
        if kind == STRING:
            _skip_string(file, size)
        else:
            inner, length = _read(file, "IQ")
            _skip_values(file, size, inner, length, depth + 1)
