"""Reading .npy files that come from anywhere, or refusing them for a reason in plain words.

`numpy.load` believes a header: it allocates the memory that it claims, and lets escape whatever its
parser stumbles over.
"""

import ast
import math
import os
import re
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath

from maskgil_jax.runtime.regular_files import open_regular

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes, as numpy.load
BLOCK = 1 << 20  # bytes that are read at once
LARGEST_CHARACTER = 0x10FFFF


class Header(NamedTuple):
    """What an array says of itself before its values.

    Attributes:
      shape: none of it negative.
      dtype: of numbers, truth values, texts or times.
      by_column: whether the values are stored in Fortran order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool

    @property
    def bytes(self) -> int:
        """Size of the values, exactly, however many they are."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """The header of an array; afterwards the file stands at the first of its values.

    Raises:
      ValueError: it is none, or of an array that is executed or has fields.
    """
    start = file.read(len(MAGIC) + 2)
    if start[: len(MAGIC)] != MAGIC or len(start) < len(MAGIC) + 2:
        raise ValueError("does not start as an array of NumPy")
    version = start[len(MAGIC)]
    if version not in (1, 2, 3):
        raise ValueError(f"has version {version} of NumPy's format, expected 1 to 3")
    size = int.from_bytes(file.read(2 if version == 1 else 4), "little")
    if size > LONGEST_HEADER:
        raise ValueError(f"has a header of {size:,} bytes, expected at most {LONGEST_HEADER:,}")
    text = file.read(size)
    if len(text) < size:
        raise ValueError("ends in its header")
    return _parsed(text.decode("utf-8" if version == 3 else "latin-1"))


def _parsed(text: str) -> Header:
    try:
        content: Any = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text).strip())  # 40L: Python 2
        shape, by_column = content["shape"], content["fortran_order"]
        dtype = np.lib.format.descr_to_dtype(content["descr"])
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError):
        raise ValueError("has a header that is not one of NumPy's") from None
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"has shape {shape!r:.80}, expected numbers of 0 or more")
    if not isinstance(by_column, bool):
        raise ValueError(f"has fortran_order {by_column!r:.80}, expected True or False")
    if dtype.hasobject:
        raise ValueError("is a pickled array, which could execute anything; refused")
    if dtype.kind == "V" or not dtype.itemsize:
        raise ValueError(f"has dtype {str(dtype):.80}, expected numbers or texts")
    return Header(shape, dtype, by_column)


def read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Read an array, for which no memory is allocated before its header is known to be true.

    Args:
      file: at the start of the array.
      size: bytes from there to the end of the file, which is where the array ends too.

    Raises:
      ValueError: no array, one that needs another number of bytes, or one that is executed.
    """
    start = file.tell()
    header = read_header(file)
    return read_values(file, header, size - (file.tell() - start))


def read_values(file: IO[bytes], header: Header, size: int) -> np.ndarray:
    """The values after a header that was read; the arguments and errors are those of read_npy."""
    if header.bytes > size:
        raise ValueError(
            f"says {header.dtype} {header.shape}, which are {header.bytes:,} bytes, and holds "
            f"{size:,}"
        )
    values = np.empty(header.bytes, np.uint8)
    filled, view = 0, values.data
    while filled < len(values):
        block = file.read(min(BLOCK, len(values) - filled))
        if not block:
            raise ValueError(f"ends after {filled:,} of {header.bytes:,} bytes")
        view[filled : filled + len(block)] = block
        filled += len(block)
    if file.read(1):
        raise ValueError(
            f"goes on after its {header.bytes:,} bytes ({header.dtype} {header.shape})"
        )
    array = values.view(header.dtype).reshape(header.shape, order="F" if header.by_column else "C")
    if header.dtype.kind == "U" and array.size:
        codes = values.view(np.dtype(np.uint32).newbyteorder(header.dtype.byteorder))
        if codes.max() > LARGEST_CHARACTER:
            raise ValueError("holds texts of characters that there are not")
    return array


def read_file(path: epath.PathLike) -> np.ndarray:
    """The array of a file F.npy.

    Raises:
      FileNotFoundError: there is nothing.
      Unreadable: no regular file; does not say its name.
      OSError: it cannot be read.
      ValueError: as read_npy.
    """
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return read_npy(file, size)
