"""Directories that a command fills with files, marked as unfinished until all are there.

While it writes, a file MARK lies there; what reads such directories refuses them. The mark says
with which settings it writes, so that the same command can go on, and which files, so that another
one can remove them, and only them.
"""

import json
import logging
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json, to_json, write_json

log = logging.getLogger("maskgil_jax")

MARK = "unfinished.json"


class Written(NamedTuple):
    """What a command writes, or has written, into a directory.

    Attributes:
      settings: JSON-able, all that the files depend on; None: they are of no use to go on with.
      files: their names, or paths below the directory.
    """

    settings: Mapping[str, Any] | None
    files: Sequence[str]


def check(directory: epath.PathLike) -> None:
    """Raise InputError where a directory is marked as unfinished."""
    try:
        marked = (epath.Path(directory) / MARK).exists()
    except OSError:  # that it cannot be searched is said by whoever reads it
        return
    if marked:
        raise InputError(
            f"{directory} is unfinished ({MARK} lies there): what writes it was stopped, or is "
            "still running; run the same command again, which goes on, or remove the directory"
        )


def begin(
    directory: epath.PathLike,
    new: Written,
    before: Written | None = None,
    removes_unfinished: bool = True,
    overwrites: bool = True,
) -> bool:
    """Mark a directory, which is made if needed, as unfinished.

    What a command of other settings has written there is removed; files of others stay.

    Args:
      directory: to be filled.
      new: what will be written.
      before: what lies there, if a command has finished it.
      removes_unfinished: whether what one has not finished is removed too; it is refused otherwise.
      overwrites: whether files of the new names that no command left are written over; they are
        refused otherwise.

    Returns:
      Whether files that are there were written with the same settings: there is no need to write
      those again.

    Raises:
      InputError: a mark that is damaged, a directory that cannot be written, or what is refused.
    """
    directory = epath.Path(directory)
    new = Written(json.loads(to_json(new.settings)), new.files)  # as a mark gives them back
    try:
        directory.mkdir(parents=True, exist_ok=True)
        marked = _read(directory)
        if marked and marked.settings is not None and not removes_unfinished:
            _check_same(directory, marked, new)
        previous = marked or before
        if not overwrites:
            _check_unknown(directory, {*new.files} - {*(previous.files if previous else ())})
        _remove_temporaries(directory, {MARK, *new.files, *(previous.files if previous else ())})
        if previous and new.settings is not None and previous.settings == new.settings:
            mark(directory, new)
            return True
        if previous:
            _remove(directory, previous)
        mark(directory, new)
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error}") from None
    return False


def _remove(directory: epath.Path, previous: Written) -> None:
    """Remove what a command of other settings has written."""
    # As long as any of these files may be there, none counts as written with new settings.
    mark(directory, Written(None, previous.files))
    existing = [directory / name for name in previous.files]
    existing = [path for path in existing if path.is_file()]
    if existing:
        log.info(
            "%s holds %d files of a run with other settings: they are removed",
            directory,
            len(existing),
        )
    for path in existing:
        path.unlink()
    _remove_empty(directory, previous.files)


def _check_same(directory: epath.Path, marked: Written, new: Written) -> None:
    """Raise InputError where files of other settings than the new ones lie there unfinished."""
    ours, theirs = (dict(one.settings or {}) for one in (new, marked))
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if not names:
        return
    if count := len(there(directory, marked.files)):
        raise InputError(
            f"{directory} holds {count} of {len(marked.files)} files of another run, which was "
            f"stopped or is still running; it differs in {', '.join(names)}: expected another "
            "directory, or the command of that run, which goes on; or remove the directory"
        )


def there(directory: epath.Path, names: Iterable[str]) -> set[str]:
    """Those of these files that are in a directory."""
    names = {*names}
    return {name for folder in _folders(names) for name, _ in _listed(directory, folder)} & names


def _check_unknown(directory: epath.Path, names: Iterable[str]) -> None:
    """Raise InputError where any of these files is in a directory."""
    if unknown := sorted(there(directory, names)):
        raise InputError(
            f"{directory} holds {len(unknown)} files that would be written over, as {unknown[0]}, "
            "and that no run of this command left there: expected another directory"
        )


def _remove_temporaries(directory: epath.Path, names: set[str]) -> None:
    """Remove what a kill left of files of these names while runtime/files.py wrote them."""
    for folder in _folders(names):
        for name, path in _listed(directory, folder):
            temporary = re.fullmatch(r"(.+)\.[0-9a-f]{8}\.tmp", name)
            if temporary and temporary[1] in names:
                path.unlink()


def _remove_empty(directory: epath.Path, names: Iterable[str]) -> None:
    """Remove the folders of these files that are empty, and the folders around those."""
    folders = _folders(names)
    for folder in [*folders]:
        folders |= {str(parent) for parent in pathlib.PurePosixPath(folder).parents}
    for folder in sorted(folders - {"."}, key=len, reverse=True):
        path = directory / folder
        if path.is_dir() and not any(path.iterdir()):
            path.rmtree()


def _folders(names: Iterable[str]) -> set[str]:
    """Of files, "." being the directory itself."""
    return {str(pathlib.PurePosixPath(name).parent) for name in names}


def _listed(directory: epath.Path, folder: str) -> Iterator[tuple[str, epath.Path]]:
    """What is in a folder of a directory, by its path below the directory."""
    around = "" if folder == "." else f"{folder}/"
    # In cloud storage a directory without files is not there.
    where = directory / folder if around else directory
    for path in where.iterdir() if where.exists() else ():
        yield f"{around}{path.name}", path


def mark(directory: epath.PathLike, written: Written) -> None:
    """Mark a directory as unfinished, or change what its mark says."""
    write_json(epath.Path(directory) / MARK, written._asdict())


def end(directory: epath.PathLike) -> None:
    """Take the mark off: all files are there."""
    (epath.Path(directory) / MARK).unlink(missing_ok=True)


def _is_below(name: str) -> bool:
    """Whether a text is the path of a file below a directory."""
    path = pathlib.PurePosixPath(name)
    return (
        bool(path.name) and str(path) == name and not path.is_absolute() and ".." not in path.parts
    )


def _read(directory: epath.Path) -> Written | None:
    path = directory / MARK
    try:
        content = read_json(path, {"settings": (dict, type(None)), "files": list})
    except FileNotFoundError:
        return None
    for name in content["files"]:
        if not isinstance(name, str) or not _is_below(name):
            raise InputError(f"{path}: field 'files' holds {name!r}, expected names of files")
    return Written(content["settings"], content["files"])
