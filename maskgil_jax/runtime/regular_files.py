"""Opening regular files only, and not devices, pipes or sockets, which may have no end."""

import os
import stat
from typing import IO

from etils import epath

from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import Unreadable

LARGEST = 2**30  # bytes
SHORT = 2**16  # bytes that are read at least

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: epath.PathLike) -> IO[bytes]:
    """Open a regular file, or one in cloud storage; links are followed, nothing else is waited for.

    Raises:
      Unreadable: it is of another kind; says which, but not its name, which callers know.
      OSError: there is none, or it cannot be read.
    """
    return epath.Path(path).open("rb") if paths.is_remote(path) else _open_on_this_machine(path)


def _open_on_this_machine(path: str | os.PathLike[str]) -> IO[bytes]:
    # Without O_NONBLOCK the open itself would wait for a writer of a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise Unreadable(f"is {kind}, expected a regular file")
    return os.fdopen(descriptor, "rb")


def read_regular_file(path: str | os.PathLike[str], largest: int = LARGEST) -> bytes:
    """The bytes of a regular file on this machine; links are followed.

    Args:
      path: of the file.
      largest: bytes that it may have.

    Raises:
      Unreadable: it is missing, of another kind or larger, or cannot be read; says which, but not
        its name, which callers know.
    """
    try:
        with _open_on_this_machine(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise Unreadable(f"has {size:,} bytes, expected at most {largest:,}")
            return _read(file.fileno(), max(size, SHORT), largest)
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from None


def _read(descriptor: int, size: int, largest: int) -> bytes:
    """All there is, which may be more than `size`: files of /proc claim to be empty."""
    data = b""
    while block := os.read(descriptor, size + 1):
        data += block
        if len(data) > largest:
            raise Unreadable(f"has more than {largest:,} bytes")
    return data
