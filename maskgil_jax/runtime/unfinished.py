"""Directories that a command fills with files, marked as unfinished until all are there.

While it writes, a file MARK lies there; what reads such directories refuses them. The mark says
with which settings it writes, so that the same command can go on, and which files, so that another
one can remove them, and only them.
"""

import json
import logging
import re
from collections.abc import Container, Mapping, Sequence
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
      files: their names.
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
) -> bool:
    """Mark a directory, which is made if needed, as unfinished.

    What a command of other settings has written there is removed; files of others stay.

    Args:
      directory: to be filled.
      new: what will be written.
      before: what lies there, if a command has finished it.
      removes_unfinished: whether what one has not finished is removed too; it is refused otherwise.

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
        _remove_temporaries(directory, {MARK, *new.files, *(previous.files if previous else ())})
        if previous and new.settings is not None and previous.settings == new.settings:
            mark(directory, new)
            return True
        if previous:
            # As long as any of them may be there, none counts as written with new settings.
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
        mark(directory, new)
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error}") from None
    return False


def _check_same(directory: epath.Path, marked: Written, new: Written) -> None:
    """Raise InputError where files of other settings than the new ones lie there unfinished."""
    ours, theirs = (dict(one.settings or {}) for one in (new, marked))
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if not names:
        return
    there = {path.name for path in directory.iterdir()}
    if count := len(there & {*marked.files}):
        raise InputError(
            f"{directory} holds {count} of {len(marked.files)} files of another run, which was "
            f"stopped or is still running; it differs in {', '.join(names)}: expected another "
            "directory, or the command of that run, which goes on; or remove the directory"
        )


def _remove_temporaries(directory: epath.Path, names: Container[str]) -> None:
    """Remove what a kill left of files of these names while runtime/files.py wrote them."""
    # In cloud storage a directory without files is not there.
    for path in directory.iterdir() if directory.exists() else ():
        temporary = re.fullmatch(r"(.+)\.[0-9a-f]{8}\.tmp", path.name)
        if temporary and temporary[1] in names:
            path.unlink()


def mark(directory: epath.PathLike, written: Written) -> None:
    """Mark a directory as unfinished, or change what its mark says."""
    write_json(epath.Path(directory) / MARK, written._asdict())


def end(directory: epath.PathLike) -> None:
    """Take the mark off: all files are there."""
    (epath.Path(directory) / MARK).unlink(missing_ok=True)


def _read(directory: epath.Path) -> Written | None:
    path = directory / MARK
    try:
        content = read_json(path, {"settings": (dict, type(None)), "files": list})
    except FileNotFoundError:
        return None
    for name in content["files"]:
        if not isinstance(name, str) or epath.Path(name).name != name:
            raise InputError(f"{path}: field 'files' holds {name!r}, expected names of files")
    return Written(content["settings"], content["files"])
