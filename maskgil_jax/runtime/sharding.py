"""The mesh, and the one table that says how every array is laid out on it.

Axes: `data` (copies of the model), `fsdp` (parameters and optimizer state split, gathered on
use), `tensor` (heads and hidden units split). A batch is split over data x fsdp. Of several slices
each has a mesh of its own, and `data` goes over all of them (see slices.py).
"""

import contextlib
import functools
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.runtime import slices
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

Tree = TypeVar("Tree")

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))
TILE_ROWS = 16  # of a bfloat16 register of a TPU, 16 x 128

# First match wins; names are paths in the train state, so optimizer moments and EMA match too.
RULES = {
    # LLaMA and Gemma; the leading axis of a block's parameters is the depth
    r"blocks/(qkv|key_value)$": P(None, "fsdp", None, "tensor"),
    r"blocks/out$": P(None, "tensor", None, "fsdp"),
    r"blocks/gate_up$": P(None, "fsdp", None, "tensor"),
    r"blocks/down$": P(None, "tensor", "fsdp"),
    r"blocks/(up|query)$": P(None, "fsdp", "tensor"),
    r"blocks/modulation$": P(None, "fsdp", None, None),
    r"blocks/.*(scale|bias)$": P(),
    # Whisper
    r"blocks/.*attention/query$": P(None, "fsdp", "tensor"),
    r"blocks/.*attention/key_value$": P(None, "fsdp", None, "tensor"),
    r"blocks/.*attention/out$": P(None, "tensor", None, "fsdp"),
    r"blocks/mlp/up$": P(None, "fsdp", "tensor"),
    r"blocks/mlp/down$": P(None, "tensor", "fsdp"),
    # beside the layers
    r"modulation$": P("fsdp"),
    r"(head|norm|modulation)_bias$": P(),
    r"head$": P("fsdp", None),
    r"(embedding|feature_in|feature_out|null_features)$": P(None, "fsdp"),
    # tokenizers: convolutions are split by output channel
    r"kernel$": P(None, None, None, "fsdp"),
    r"codebook$": P(),
}


def make_mesh(shape: Mapping[str, int], devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or `devices`); one axis of size -1 takes what the others leave.

    Args:
      shape: sizes by axis, of each slice; and `slices`, the number of them: 0, as without it, is
        that of the devices (see slices.split). Between slices, which only the data center's
        network joins, data parallelism alone goes.
      devices: None: all.

    Raises:
      InputError: the sizes do not multiply to the number of devices of a slice, or the devices are
        of another number of slices.
    """
    devices = devices or jax.devices()
    if {*shape} - {"slices"} != {*AXES}:
        expected = sorted([*AXES, "slices"])
        raise InputError(f"config.mesh has axes {sorted(shape)}, expected {expected}")
    parts = slices.split(devices, int(shape.get("slices", 0)))
    sizes = _sizes({axis: int(shape[axis]) for axis in AXES}, len(parts[0]), len(parts))
    # jax.make_mesh refuses what splits an axis of the slice, such as fsdp=4 on v6e:16x16.
    layouts = [
        mesh_utils.create_device_mesh(sizes, part, allow_split_physical_axes=True) for part in parts
    ]
    return Mesh(np.concatenate(layouts), AXES, axis_types=(AxisType.Auto,) * 3)


def _sizes(shape: dict[str, int], devices: int, slices: int) -> tuple[int, ...]:
    """The sizes of a slice's axes, with what is left filled in."""
    sizes = dict(shape)
    free = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) == 1 and fixed > 0 and devices % fixed == 0:
        sizes[free[0]] = devices // fixed
    if math.prod(sizes.values()) != devices or min(sizes.values()) < 1:
        of_each = f" of each of {slices} slices" if slices > 1 else ""
        raise InputError(
            f"config.mesh = {shape} does not fit {devices} devices{of_each}: the sizes must "
            "multiply to that number (one may be -1: what is left)"
        )
    return tuple(sizes.values())


