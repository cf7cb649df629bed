"""Attention of a LLaMA's layer as one TPU kernel: QK-norm, rotation, softmax and their derivative.

Left to the compiler, each of them reads and writes its arrays in a layout of its own, and a head of
64 channels fills half of a row of 128 lanes. Here the heads that fill one row stay together.

Letters: B batch, L image tokens, c tokens of the condition, T = L + c padded, D width, H heads, K
head dimension, G groups of heads, W channels of a group, M = 3 G W.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

from maskgil_jax import sharding

LANES = 128
ROWS = 16  # of a register of bfloat16: parts of a sequence are padded to a multiple
EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a kernel is compiled for.

    Attributes:
      head_dim: K, that divides LANES or is a multiple.
      qk_norm: "layer", "rms" or "none".
      few: c.
    """

    head_dim: int
    qk_norm: str
    few: int

    @property
    def width(self) -> int:
        """W."""
        return max(self.head_dim, LANES)


def fits(head_dim: int, heads: int, tokens: int, few: int) -> bool:
    """Whether there is a kernel for this many heads, image tokens and tokens of the condition."""
    width = max(head_dim, LANES)
    shards = jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
    whole = width % head_dim == 0 and (heads * head_dim) % (width * shards) == 0
    return whole and tokens % LANES == 0 and tokens <= 512 and few <= LANES


def grouped(qkv_DCHK: jax.Array) -> jax.Array:
    """Weights of queries, keys and values in the order of the kernel, [D, M].

    Those of a group stand together, so that the groups can be split over devices.
    """
    D, _, H, K = qkv_DCHK.shape
    return qkv_DCHK.reshape(D, 3, -1, max(K, LANES)).swapaxes(1, 2).reshape(D, 3 * H * K)


