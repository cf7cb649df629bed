"""Foreign checkpoints as tables of names: one engine applies them, inverts them, reports misfits.

A table is a list of Entries, one for each foreign tensor. Reading and writing move numbers only, so
import followed by export gives back every bit.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from maskgil_jax import checkpoint
from maskgil_jax.errors import InputError

Tensors = dict[str, np.ndarray]
Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One foreign tensor and where it belongs.

    Attributes:
      name: foreign name.
      shape: foreign shape.
      path: ours, as in `checkpoint.flatten`; "" for a buffer that we do not keep, which may be
        missing and is written as zeros.
      split: shape that the foreign axes are split into, before `axes`; None leaves them.
      axes: permutation that gives our axes; None leaves them.
      slot: index of this tensor within our array, where several foreign tensors make one of ours.
    """

    name: str
    shape: tuple[int, ...]
    path: str
    split: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    slot: tuple[Any, ...] = ()

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """The foreign tensor with our axes."""
        x = tensor.reshape(self.split or self.shape)
        return x if self.axes is None else x.transpose(self.axes)

    def to_foreign(self, array: np.ndarray) -> np.ndarray:
        """Our part of an array with the foreign axes."""
        x = array if self.axes is None else array.transpose(np.argsort(self.axes))
        return np.ascontiguousarray(x.reshape(self.shape))


def load(entries: Sequence[Entry], tensors: Tensors, like: Tree) -> Tree:
    """Our parameters, in the structure of `like`, from foreign tensors.

    Raises:
      InputError: tensors that are missing, unknown or of another shape, all of them listed.
    """
    known = {entry.name: entry for entry in entries}
    problems = [f"unknown: {n} {x.shape}" for n, x in tensors.items() if n not in known]
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
        else np.zeros(entry.shape, np.float32)
        for entry in entries
    }