def with_fsdp(
    shape: Mapping[str, int], width: int, devices: list[jax.Device] | None = None
) -> dict[str, int]:
    """The shape of a mesh for a model, with `fsdp` chosen where `data` and `fsdp` are both -1.

    The most devices are chosen that each hold whole tiles of matrices of `width` rows and that fill
    whole axes of the slice, where some do, but not all three: TPUs gather other pieces as padded
    arrays, by all-reduce. Where the config says a number that gives such pieces, the log says so.

    Args:
      shape: sizes by axis, as of config.mesh.
      width: of the model; 0: any number of devices is fine.
      devices: None: all.
    """
    devices = devices or jax.devices()
    first = slices.split(devices, int(shape.get("slices", 0)))[0]
    data, fsdp, tensor = (int(shape.get(axis, 1)) for axis in AXES)
    free = len(first) // max(tensor, 1)
    if (data, fsdp) != (-1, -1):
        fsdp = free // max(data, 1) if fsdp == -1 else fsdp
        rows = width // max(fsdp, 1)
        if first[0].platform == "tpu" and rows % TILE_ROWS:
            _say_padded(fsdp, width, rows)
        return dict(shape)
    fitting = [n for n in range(free, 0, -1) if free % n == 0 and width % (n * TILE_ROWS) == 0]
    whole = (n for n in fitting if _fills_axes((free // n, n, max(tensor, 1)), first))
    fsdp = next(whole, fitting[0] if fitting else 1)
    log.info(
        "mesh: data = %d, fsdp = %d, chosen for matrices of %d rows", free // fsdp, fsdp, width
    )
    return {**shape, "fsdp": fsdp}


@functools.cache
def _say_padded(fsdp: int, width: int, rows: int) -> None:
    log.warning(
        "config.mesh.fsdp = %d splits matrices of %d rows into pieces of %d, which TPUs gather as "
        "padded arrays, twice the bytes or more: expected pieces of a multiple of %d rows "
        "(data = -1 with fsdp = -1 chooses)",
        *(fsdp, width, rows, TILE_ROWS),
    )


def _fills_axes(sizes: tuple[int, ...], devices: list[jax.Device]) -> bool:
    """Whether each axis of such a mesh is made of whole axes of the slice, of two at most."""
    if max(sizes) == len(devices) and _is_cube(devices):
        return False
    try:
        mesh_utils.create_device_mesh(sizes, devices)
    except NotImplementedError:  # so JAX refuses a mesh that splits an axis of the slice
        return False
    return True


def _is_cube(devices: list[jax.Device]) -> bool:
    """Whether these are TPUs whose slice has three axes of several chips."""
    if devices[0].platform != "tpu":
        return False
    return all(len(set(along)) > 1 for along in zip(*(d.coords for d in devices), strict=True))


def check_batch(batch_size: int, accumulate_steps: int, mesh: Mesh) -> None:
    """Raise InputError unless every micro-batch divides over the mesh."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if accumulate_steps < 1 or batch_size < 1 or batch_size % (accumulate_steps * shards):
        raise InputError(
            f"config.batch_size = {batch_size} does not divide into config.accumulate_steps = "
            f"{accumulate_steps} micro-batches over data x fsdp = {shards} devices: expected a "
            f"multiple of {max(accumulate_steps, 1) * shards}"
        )


def rows_of_process(batch_size: int, mesh: Mesh) -> list[int]:
    """The rows of a batch that the devices of this process hold."""
    indices = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,))
    return sorted(
        {row for index in indices.values() if index for row in range(batch_size)[index[0]]}
    )


def name_of(path: tuple[Any, ...]) -> str:
    """`model/blocks/qkv` for the path of a leaf of a train state."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The tree of NamedShardings for a train state, given as arrays or shapes.

    An axis that does not divide its dimension is left out, and the log says so once: the dimension
    is then whole on each device of the axis.

    Raises:
      ValueError: a matrix that no rule names.
    """
    undivided: dict[tuple[str, int], list[str]] = {}

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = name_of(path)
        fitting: list[str | None] = []
        for axis, size in zip(_spec_of(name, leaf), leaf.shape, strict=False):
            if axis and size % mesh.shape[axis]:
                undivided.setdefault((axis, size), []).append(name)
                axis = None
            fitting.append(axis)
        return NamedSharding(mesh, P(*fitting))

    shardings = jax.tree.map_with_path(one, state)
    for (axis, size), names in undivided.items():
        _say_left_out(f"{axis} = {mesh.shape[axis]}", size, ", ".join(names))
    return shardings


def _spec_of(name: str, leaf: Any) -> P:
    for pattern, spec in RULES.items():
        if re.search(pattern, name):
            return spec
    if leaf.ndim < 2:
        return P()
    raise ValueError(f"no sharding rule matches {name} {leaf.shape}")


@functools.cache
def _say_left_out(axis: str, size: int, names: str) -> None:
    """Log it once for each set of arrays; training and planning lay out the same ones again."""
    log.info(
        "mesh axis %s does not divide dimensions of %d and is left out of: %s", *(axis, size, names)
    )


def split_batch(x: jax.Array) -> jax.Array:
    """x [B, ...], laid out as batches are; as it is where no mesh is set.

    Left to itself, the compiler may lay activations out like the weights that they meet, with the
    full batch on every device.
    """
    if not splits():
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)


def splits() -> bool:
    """Whether what is traced now is split over the devices of a mesh.

    It is not where no mesh is set, nor in a program that each device runs alone (each_device.py).
    """
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and not mesh.manual_axes


def sum_over_devices(
    function: Callable[..., tuple[Tree, Any]], layout: Any, shared: Any, *batches: Any
) -> tuple[Tree, Any]:
    """`function(shared, *batches)`, of which each device sums its examples: exchanged once.

    Left to itself, the compiler exchanges each array that a sum over examples makes, before it adds
    them up. Where no mesh is set, and on one device, this is `function`.

    Args:
      function: pure; gives a tree of sums over the examples, and a tree of arrays with a first axis
        of examples.
      layout: for each sum the dimension that is split over fsdp, or -1; a prefix of their tree.
      shared: tree of arrays, which each device gathers whole.
      *batches: trees of arrays with a first axis of examples.
    """
    mesh, (axes,) = jax.sharding.get_abstract_mesh(), BATCH
    if not splits() or math.prod(mesh.shape[axis] for axis in axes) == 1:
        return function(shared, *batches)
    sums, _ = jax.eval_shape(function, shared, *batches)
    fsdp = mesh.shape["fsdp"]
    divided = jax.tree.map(
        lambda x, d: d if d >= 0 and x.shape[d] % fsdp == 0 else -1,
        sums,
        jax.tree.broadcast(layout, sums),
    )

    def added(x: jax.Array, dimension: int) -> jax.Array:
        if dimension < 0:
            return jax.lax.psum(x, axes)
        x = jax.lax.psum_scatter(x, "fsdp", scatter_dimension=dimension, tiled=True)
        return jax.lax.psum(x, "data")

    def on_device(shared: Any, *batches: Any) -> tuple[Tree, Any]:
        sums, rows = function(shared, *batches)
        return jax.tree.map(added, sums, divided), rows

    return jax.shard_map(
        on_device,
        in_specs=(P(), *(BATCH for _ in batches)),
        out_specs=(
            jax.tree.map(lambda d: P(*[None] * d, "fsdp") if d >= 0 else P(), divided),
            BATCH,
        ),
        axis_names={*axes},
        check_vma=False,
    )(shared, *batches)


def split_dimensions(params: Any) -> Any:
    """For each parameter the dimension that the table splits over fsdp, or -1; see `splits`."""

    def one(path: tuple[Any, ...], leaf: Any) -> int:
        if not splits():
            return -1
        spec = tuple(_spec_of(name_of(path), leaf))[: leaf.ndim]
        return spec.index("fsdp") if "fsdp" in spec else -1

    return jax.tree.map_with_path(one, params)


def platform() -> str:
    """What is traced now will run on this: "cpu", "gpu" or "tpu".

    The mesh in force says it, which need not be of devices of this machine (planning/).
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def batch(mesh: Mesh) -> NamedSharding:
    """The sharding of what is split over the devices by its first axis."""
    return NamedSharding(mesh, BATCH)


def first_device() -> Mesh:
    """The first device of this process, which holds what is not sharded."""
    return make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.local_devices()[:1])


def tensor_mesh(devices: int) -> Mesh:
    """The first devices of this process, as many as share the weights of a model.

    Raises:
      InputError: there are fewer.
    """
    here = jax.local_devices()
    if not 1 <= devices <= len(here):
        raise InputError(f"tensor = {devices}, expected 1 to {len(here)} (devices of this process)")
    return make_mesh({"data": 1, "fsdp": 1, "tensor": devices}, here[:devices])


def mesh_of(weights: Any) -> Mesh | None:
    """The mesh of devices that weights are spread over, or None where they are on one."""
    layout = getattr(jax.tree.leaves(weights)[0], "sharding", None)
    if isinstance(layout, NamedSharding) and isinstance(layout.mesh, Mesh):
        return layout.mesh
    return None


def where_shared(weights: Any) -> contextlib.AbstractContextManager[Any]:
    """Set the mesh of the devices that share weights, which kernels are split by, in the body.

    Where each device has all weights, or where there is one, nothing is set.
    """
    mesh = mesh_of(weights)
    if mesh is None or mesh.shape["tensor"] < mesh.size:
        return contextlib.nullcontext()
    return jax.set_mesh(mesh)


def local_mesh() -> Mesh:
    """The devices of this process, each of which holds the whole model."""
    return make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, jax.local_devices())