def constants(tables: tuple[Any, ...], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel multiplies by: cosines and sines [2, T, W]; means and swaps [2, W, W].

    Args:
      tables: of `rope.rotation_table`, those of the image tokens, then those of the condition.
      shape: of the kernel.
    """
    K, W = shape.head_dim, shape.width
    rows = np.concatenate([*tables, np.zeros((-shape.few % ROWS, K // 2, 2), np.float32)])
    cos, sin = np.repeat(rows[..., 0], 2, axis=1), np.repeat(rows[..., 1], 2, axis=1)
    turns_2TK = np.stack([cos, sin * np.tile([-1.0, 1.0], K // 2)])
    channel = np.arange(W)
    means = (channel[:, None] // K == channel // K) / K
    swaps = channel[:, None] == channel ^ 1  # the other of a pair
    turns = np.tile(turns_2TK, (1, 1, W // K)).astype(np.float32)
    return turns, np.stack([means, swaps]).astype(np.float32)


def _multiply(x: jax.Array, y: jax.Array, axis_x: int, axis_y: int) -> jax.Array:
    """Product of matrices, summed over these axes, in float32."""
    return jax.lax.dot_general(
        x,
        y,
        (((axis_x,), (axis_y,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def _exactly(x: jax.Array, y: jax.Array) -> jax.Array:
    """x @ y of float32 x and a y without rounding in its dtype; x in two parts of bfloat16."""
    if y.dtype == jnp.float32:
        return _multiply(x, y, 1, 0)
    high = x.astype(y.dtype)
    return _multiply(high, y, 1, 0) + _multiply((x - high).astype(y.dtype), y, 1, 0)


class _Turned:
    """Queries or keys, normed and rotated, and the way back; float32 [T, W] in and out."""

    def __init__(self, x, norm_2W, turns_2TW, matrices_2WW, shape: Shape, scale: float):  # type: ignore[no-untyped-def]
        self.norm, self.turns, self.shape, self.scale = norm_2W, turns_2TW, shape, scale
        self.means = functools.partial(_exactly, y=matrices_2WW[0])
        self.swaps, dtype = matrices_2WW[1], matrices_2WW.dtype
        if shape.qk_norm != "none":
            x = x - self.means(x) if shape.qk_norm == "layer" else x
            self.inverse = jax.lax.rsqrt(self.means(x * x) + EPSILON)
            self.normed = x * self.inverse
            x = (self.normed * norm_2W[0:1] + norm_2W[1:2]).astype(dtype).astype(jnp.float32)
        swapped = _multiply(x.astype(dtype), self.swaps, 1, 0)
        self.result = ((x * turns_2TW[0] + swapped * turns_2TW[1]) * scale).astype(dtype)

    def back(self, g):  # type: ignore[no-untyped-def]
        """Gradients of x, and of the scale and bias of the norm, [1, W] each."""
        g = g * self.scale
        swapped = _multiply((g * self.turns[1]).astype(self.swaps.dtype), self.swaps, 1, 0)
        g = g * self.turns[0] + swapped
        if self.shape.qk_norm == "none":
            return g, jnp.zeros_like(self.norm)
        of_norm = [(g * self.normed).sum(0, keepdims=True), g.sum(0, keepdims=True)]
        g = g * self.norm[0:1]
        mean = self.means(g * self.normed) * self.normed
        if self.shape.qk_norm == "layer":
            mean = mean + self.means(g)
        return (g - mean) * self.inverse, jnp.concatenate(of_norm)


def _queries_keys_values(image_ref, few_ref, norms_ref, turns_ref, matrices_ref, shape):  # type: ignore[no-untyped-def]
    W = shape.width
    qkv = jnp.concatenate([image_ref[0], few_ref[0]])
    turns, matrices = turns_ref[...], matrices_ref[...]
    queries, keys = (
        _Turned(
            qkv[:, i * W : (i + 1) * W].astype(jnp.float32),
            norms_ref[2 * i : 2 * i + 2],
            turns,
            matrices,
            shape,
            scale,
        )
        for i, scale in enumerate((shape.head_dim**-0.5, 1.0))
    )
    return queries, keys, qkv[:, 2 * W :]


def _weights(q, k, keys_axis, real):  # type: ignore[no-untyped-def]
    """Softmax over keys, float32 [t, s] or [s, t]; the first `real` keys are no padding."""
    scores = _multiply(k, q, 1, 1) if keys_axis == 0 else _multiply(q, k, 1, 1)
    index = jax.lax.broadcasted_iota(jnp.int32, scores.shape, keys_axis)
    scores = jnp.where(index < real, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - scores.max(axis=keys_axis, keepdims=True))
    return weights / weights.sum(axis=keys_axis, keepdims=True)


def _parts(L, T):  # type: ignore[no-untyped-def]
    """Rows of queries, and the axis of their keys: image tokens fill the lanes, the few do not."""
    return ((slice(0, L), 0), (slice(L, T), 1))


def _forward_kernel(  # type: ignore[no-untyped-def]
    image_ref, few_ref, norms_ref, turns_ref, matrices_ref, out_ref, out_few_ref, *, shape
):
    L, T, K = image_ref.shape[1], turns_ref.shape[1], shape.head_dim
    queries, keys, values = _queries_keys_values(
        image_ref, few_ref, norms_ref, turns_ref, matrices_ref, shape
    )
    for (rows, axis), ref in zip(_parts(L, T), (out_ref, out_few_ref), strict=True):
        outputs = []
        for start in range(0, shape.width, K):
            head = slice(start, start + K)
            q, k, v = queries.result[rows, head], keys.result[:, head], values[:, head]
            w = _weights(q, k, axis, L + shape.few).astype(v.dtype)
            outputs.append(_multiply(w, v, axis, 0))
        ref[0] = jnp.concatenate(outputs, axis=1).astype(ref.dtype)


def _backward_kernel(  # type: ignore[no-untyped-def]
    image_ref,
    few_ref,
    norms_ref,
    turns_ref,
    matrices_ref,
    of_out_ref,
    of_out_few_ref,
    of_image_ref,
    of_few_ref,
    of_norms_ref,
    *,
    shape,
):
    L, T, K = image_ref.shape[1], turns_ref.shape[1], shape.head_dim
    queries, keys, values = _queries_keys_values(
        image_ref, few_ref, norms_ref, turns_ref, matrices_ref, shape
    )
    found = []
    for start in range(0, shape.width, K):
        head = slice(start, start + K)
        k, v = keys.result[:, head], values[:, head]
        of_q, of_k, of_v = [], [], []
        for (rows, axis), ref in zip(_parts(L, T), (of_out_ref, of_out_few_ref), strict=True):
            q, g = queries.result[rows, head], ref[0][:, head]
            w = _weights(q, k, axis, L + shape.few)
            of_w = _multiply(v, g, 1, 1) if axis == 0 else _multiply(g, v, 1, 1)
            mean = (w * of_w).sum(axis=axis, keepdims=True)
            of_scores = (w * (of_w - mean)).astype(v.dtype)
            of_q.append(_multiply(of_scores, k, axis, 0))
            of_k.append(_multiply(of_scores, q, 1 - axis, 0))
            of_v.append(_multiply(w.astype(v.dtype), g, 1 - axis, 0))
        found.append((jnp.concatenate(of_q), sum(of_k), sum(of_v)))
    of_q, of_k, of_v = (jnp.concatenate(part, axis=1) for part in zip(*found, strict=True))
    of_q, of_q_norm = queries.back(of_q)
    of_k, of_k_norm = keys.back(of_k)
    of_qkv = jnp.concatenate([of_q, of_k, of_v], axis=1).astype(of_image_ref.dtype)
    of_image_ref[0], of_few_ref[0] = of_qkv[:L], of_qkv[L:]
    of_norms_ref[0, 0] = jnp.concatenate([of_q_norm, of_k_norm])


def _call(kernel: Callable[..., None], arguments: tuple, outputs: str, shape: Shape) -> list:  # type: ignore[type-arg]
    """Run a kernel for each image and group of heads, on each device for those that it holds.

    Args:
      kernel: of `arguments` and the outputs.
      arguments: image and few qkv [B, s, M], norms, turns, matrices, and gradients [B, s, G W].
      outputs: "forward" or "backward".
      shape: of the kernel.
    """
    batch, groups = sharding.BATCH[0], "tensor"
    split, whole = P(batch, None, groups), P()
    in_specs = (split, split, whole, whole, whole, split, split)[: len(arguments)]
    out_specs = (split, split) if outputs == "forward" else (split, split, P(batch, groups))

    def on_one(*arguments: jax.Array) -> list[jax.Array]:
        image, few, _, turns, matrices = arguments[:5]
        (B, L, M), W, c, T = image.shape, shape.width, few.shape[1], turns.shape[1]
        G = M // (3 * W)
        wide, narrow, of_norms = 3 * W, W, (1, 1, 4, W)

        def block(x: jax.Array) -> pl.BlockSpec:
            if x.ndim == 3 and x.shape[0] == B and x.shape[2] in (M, M // 3):
                width = wide if x.shape[2] == M else narrow
                return pl.BlockSpec((1, x.shape[1], width), lambda b, g: (b, 0, g))
            if x.ndim == 4:
                return pl.BlockSpec(of_norms, lambda b, g: (b, g, 0, 0))
            return pl.BlockSpec(x.shape, lambda b, g: (0,) * x.ndim)

        width = M // 3 if outputs == "forward" else M
        results = [jax.ShapeDtypeStruct((B, rows, width), image.dtype) for rows in (L, c)]
        if outputs == "backward":
            results.append(jax.ShapeDtypeStruct((B, G, 4, W), jnp.float32))
        return pl.pallas_call(
            functools.partial(kernel, shape=shape),
            grid=(B, G),
            in_specs=[block(x) for x in arguments],
            out_specs=[block(x) for x in results],
            out_shape=results,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
            interpret=sharding.platform() != "tpu",
        )(*arguments)

    if jax.sharding.get_abstract_mesh().empty:
        return on_one(*arguments)
    return jax.shard_map(on_one, in_specs=in_specs, out_specs=out_specs, check_vma=False)(
        *arguments
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attention(
    image_BLM: jax.Array,
    few_BcM: jax.Array,
    norms_4K: jax.Array,
    turning: tuple[Any, Any],
    shape: Shape,
) -> tuple[jax.Array, jax.Array]:
    """Softmax attention of image tokens and a condition's with each other.

    Args:
      image_BLM, few_BcM: products with the `grouped` weights.
      norms_4K: scale and bias of the norm of queries, and of keys; read by QK-norms only.
      turning: the result of `constants`.
      shape: of the kernel.

    Returns:
      [B, L, H K] and [B, c, H K].
    """
    return _forward(image_BLM, few_BcM, norms_4K, turning, shape)[0]


def _arguments(image, few, norms_4K, turning, shape):  # type: ignore[no-untyped-def]
    turns, matrices = turning
    norms = jnp.tile(norms_4K.astype(jnp.float32), (1, shape.width // shape.head_dim))
    return image, _padded(few), norms, jnp.asarray(turns), jnp.asarray(matrices, image.dtype)


def _padded(few):  # type: ignore[no-untyped-def]
    return jnp.pad(few, ((0, 0), (0, -few.shape[1] % ROWS), (0, 0)))


def _forward(image, few, norms_4K, turning, shape):  # type: ignore[no-untyped-def]
    arguments = _arguments(image, few, norms_4K, turning, shape)
    out, out_few = _call(_forward_kernel, arguments, "forward", shape)
    return (out, out_few[:, : shape.few]), (image, few, norms_4K, turning)


def _backward(shape, kept, gradients):  # type: ignore[no-untyped-def]
    image, few, norms_4K, turning = kept
    of_out, of_few = gradients
    arguments = (*_arguments(image, few, norms_4K, turning, shape), of_out, _padded(of_few))
    of_image, of_few, of_norms = _call(_backward_kernel, arguments, "backward", shape)
    of_norms = of_norms.sum(axis=(0, 1)).reshape(4, -1, shape.head_dim).sum(axis=1)
    return of_image, of_few[:, : shape.few], of_norms.astype(norms_4K.dtype), None


attention.defvjp(_forward, _backward)
