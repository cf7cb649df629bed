"""Files that are files, and not devices, pipes or sockets, which may have no end."""

import os
import stat

from maskgil_jax.errors import Unreadable

LARGEST = 2**30  # bytes
SHORT = 2**16  # bytes that are asked for at least

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_regular_file(path: str | os.PathLike[str], largest: int = LARGEST) -> bytes:
    """The bytes of a regular file; links are followed, nothing else is waited for or read.

    Args:
      path: of the file.
      largest: bytes that it may have.

    Raises:
      Unreadable: it is missing, of another kind or larger, or cannot be read; says which, but not
        its name, which callers know.
    """
    try:
        # Without O_NONBLOCK the open itself would wait for a writer of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            raise Unreadable(f"is {kind}, expected a regular file")
        if found.st_size > largest:
            raise Unreadable(f"has {found.st_size:,} bytes, expected at most {largest:,}")
        return _read(descriptor, max(found.st_size, SHORT), largest)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    finally:
        os.close(descriptor)


def _read(descriptor: int, size: int, largest: int) -> bytes:
    """All there is, which may be more than `size`: files of /proc claim to be empty."""
    data = b""
    while part := os.read(descriptor, size + 1):
        data += part
        if len(data) > largest:
            raise Unreadable(f"has more than {largest:,} bytes")
    return data
