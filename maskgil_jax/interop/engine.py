"""Foreign checkpoints as tables of names: one engine applies them, inverts them, reports misfits.

A table is a list of Entries, one for each foreign tensor. Reading and writing move numbers only, so
import followed by export gives back every bit.
"""

import dataclasses
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.runtime import trees
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

Tensors = dict[str, np.ndarray]
Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One foreign tensor and where it belongs.

    Attributes:
      name: foreign name.
      shape: foreign shape.
      path: ours, as in `trees.flatten`; "" for a buffer that we have no use for, which may be
        missing and is written as `value` in `dtype`.
      split: shape that the foreign axes are split into, before `axes`; None leaves them.
      axes: permutation that gives our axes; None leaves them.
      slot: index of this tensor within our array, where several foreign tensors make one of ours.
      value, dtype: of a buffer that we have no use for.
      joined: our shape, where axes that were split are one in ours; None leaves them.
    """

    name: str
    shape: tuple[int, ...]
    path: str
    split: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    slot: tuple[Any, ...] = ()
    value: float | tuple[float, ...] = 0.0
    dtype: str = "float32"
    joined: tuple[int, ...] | None = None

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """The foreign tensor with our axes."""
        x = tensor.reshape(self.split or self.shape)
        x = x if self.axes is None else x.transpose(self.axes)
        return x if self.joined is None else x.reshape(self.joined)

    def to_foreign(self, array: np.ndarray) -> np.ndarray:
        """Our array, or the slot of it, with the foreign axes."""
        if self.joined is not None and self.axes and self.split:
            array = array.reshape([self.split[axis] for axis in self.axes])
        x = array if self.axes is None else array.transpose(np.argsort(self.axes))
        return np.ascontiguousarray(x).reshape(self.shape)  # which makes one axis of none


def load(
    entries: Sequence[Entry],
    tensors: Tensors,
    like: Tree,
    ignored: Sequence[str] = (),
    allow_nonfinite: bool = False,
) -> Tree:
    """Our parameters, in the structure of `like`, from foreign tensors.

    Args:
      entries: the table.
      tensors: by foreign name.
      like: arrays or shapes of the same paths.
      ignored: regular expressions of foreign names to leave out.
      allow_nonfinite: whether weights may be NaN or infinite.

    Raises:
      InputError: tensors that do not fit (see `misfits`) or are not finite, all of them listed.
    """
    if problems := misfits(entries, tensors, ignored):
        raise InputError("the tensors do not fit:\n  " + "\n  ".join(problems))
    known = {entry.name for entry in entries}
    if extra := [name for name in tensors if name not in known]:
        log.info("left out %d tensors that are not of this network, as %s", len(extra), extra[0])
    arrays = {name: np.empty(x.shape, x.dtype) for name, x in trees.flatten(like).items()}
    nonfinite = []
    for entry in entries:
        if not entry.path or entry.name not in tensors:
            continue
        with np.errstate(over="ignore"):  # of float64, which is then not finite
            arrays[entry.path][entry.slot] = entry.to_ours(tensors[entry.name])
        finite = np.isfinite(arrays[entry.path][entry.slot])
        if not finite.all():
            nonfinite.append(f"{entry.name}: {finite.size - finite.sum()} of {finite.size} values")
    if nonfinite and not allow_nonfinite:
        raise InputError(
            "weights are NaN or infinite (allow_nonfinite=true takes them):\n  "
            + "\n  ".join(nonfinite)
        )
    if nonfinite:
        log.warning("weights are NaN or infinite, and taken: %s", "; ".join(nonfinite))
    return trees.unflatten(like, arrays)


def misfits(entries: Sequence[Entry], tensors: Tensors, ignored: Sequence[str] = ()) -> list[str]:
    """Lines about tensors that are missing, unknown, of another shape or not of real numbers.

    Where several names belong to one array, one of them is enough: some files have it twice.
    """
    known = {entry.name: entry for entry in entries}
    places = [(entry, (entry.path, repr(entry.slot))) for entry in entries if entry.path]
    there: dict[tuple[str, str], Entry] = {}
    problems = [
        f"unknown: {name} {x.shape}"
        for name, x in tensors.items()
        if name not in known and not any(re.search(pattern, name) for pattern in ignored)
    ]
    for entry, place in places:
        if entry.name in tensors:
            there.setdefault(place, entry)
    problems += [f"missing: {e.name} {e.shape}" for e, place in places if place not in there]
    for name, entry in known.items():
        if name not in tensors:
            continue
        x = tensors[name]
        if x.shape != entry.shape:
            problems.append(f"mis-shaped: {name} {x.shape}, expected {entry.shape}")
        elif entry.path and not jnp.issubdtype(x.dtype, jnp.floating):
            problems.append(f"quantised or of no real numbers: {name} is {x.dtype}")
    if not problems:
        twice = [(there[place], e) for e, place in places if e.name in tensors]
        problems += [
            f"not the same, as they have to be: {first.name} and {again.name}"
            for first, again in twice
            if first is not again and not _same(tensors, first, again)
        ]
    return problems


def _same(tensors: Tensors, *entries: Entry) -> bool:
    a, b = (entry.to_ours(tensors[entry.name]) for entry in entries)
    return a.tobytes() == b.tobytes()


def dump(entries: Sequence[Entry], params: Any) -> Tensors:
    """Foreign tensors from our parameters."""
    arrays = {name: np.asarray(jax.device_get(x)) for name, x in trees.flatten(params).items()}
    return {
        entry.name: entry.to_foreign(arrays[entry.path][entry.slot])
        if entry.path
        else np.full(entry.shape, entry.value, entry.dtype)
        for entry in entries
    }


def count_layers(names: Iterable[str], prefix: str) -> int:
    """How many numbers follow a prefix in names, as `layers.` in layers.3.norm.weight."""
    return len(
        {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    )


def check_same(format_name: str, config: Any, fixed: Mapping[str, Any]) -> None:
    """Raise InputError where a network is not of the only kind that a format can hold."""
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise InputError(
                f"{format_name} has {name} = {value!r}, but this model {getattr(config, name)!r}"
            )


def check_kind(format_name: str, source: str, config: Any, kind: type) -> None:
    """Raise InputError where a source has a network that is not of a format's kind."""
    if not isinstance(config, kind):
        ours, theirs = (c.__name__.removesuffix("Config") for c in (type(config), kind))
        raise InputError(f"source={source} is a {ours}, but {format_name} holds a {theirs}")
