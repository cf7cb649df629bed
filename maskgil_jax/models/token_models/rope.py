"""Rotary position embedding for image grids, as in LlamaGen and MaskGIL.

Letters: T sequence positions, K head dimension, B batch, H heads.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def rope_1d(length: int, head_dim: int, base: float = 10000.0) -> np.ndarray:
    """Angles in radians, float32 [length, head_dim / 2], of positions 0 .. length - 1."""
    frequencies = _frequencies(head_dim, base)
    return np.outer(np.arange(length, dtype=np.float32), frequencies)


def rope_2d(
    height: int, width: int, head_dim: int, step: float = 1.0, base: float = 10000.0
) -> np.ndarray:
    """Angles in radians, float32 [height * width, head_dim / 2], in raster order.

    The first half of the pairs turns with the row, the second with the column (LlamaGen
    `precompute_freqs_cis_2d`), of which each is `step` from the one before.
    """
    frequencies = _frequencies(head_dim // 2, base)
    rows, columns = np.divmod(np.arange(height * width), width)
    positions = (axis.astype(np.float32) * np.float32(step) for axis in (rows, columns))
    return np.concatenate([np.outer(axis, frequencies) for axis in positions], axis=1)


def interpolation_step(grid: tuple[int, ...], known: tuple[int, ...]) -> float:
    """The step between positions of a grid, so that they are those of `known` in finer steps.

    1 on grids of no more tokens than `known`, of whatever shape: these keep their positions. On
    others it is the square root of the ratio of tokens, as if the grid were scaled to as many.

    Source: Chen et al. 2023 (arXiv 2306.15595), position interpolation, here of two axes.
    """
    return min(1.0, math.sqrt(math.prod(known) / math.prod(grid)))


def _frequencies(dim: int, base: float) -> np.ndarray:
    return (1.0 / base ** (np.arange(0, dim, 2, dtype=np.float32) / dim)).astype(np.float32)


def rotation_table(angles: np.ndarray, condition_rows: int, condition: str) -> np.ndarray:
    """Cosines and sines, float32 [condition_rows + T, K / 2, 2], condition rows first.

    Args:
      angles: float32 [T, K / 2] of the image tokens.
      condition_rows: number of condition tokens.
      condition: "zero" (cosine and sine 0, so that queries and keys vanish there, as in the
        released LlamaGen and MaskGIL) or "identity" (no rotation).
    """
    fill = {"zero": (0.0, 0.0), "identity": (1.0, 0.0)}[condition]
    rows = np.broadcast_to(np.array(fill, np.float32), (condition_rows, angles.shape[1], 2))
    return np.concatenate([rows, np.stack([np.cos(angles), np.sin(angles)], axis=-1)])


def halved(x: jax.Array) -> jax.Array:
    """Channels of the last axis in the order that `rotate` takes: all first of pairs, all second.

    The product of two vectors does not change when both are reordered.
    """
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return jnp.moveaxis(pairs, -1, -2).reshape(x.shape)


def rotate(x_BHTK: jax.Array, table_TK2: np.ndarray | jax.Array) -> jax.Array:
    """Rotate pairs (p, p + K / 2) of the last axis, in float32; returns the dtype of x.

    Pairs of neighbours, the published form, are these after `halved`: whole registers are then
    rotated together instead of every other number in one.
    """
    first, second = jnp.split(x_BHTK.astype(jnp.float32), 2, axis=-1)
    cos, sin = table_TK2[..., 0], table_TK2[..., 1]
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x_BHTK.dtype)
