"""What the token models are built of, besides products."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from maskgil_jax import sharding

Model = TypeVar("Model", bound=Any)


class RMSNorm(nnx.Module):
    """x / rms(x), computed in float32 and cast before the scale, as LlamaGen does."""

    def __init__(self, dim: int, eps: float = 1e-5):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(dim))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return x32.astype(x.dtype) * self.scale[...].astype(x.dtype)


# What a layer keeps for the backward pass; the rest, element by element, is cheaper made again.
KEPT = jax.checkpoint_policies.save_only_these_names("product", "attention", "dropout")


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero a share `rate` of x and scale the rest to keep the mean; does nothing without a key."""
    if key is None or rate == 0.0:
        return x
    keep = checkpoint_name(jax.random.bernoulli(key, 1.0 - rate, x.shape), "dropout")
    return jnp.where(keep, x / (1.0 - rate), 0)


def through_layers(
    blocks: Any,
    x: jax.Array,
    apply: Callable[[Any, jax.Array, jax.Array | None], jax.Array],
    key: jax.Array | None,
    *,
    layers: int,
    remat: bool,
) -> jax.Array:
    """x through all layers of a model, one after another.

    Args:
      blocks: one module, whose parameters have a leading axis of `layers`.
      x: what goes in, and comes out in the same shape.
      apply: (block, x, key or None) -> x.
      key: split among the layers; None is eval.
      layers: their number.
      remat: keep nothing of a layer but its input for the backward pass.
    """

    def layer(x: jax.Array, block_key: tuple[Any, jax.Array | None]) -> tuple[jax.Array, None]:
        return apply(block_key[0], x, block_key[1]), None

    policy = jax.checkpoint_policies.nothing_saveable if remat else KEPT
    layer = jax.checkpoint(layer, prevent_cse=False, policy=policy)
    keys = None if key is None else jax.random.split(key, layers)
    return jax.lax.scan(layer, x, (blocks, keys))[0]


def swiglu(both_BTCF: jax.Array) -> jax.Array:
    """silu(gate) * up in float32, of the products [B, T, (gate, up), F]: [B, T, F]."""
    gate, up = (part[:, :, 0].astype(jnp.float32) for part in jnp.split(both_BTCF, 2, axis=2))
    return (jax.nn.silu(gate) * up).astype(both_BTCF.dtype)


def without_layers(model: Model) -> Model:
    """The model without the parameters of its layers: as much as its head needs."""
    return jax.tree.map_with_path(
        lambda path, leaf: None if sharding.name_of(path).startswith("blocks/") else leaf, model
    )


def cast_once(model: Model) -> Model:
    """The model with the matrices of its layers and head in the dtype of the computation.

    Changes no result; for a function that uses them many times, which would cast them as often.
    """

    def cast(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = sharding.name_of(path)
        of_layers = name.startswith("blocks/") and leaf.ndim > 2  # the first axis is depth
        return leaf.astype(model.config.dtype) if of_layers or name == "head" else leaf

    return jax.tree.map_with_path(cast, model)


def swiglu_width(dim: int, multiple: int) -> int:
    """Hidden units that make a SwiGLU as large as an MLP of 4 D: 8 D / 3, rounded up."""
    return -(-int(8 * dim / 3) // multiple) * multiple
