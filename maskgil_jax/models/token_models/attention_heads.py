"""What TPU kernels of attention share: queries and keys of a head, normed and rotated, and back.

Letters: T tokens, K head dimension.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LANES = 128
ROWS = 16  # of a register of bfloat16
EPSILON = 1e-5

Ref = Any  # of a kernel's block in memory


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a kernel is compiled for.

    Attributes:
      head_dim: K.
      qk_norm: "layer", "rms" or "none".
    """

    head_dim: int
    qk_norm: str


def dot(x: jax.Array, y: jax.Array, axis_y: int = 0) -> jax.Array:
    """Product of matrices, over the last axis of x and this one of y, in float32."""
    return jax.lax.dot_general(
        x,
        y,
        (((1,), (axis_y,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


class RotatedHead:
    """Queries or keys of a head, normed and rotated, and the way back."""

    def __init__(
        self,
        x_KT: jax.Array,
        norm_2K1: jax.Array,
        rotation_2KT: jax.Array,
        swap_KK: jax.Array,
        qk_norm: str,
        scale: float,
    ):
        self.qk_norm, self.norm, self.scale = qk_norm, norm_2K1, scale
        self.rotation, self.swap, x = rotation_2KT, swap_KK, x_KT.astype(jnp.float32)
        if qk_norm != "none":
            x = x - x.mean(axis=0, keepdims=True) if qk_norm == "layer" else x
            self.inverse = jax.lax.rsqrt((x * x).mean(axis=0, keepdims=True) + EPSILON)
            self.normed = x * self.inverse
            x = self.normed * norm_2K1[0] + norm_2K1[1]
        rotated = x * rotation_2KT[0] + self.swapped(x) * rotation_2KT[1]
        self.result = (rotated * scale).astype(x_KT.dtype)

    def swapped(self, x_KT: jax.Array) -> jax.Array:
        """Rows 1, 0, 3, 2, ...: the other of each pair that is rotated."""
        return dot(self.swap, x_KT.astype(self.swap.dtype))

    def back(self, g_KT: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Gradients of x, and of the scale and bias of the norm at every token."""
        g = g_KT * self.scale
        g = g * self.rotation[0] + self.swapped(g * self.rotation[1])
        if self.qk_norm == "none":
            return g, (jnp.zeros_like(g),) * 2
        dnorm = g * self.normed, g
        g = g * self.norm[0]
        mean = (g * self.normed).mean(axis=0, keepdims=True) * self.normed
        mean = mean + g.mean(axis=0, keepdims=True) if self.qk_norm == "layer" else mean
        return (g - mean) * self.inverse, dnorm


def rotations(table_TJ2: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """A table of rotations as `RotatedHead` takes it, [2, K, T], and its matrix of pairs."""
    cos, sin = jnp.repeat(table_TJ2, 2, axis=1).transpose(2, 1, 0)
    channel = np.arange(len(cos))
    rotation = jnp.stack([cos, sin * np.where(channel % 2, 1, -1)[:, None]])
    return rotation, jnp.asarray(channel[:, None] == channel ^ 1, dtype)
