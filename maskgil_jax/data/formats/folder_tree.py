"""A folder and all below it: each folder once, links to folders followed, circles ended."""

import collections
import dataclasses
import os
from collections.abc import Iterator

from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.other_files import is_of_system
from maskgil_jax.runtime.errors import InputError


@dataclasses.dataclass
class Level:
    """What lies in one folder, unsorted.

    Attributes:
      path: of the folder below the top, as it was reached; "" is the top.
      files: names of what are no folders, links that lead nowhere among them.
      folders: names of folders, and of links to folders, that are looked into.
      hidden: names of folders that are not, since they are hidden or of the system.
      again: whether the folder was seen before under another path, and so is not listed.
    """

    path: str
    files: list[str] = dataclasses.field(default_factory=list)
    folders: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    again: bool = False


def walk(top: str) -> Iterator[Level]:
    """The folder `top`, then all folders below it, and at last those that links lead to.

    So what lies in a folder counts to that, and not to another one that a link leads from. A folder
    that `top` lies in, which would be a circle, counts as seen before.

    Raises:
      InputError: a folder that cannot be listed.
    """
    seen = set(_around(top))
    folders, links = collections.deque([""]), collections.deque[str]()
    while folders or links:
        path = folders.popleft() if folders else links.popleft()
        full_path = os.path.join(top, path)
        try:
            status = os.stat(full_path)
            if (status.st_dev, status.st_ino) in seen:
                yield Level(path, again=True)
                continue
            seen.add((status.st_dev, status.st_ino))
            level = Level(path)
            with os.scandir(full_path) as entries:
                for entry in entries:
                    _sort_in(entry, level, folders, links)
        except OSError as error:
            raise InputError(
                f"folder {printable(full_path)} cannot be listed: {error.strerror or error}"
            ) from None
        yield level


def _sort_in(
    entry: os.DirEntry[str],
    level: Level,
    folders: collections.deque[str],
    links: collections.deque[str],
) -> None:
    if _is_folder(entry):
        if is_of_system(entry.name):
            level.hidden.append(entry.name)
            return
        level.folders.append(entry.name)
        queue = links if entry.is_symlink() else folders
        queue.append(os.path.join(level.path, entry.name))
        return
    level.files.append(entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or through what may not be entered
        return False


def _around(path: str) -> Iterator[tuple[int, int]]:
    """Device and inode of each folder that `path` lies in."""
    inner, outer = os.path.realpath(path), os.path.dirname(os.path.realpath(path))
    while outer != inner:
        status = os.stat(outer)
        yield status.st_dev, status.st_ino
        inner, outer = outer, os.path.dirname(outer)
