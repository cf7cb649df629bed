"""Scales and biases that all positions share: their gradients are summed in float32.

Left to itself, JAX sums the gradient of what is broadcast in the dtype of the computation, over all
positions of a batch: in bfloat16, whose sums stop to grow after some hundred terms.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.runtime import sharding


def spread(parameter: jax.Array, x: jax.Array) -> jax.Array:
    """`parameter`, whose axes are the last ones of x or 1, in the shape and the dtype of x."""
    return jnp.broadcast_to(parameter.astype(jnp.float32), x.shape).astype(x.dtype)


def _but_bias(arrays: Any, /, *, dtype: Any = None, inexact: bool = True) -> Any:
    """Flax's `promote_dtype` of an input, a kernel and a bias, which stays as it is."""
    x, kernel, bias = arrays
    return x.astype(dtype), kernel.astype(dtype), bias


def factor(x: jax.Array, dtype: Any) -> jax.Array:
    """x rounded to the dtype of the computation, as a convolution takes it.

    XLA's convolutions on CPUs are of float32 in any case; bfloat16, which they convert by
    themselves, takes them up to 5 times as long.
    """
    rounded = x.astype(dtype)
    return rounded.astype(jnp.float32) if sharding.platform() == "cpu" else rounded


def _factors(arrays: Any, /, *, dtype: Any = None, inexact: bool = True) -> Any:
    """As `_but_bias`, of a convolution."""
    x, kernel, bias = arrays
    return factor(x, dtype), factor(kernel, dtype), bias


class Conv(nnx.Conv):
    """Flax's, of a given dtype; its bias is added in float32."""

    def __init__(self, *sizes: Any, **options: Any):
        super().__init__(*sizes, promote_dtype=_factors, **options)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """[B, H, W, C] -> [B, H', W', C'] of the layer's dtype."""
        return super().__call__(x).astype(self.dtype)


class Linear(nnx.Linear):
    """Flax's, of a given dtype; its bias is added in float32."""

    def __init__(self, *sizes: Any, **options: Any):
        super().__init__(*sizes, promote_dtype=_but_bias, **options)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """[..., C] -> [..., C'] of the layer's dtype."""
        return super().__call__(x).astype(self.dtype)
