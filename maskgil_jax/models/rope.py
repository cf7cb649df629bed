"""Rotary position embedding for image grids, interleaved pairs, as in LlamaGen and MaskGIL.

Letters: T sequence positions, K head dimension, B batch, H heads.
"""

import jax
import jax.numpy as jnp
import numpy as np


def rope_1d(length: int, head_dim: int, base: float = 10000.0) -> np.ndarray:
    """Angles in radians, float32 [length, head_dim / 2], of positions 0 .. length - 1."""
    frequencies = _frequencies(head_dim, base)
    return np.outer(np.arange(length, dtype=np.float32), frequencies)


def rope_2d(height: int, width: int, head_dim: int, base: float = 10000.0) -> np.ndarray:
    """Angles in radians, float32 [height * width, head_dim / 2], in raster order.

    The first half of the pairs turns with the row, the second with the column (LlamaGen
    `precompute_freqs_cis_2d`).
    """
    frequencies = _frequencies(head_dim // 2, base)
    rows, columns = np.divmod(np.arange(height * width), width)
    return np.concatenate(
        [np.outer(axis.astype(np.float32), frequencies) for axis in (rows, columns)], axis=1
    )


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


def rotate(x_BTHK: jax.Array, table_TK2: np.ndarray | jax.Array) -> jax.Array:
    """Rotate pairs (2p, 2p + 1) of the last axis, in float32; returns the dtype of x."""
    pairs = x_BTHK.astype(jnp.float32).reshape(*x_BTHK.shape[:-1], -1, 2)
    cos, sin = table_TK2[:, None, :, 0], table_TK2[:, None, :, 1]
    even, odd = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return rotated.reshape(x_BTHK.shape).astype(x_BTHK.dtype)
