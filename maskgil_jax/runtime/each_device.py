"""One program on each device of a mesh, with rows of a batch of its own.

What it computes for a row may depend, in its last bits, on how many rows it has at once. Here that
is the number on each device, so that results are the same to the bit on any number of devices, as
long as each has as many rows. (A program that the compiler splits itself need not be that of one
device, and may run whole on each.)
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from maskgil_jax.runtime import compiler_options, sharding

WHOLE = P()  # of an argument that each device has whole
ROWS = sharding.BATCH  # of one that is split by its first axis
COLUMNS = P(None, *sharding.BATCH)  # by its second one


def of(
    weights: Any,
    rows: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    results: Any,
    **static: Hashable,
) -> tuple[Callable[..., Any], dict[str, Hashable]]:
    """A function of jax.jit as a program of the devices that hold these weights.

    Args:
      weights: which the devices of a mesh hold whole each (`placed`); or on one device, or split
        over some, where the function stays as it is.
      rows: of the batch; where they do not divide over the devices it stays as it is too.
      function: of jax.jit.
      arguments: layout of each: WHOLE, ROWS or COLUMNS, or a tree of them.
      results: their layout, or a tree of layouts.
      **static: its static arguments.

    Returns:
      A function of jax.jit, and the static arguments that it still takes.
    """
    mesh = sharding.mesh_of(weights)
    if mesh is None or rows % mesh.size or not _whole_on_each(weights):
        return function, static
    return _on_each(function, mesh, arguments, results, **static), {}


def _whole_on_each(weights: Any) -> bool:
    return all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(weights))


@functools.cache
def _on_each(
    function: Callable[..., Any],
    mesh: Mesh,
    layout: tuple[Any, ...],
    results: Any,
    **static: Hashable,
) -> Callable[..., Any]:
    def program(*arguments: Any) -> Any:
        return jax.shard_map(
            functools.partial(function, **static),
            mesh=mesh,
            in_specs=layout,
            out_specs=results,
            check_vma=False,
        )(*arguments)

    program.__name__ = getattr(function, "__name__", "program")  # said while it is compiled
    return compiler_options.jit()(program)


def side_by_side(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of any devices, in their order, since they exchange nothing."""
    return Mesh(np.array(devices).reshape(-1, 1, 1), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def placed(weights: Any, mesh: Mesh) -> Any:
    """Weights that each device of a mesh holds whole."""
    return jax.device_put(weights, sharding.replicated(mesh))
