"""The mesh, and the one table that says how every array is laid out on it.

Axes: `data` (copies of the model), `fsdp` (parameters and optimizer state split, gathered on
use), `tensor` (heads and hidden units split). A batch is split over data x fsdp.
"""

import contextlib
import functools
import logging
import math
import re
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

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


def make_mesh(shape: dict[str, int], devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or `devices`); one axis of size -1 takes what the others leave.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    devices = devices or jax.devices()
    if set(shape) != set(AXES):
        raise InputError(f"config.mesh has axes {sorted(shape)}, expected {sorted(AXES)}")
    sizes = {axis: int(shape[axis]) for axis in AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) == 1 and fixed > 0 and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
        raise InputError(
            f"config.mesh = {dict(shape)} does not fit {len(devices)} devices: the sizes must "
            "multiply to that number (one may be -1: what is left)"
        )
    # jax.make_mesh refuses what splits an axis of the slice, such as fsdp=4 on v6e:16x16.
    layout = mesh_utils.create_device_mesh(
        tuple(sizes.values()), devices, allow_split_physical_axes=True
    )
    return Mesh(layout, AXES, axis_types=(AxisType.Auto,) * 3)


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
