"""What the token models are built of, besides products."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from maskgil_jax.models.shared_parameters import spread
from maskgil_jax.models.token_models.products import materialized
from maskgil_jax.runtime import sharding

Model = TypeVar("Model", bound=Any)
State = TypeVar("State")


def unit_rms(x: jax.Array, eps: float = 1e-5) -> jax.Array:
    """x / rms(x) over the last axis, in float32; returns the dtype of x."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return x32.astype(x.dtype)


class RMSNorm(nnx.Module):
    """x / rms(x), computed in float32 and cast before the scale, as LlamaGen does."""

    def __init__(self, dim: int, eps: float = 1e-5, dtype: str = "float32"):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(dim, dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        return unit_rms(x, self.eps) * spread(self.scale[...], x)


_NAMED = jax.checkpoint_policies.save_only_these_names("product", "attention", "dropout")


def saves(primitive: Any, *arguments: Any, **parameters: Any) -> Any:
    """What a layer saves for the backward pass: what is named, and what cuDNN's attention gives.

    The rest, element by element, is cheaper to compute again.
    """
    fused = primitive.name.startswith("dot_product_attention_fwd")
    return fused or _NAMED(primitive, *arguments, **parameters)


# By name: what a layer saves for the backward pass; None: everything.
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "minimal": saves,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero a share `rate` of x and scale the rest to keep the mean; does nothing without a key."""
    if key is None or rate == 0.0:
        return x
    keep = checkpoint_name(jax.random.bernoulli(key, 1.0 - rate, x.shape), "dropout")
    return jnp.where(keep, x / (1.0 - rate), 0)


def two_dropouts(
    shape: tuple[int, ...], rate: float, key: jax.Array | None
) -> tuple[Callable[[jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]:
    """Two independent dropouts of arrays of `shape`, as functions, by one draw of random bits.

    Random bits are the costliest thing of a layer besides its products, and 16 of them give `rate`
    to within 1e-5.
    """
    if key is None or rate == 0.0:
        return (lambda x: x,) * 2
    bits = jax.random.bits(key, shape, jnp.uint32)
    limit = round((1.0 - rate) * 2**16)

    def dropping(numbers: jax.Array) -> Callable[[jax.Array], jax.Array]:
        keep = checkpoint_name(materialized(numbers < limit), "dropout")
        return lambda x: jnp.where(keep, x * (2**16 / limit), 0)

    return dropping(bits >> 16), dropping(bits & 0xFFFF)


def through_layers(
    blocks: Any,
    x: State,
    apply: Callable[[Any, State, jax.Array | None], State],
    key: jax.Array | None,
    *,
    layers: int,
    remat: str,
    unroll: int,
) -> State:
    """x through all layers of a model, one after another.

    Args:
      blocks: one module, or any tree, whose leaves have a leading axis of `layers`.
      x: what goes in, and comes out in the same shapes: [B, ...], or a tree of them.
      apply: (block, x, key or None) -> x.
      key: split among the layers; None is eval.
      layers: their number.
      remat: what is recomputed for the backward pass, a key of REMAT.
      unroll: layers in one iteration of the compiled loop: more are slower to compile.
    """

    def layer(x: State, block_key: tuple[Any, jax.Array | None]) -> tuple[State, None]:
        return jax.tree.map(sharding.split_batch, apply(block_key[0], x, block_key[1])), None

    if (policy := REMAT[remat]) is not None:
        layer = jax.checkpoint(layer, prevent_cse=False, policy=policy)
    keys = None if key is None else jax.random.split(key, layers)
    x = jax.tree.map(sharding.split_batch, x)
    return jax.lax.scan(layer, x, (blocks, keys), unroll=unroll)[0]


def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) * up, in float32; returns the dtype of `gate`."""
    return (jax.nn.silu(gate.astype(jnp.float32)) * up.astype(jnp.float32)).astype(gate.dtype)


def head_of(model: Model) -> Model:
    """The model with those parameters alone that its head and what it norms by need."""
    return jax.tree.map_with_path(
        lambda path, leaf: leaf if sharding.name_of(path).split("/")[0] in model.of_head else None,
        model,
    )


def cast_once(model: Model) -> Model:
    """The model with the matrices of its layers and head in the dtype of the computation.

    Changes no result; for a function that uses them many times, which would cast them as often.
    """

    def cast(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = sharding.name_of(path)
        in_layers = name.startswith("blocks/") and leaf.ndim > 2  # the first axis is depth
        return leaf.astype(model.config.dtype) if in_layers or name == "head" else leaf

    return jax.tree.map_with_path(cast, model)


def swiglu_width(dim: int, multiple: int) -> int:
    """Hidden units that make a SwiGLU as large as an MLP of 4 D: 8 D / 3, rounded up."""
    return -(-int(8 * dim / 3) // multiple) * multiple
