"""Reading .npz files, as `numpy.savez` writes them, that come from anywhere."""

import contextlib
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from maskgil_jax.runtime import npy
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import open_regular

SUFFIX = ".npy"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of numpy.savez
MOST_DEFLATED = 1032  # to 1: no more can come out of what is deflated
# What expands so far and becomes so large is a bomb, and no array that somebody computed.
BOMB_RATIO, BOMB_BYTES = 200, 1 << 30


class Archive:
    """An npz that is open.

    Attributes:
      names: of its arrays, each once.
    """

    def __init__(self, file: zipfile.ZipFile):
        self._file = file
        times = Counter(info.filename for info in file.infolist())
        if twice := [name for name, count in times.items() if count > 1]:
            raise ValueError(f"it holds {twice[0]} {times[twice[0]]} times")
        self._members = {
            info.filename.removesuffix(SUFFIX): info
            for info in file.infolist()
            if info.filename.endswith(SUFFIX)
        }
        self.names = tuple(self._members)

    def checksum(self, name: str) -> int:
        """The CRC-32 that the archive says an array has."""
        return self._members[name].CRC

    def open(self, name: str) -> IO[bytes]:
        """The bytes of an array, from its header on.

        Raises:
          ValueError: a member that is not what numpy.savez writes.
        """
        info = self._members[name]
        if info.flag_bits & 1:
            raise ValueError(f"{name} is encrypted")
        if info.compress_type not in METHODS:
            raise ValueError(
                f"{name} is compressed by method {info.compress_type}, expected 0 (stored) or 8 "
                "(deflated)"
            )
        packed = max(info.compress_size, 1)
        if info.file_size > packed * MOST_DEFLATED:
            raise ValueError(
                f"{name} says that {info.compress_size:,} bytes expand to {info.file_size:,}, "
                "which they cannot"
            )
        return self._file.open(info)

    def header(self, name: str) -> npy.Header:
        """What an array says of itself.

        Raises:
          ValueError: nothing that is true.
        """
        with self.open(name) as stream, _named(name):
            return npy.read_header(stream)

    def read(self, name: str) -> np.ndarray:
        """An array.

        Raises:
          ValueError: one that is not whole, that is executed, or that would fill the memory.
        """
        info = self._members[name]
        if info.file_size > max(BOMB_BYTES, info.compress_size * BOMB_RATIO):
            raise ValueError(
                f"{name} expands from {info.compress_size:,} to {info.file_size:,} bytes, which "
                "no computed array does"
            )
        with self.open(name) as stream, _named(name):
            return npy.read_npy(stream, info.file_size)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


@contextlib.contextmanager
def opened(path: str) -> Iterator[Archive]:
    """An npz, open.

    Raises:
      InputError: what is there is broken, cut, foreign or no file; also within the context.
    """
    with errors(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        yield Archive(archive)


@contextlib.contextmanager
def errors(path: str) -> Iterator[None]:
    """Turn what a broken, cut or foreign file makes readers stumble over into InputError."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} is not an npz: there is no such file") from None
    except Unreadable as error:
        raise InputError(f"{path} {error}") from None
    except MemoryError:
        raise InputError(f"{path} holds arrays that do not fit in memory") from None
    # zipfile raises RuntimeError for what newer versions of the format have, such as patched data.
    except (
        *(OSError, ValueError, EOFError, RuntimeError, OverflowError),
        *(zipfile.BadZipFile, zlib.error, struct.error),
    ) as error:
        raise InputError(f"{path} is not an npz that is whole: {error}") from None


def read_arrays(path: str, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an npz by name, none of them executable.

    Args:
      path: of the file.
      only: names of those to read, where they are there; None: all.

    Raises:
      InputError: not a whole npz, or a pickled array.
    """
    with opened(path) as archive:
        return {name: archive.read(name) for name in archive.names if only is None or name in only}


def read_kept(path: str, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """As `read_arrays`, of a file that an earlier start of the same command wrote.

    Raises:
      InputError: it is damaged; says that it can be removed.
    """
    try:
        return read_arrays(path, only)
    except InputError as error:
        raise InputError(f"{error}. Remove it: it is then computed again") from None


def names_of_arrays(path: str) -> tuple[str, ...]:
    """Names of the arrays of an npz; InputError where it is none."""
    with opened(path) as archive:
        return archive.names
