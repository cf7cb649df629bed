"""Foreign checkpoints as tables of names: one engine applies them, inverts them, reports misfits.

A table is a list of Entries, one for each foreign tensor. Reading and writing move numbers only, so
import followed by export gives back every bit.
"""

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from maskgil_jax import checkpoint
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")

Tensors = dict[str, np.ndarray]
Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One foreign tensor and where it belongs.

    Attributes:
      name: foreign name.
      shape: foreign shape.
      path: ours, as in `checkpoint.flatten`; "" for a buffer that we do not keep, which may be
        missing and is written as `value` in `dtype`.
      split: shape that the foreign axes are split into, before `axes`; None leaves them.
      axes: permutation that gives our axes; None leaves them.
      slot: index of this tensor within our array, where several foreign tensors make one of ours.
      value, dtype: of a buffer that we do not keep.
    """

    name: str
    shape: tuple[int, ...]
    path: str
    split: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    slot: tuple[Any, ...] = ()
    value: float | tuple[float, ...] = 0.0
    dtype: str = "float32"

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """The foreign tensor with our axes."""
        x = tensor.reshape(self.split or self.shape)
        return x if self.axes is None else x.transpose(self.axes)

    def to_foreign(self, array: np.ndarray) -> np.ndarray:
        """Our part of an array with the foreign axes."""
        x = array if self.axes is None else array.transpose(np.argsort(self.axes))
        return np.ascontiguousarray(x.reshape(self.shape))


def load(
    entries: Sequence[Entry], tensors: Tensors, like: Tree, ignored: Sequence[str] = ()
) -> Tree:
    """Our parameters, in the structure of `like`, from foreign tensors.

    Args:
      entries: the table.
      tensors: by foreign name.
      like: arrays or shapes of the same paths.
      ignored: regular expressions of foreign names to leave out.

    Raises:
      InputError: tensors that are missing, unknown or of another shape, all of them listed.
    """
    known = {entry.name: entry for entry in entries}
    extra = [n for n in tensors if n not in known and any(re.search(r, n) for r in ignored)]
    if extra:
        log.info("left out %d tensors that are not of this network, as %s", len(extra), extra[0])
    unknown = [n for n in tensors if n not in known and n not in set(extra)]
    problems = [f"unknown: {name} {tensors[name].shape}" for name in unknown]
    needed = [entry for entry in entries if entry.path]
    problems += [f"missing: {e.name} {e.shape}" for e in needed if e.name not in tensors]
    problems += [
        f"mis-shaped: {name} {tensors[name].shape}, expected {entry.shape}"
        for name, entry in known.items()
        if name in tensors and tensors[name].shape != entry.shape
    ]
    if problems:
        raise InputError("the tensors do not fit:\n  " + "\n  ".join(problems))
    arrays = {name: np.empty(x.shape, x.dtype) for name, x in checkpoint.flatten(like).items()}
    for entry in entries:
        if entry.path:
            arrays[entry.path][entry.slot] = entry.to_ours(tensors[entry.name])
    return checkpoint.unflatten(like, arrays)


def dump(entries: Sequence[Entry], params: Any) -> Tensors:
    """Foreign tensors from our parameters."""
    arrays = {name: np.asarray(jax.device_get(x)) for name, x in checkpoint.flatten(params).items()}
    return {
        entry.name: entry.to_foreign(arrays[entry.path][entry.slot])
        if entry.path
        else np.full(entry.shape, entry.value, entry.dtype)
        for entry in entries
    }


def check_same(format_name: str, config: Any, fixed: Mapping[str, Any]) -> None:
    """Raise InputError where a network is not of the only kind that a format can hold."""
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise InputError(
                f"{format_name} has {name} = {value!r}, but this model {getattr(config, name)!r}"
            )
