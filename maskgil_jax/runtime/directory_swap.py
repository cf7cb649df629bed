"""A directory replaces another atomically: at every moment one of them is there, whole.

A directory is whole where it has a file that is written last (`marker`). The new one is written
under a temporary name beside the place (`beside`) and then takes it (`replace`).

Where the file system can exchange two names at once, as those of Linux on local disks, a reader
finds a whole directory at any moment. On others, and in cloud storage, there may be a moment
without; if the process dies in it, the next start finishes (`finish`), and until then
`replacement_of` names the directory that is whole.
"""

import ctypes
import errno
import os
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from maskgil_jax.runtime import paths

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def beside(directory: epath.Path, name: str) -> epath.Path:
    """Where to write what shall replace a directory; `name` is of 16 hex digits."""
    return directory.with_name(f"{directory.name}.{name}.tmp")


def replace(fresh: epath.Path, directory: epath.Path, marker: str) -> None:
    """Put the whole directory `fresh` in the place of another, which may not be there."""
    if paths.is_remote(directory):
        _move_in_object_store(fresh, directory, marker)
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    if not directory.exists():
        fresh.rename(directory)
    elif exchange(fresh, directory):
        fresh.rmtree()  # now the old one
    else:
        old = directory.with_name(f"{directory.name}.{uuid.uuid4().hex[:8]}.old.tmp")
        directory.rename(old)
        fresh.rename(directory)
        old.rmtree()


def replacement_of(directory: epath.Path, marker: str) -> epath.Path | None:
    """The whole directory that was to replace one that is not whole, if there is one."""
    if (directory / marker).exists() or not directory.parent.is_dir():
        return None
    pattern = re.compile(re.escape(directory.name) + r"\.[0-9a-f]{16}\.tmp")
    for path in directory.parent.iterdir():
        if pattern.fullmatch(path.name) and (path / marker).exists():
            return path
    return None


def finish(directory: epath.Path, marker: str) -> None:
    """Replace a directory that is not whole by the one that was to do so."""
    if fresh := replacement_of(directory, marker):
        if not paths.is_remote(directory) and directory.exists():
            directory.rmtree()
        replace(fresh, directory, marker)


def exchange(one: epath.Path, other: epath.Path) -> bool:
    """Exchange two names on this machine; False, and nothing done, where that is not possible.

    Raises:
      OSError: it is possible, but not with these.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _move_in_object_store(fresh: epath.Path, directory: epath.Path, marker: str) -> None:
    """Object by object; what is not whole has no marker at any moment."""
    (directory / marker).unlink(missing_ok=True)
    directory.rmtree(missing_ok=True)
    files = [path for path in files_below(fresh) if path != fresh / marker]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: _copy(path, directory / path.relative_to(fresh)), files))
    _copy(fresh / marker, directory / marker)
    (fresh / marker).unlink()
    fresh.rmtree()


def files_below(directory: epath.Path) -> Iterator[epath.Path]:
    """All files in a directory and in its folders."""
    for path in directory.iterdir():
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def _copy(source: epath.Path, target: epath.Path) -> None:
    import fsspec  # comes with etils

    store, _ = fsspec.url_to_fs(os.fspath(source))
    store.copy(os.fspath(source), os.fspath(target))  # within the store
