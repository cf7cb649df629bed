"""Checkpoints of a run, read as models: RUN@STEP, or RUN/checkpoints/STEP.

A checkpoint holds the whole state of training and says what network it is of. Only the weights are
read: the averaged ones, where there are any.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from maskgil_jax.pretrained import model_directory
from maskgil_jax.runtime import array_files, paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.trees import Tree, flatten

FOLDER = "checkpoints"  # of a run's work directory
CHECKSUMS = "checksums"  # uint32 [leaves], in the order of their names
MODEL = "model"  # the note that says what a model.json would
# Where they are in a state, the best first.
WEIGHTS = ("ema", "model/tokenizer", "model/student", "model")
_NAMED = re.compile(r"(?P<run>.+)@(?P<step>\d+)")


def located(directory: epath.PathLike) -> epath.Path:
    """Where a model lies: RUN@STEP is RUN/checkpoints/STEP.

    Raises:
      InputError: a run without that checkpoint; says which it has.
    """
    path = paths.absolute(directory)
    named = _NAMED.fullmatch(os.fspath(path).rstrip("/"))
    if named and not path.exists():
        path = epath.Path(named["run"]) / FOLDER / str(int(named["step"]))
    if is_checkpoint(path) and not path.exists():
        there = sorted(int(p.name) for p in path.parent.glob("*") if p.name.isdecimal())
        raise InputError(
            f"{path.parent.parent} has no checkpoint of step {path.name}; it has "
            f"{', '.join(map(str, there)) or 'none'} (--config.keep_every=N keeps those of "
            "multiples of N steps)"
        )
    return path


def is_checkpoint(directory: epath.Path) -> bool:
    """Whether a directory is that of a checkpoint, by its name."""
    return directory.parent.name == FOLDER and directory.name.isdecimal()


def read_description(directory: epath.Path) -> dict[str, Any]:
    """What a model.json says of the network whose training this is a checkpoint of.

    Raises:
      InputError: it cannot be read, or was saved by a version that did not note it and the run has
        no `model` either.
    """
    note = (_metadata(directory).custom_metadata or {}).get(MODEL)
    if note is None:
        ended = directory.parent.parent / "model"
        if not (ended / "model.json").exists():
            raise InputError(
                f"{directory} does not say what network it is of, as a later version of this "
                f"package would have noted, and {ended} is not there to ask"
            )
        note = model_directory.read_description(ended)
    where = f"{directory}: its note of the model"
    return {**model_directory.checked_description(note, where), "fingerprint": ""}


def load_params(directory: epath.Path, like: Tree, verify: bool, layout: Tree | None) -> Tree:
    """The weights in the shape of `like`; arguments and layout as model_directory.load_params.

    Args:
      verify: compare the values with the checksums that were saved with them.

    Raises:
      InputError: they cannot be read, are not those of `like`, or are not those that were saved.
    """
    shapes, names = flatten(like), sorted(set(_metadata(directory).metadata) - {CHECKSUMS})
    prefix = next((p for p in WEIGHTS if all(f"{p}/{name}" in names for name in shapes)), None)
    if prefix is None:
        raise InputError(f"{directory} does not hold the weights of the network that it notes")
    wanted = {f"{prefix}/{name}": leaf for name, leaf in shapes.items()}
    context = array_files.orbax_context()
    context.pytree.loading.partial_load = True
    with context:
        sums = {CHECKSUMS: np.empty(0, np.uint32)} if verify else {}
        flat = model_directory.read_arrays(directory, wanted, str(directory), sums)
    if verify:
        _check_sums(directory, flat, dict(zip(names, flat.pop(CHECKSUMS), strict=True)))
    arrays = {name: flat[f"{prefix}/{name}"] for name in shapes}
    return model_directory.placed(directory, arrays, like, layout)


def _check_sums(
    directory: epath.Path, flat: Mapping[str, np.ndarray], saved: Mapping[str, int]
) -> None:
    wrong = [n for n, values in flat.items() if n != CHECKSUMS and checksum(values) != saved[n]]
    if wrong:
        raise InputError(
            f"{directory} is damaged or was changed: the values of {', '.join(wrong[:4])} are not "
            "those saved; read it as it is with verify=false"
        )


def checksum(values: np.ndarray) -> int:
    """The sum of the words of an array, modulo 2^32, as training saves it."""
    words = np.ascontiguousarray(values).reshape(-1).view(f"uint{8 * values.dtype.itemsize}")
    return int(words.sum(dtype=np.uint32))


def _metadata(directory: epath.Path) -> Any:
    try:
        return ocp.metadata(directory)
    except Exception as error:  # Orbax reports damage in many ways
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(f"{directory} is no checkpoint that can be read: {cause}") from error
