"""Where the companions of a directory are: its tokenizer, its encoder of text or speech.

`model.json`, and `index.json` of code shards, names each by its place in training and by its
fingerprint. A place that begins with ./ is inside the directory itself, as
`maskgil_jax.convert bundle` writes it.
"""

import functools
import itertools
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json

log = logging.getLogger("maskgil_jax")

NAMES = ("tokenizer", "encoder")  # fields of model.json, and arguments that name another place
INSIDE = "./"
REACH = 6  # levels: folders around the directory, and parts of the old place, that are tried


def located(directory: epath.Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """What model.json says of a companion, with the place where it is now.

    One that is no longer at its place is looked for where the same folders lie around the
    directory: both were moved together, or copied from another machine. It counts as found by its
    fingerprint; if it is not found, the old place stays.

    Args:
      directory: of the model or of the shards.
      known: what its JSON says, {path, fingerprint, ...}; empty where it has no such companion.
    """
    path = known.get("path", "")
    if path.startswith(INSIDE):
        return {**known, "path": str(directory / path.removeprefix(INSIDE))}
    is_absolute = path.startswith("/") or "://" in path
    if not is_absolute or (epath.Path(path) / "model.json").exists():
        return dict(known)
    for place in _places(directory, path):
        if _is_of(place, known["fingerprint"]):
            _announce(directory, path, place)
            return {**known, "path": str(place)}
    return dict(known)


@functools.cache  # once, though a directory is read several times
def _announce(directory: epath.Path, path: str, place: epath.Path) -> None:
    log.info("%s names %s, which is no longer there: %s has these weights", directory, path, place)


def _places(directory: epath.Path, path: str) -> Iterator[epath.Path]:
    """Where the last folders of an old place would lie, from the nearest place on."""
    parts = pathlib.PurePosixPath(path.partition("://")[2] or path).parts[-REACH:]
    for folder in itertools.islice(directory.parents, REACH):
        for start in range(len(parts)):
            yield folder.joinpath(*parts[start:])


def _is_of(directory: epath.Path, fingerprint: str) -> bool:
    try:
        return read_json(directory / "model.json", {})["fingerprint"] == fingerprint
    except (OSError, KeyError, InputError):
        return False


def lost(what: str, path: str, model: epath.PathLike) -> InputError:
    """What to say of a companion that is not where it should be.

    Args:
      what: "tokenizer" or "encoder", as the argument is called that names another place.
      path: where it should be.
      model: the directory whose companion it is.
    """
    inside = epath.Path(path).is_relative_to(epath.Path(model))
    if inside:
        return InputError(
            f"{model} is not whole: it has no {what} in {path}; copy or download it again, or give "
            f"{what}=DIR"
        )
    return InputError(
        f"the {what} that {model} was trained with is no longer at {path}; give {what}=DIR"
    )
