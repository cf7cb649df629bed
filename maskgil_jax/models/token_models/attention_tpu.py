"""Attention of a LLaMA's layer as one TPU kernel: QK-norm, rotation, softmax and their derivative.

Left to the compiler, each of them reads and writes its arrays in a layout of its own, in which a
head of 64 channels takes the place of 128. Here channels stand in rows and tokens in columns, so
that the sums of norms and softmax are over registers, and what is in between never leaves the chip.

Letters: B batch, L image tokens, c tokens of the condition, T = L + c (with padding), K head
dimension, N = H K channels of all heads, W channels of a group of heads.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

from maskgil_jax.models.token_models.products import saved
from maskgil_jax.runtime import sharding

LANES = 128
ROWS = 16  # of a register of bfloat16: what a condition's tokens are padded to a multiple of
EPSILON = 1e-5

Ref = Any  # of a kernel's block in memory
Blocks = list[tuple[slice, int]]  # columns of queries, and the axis of their keys


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a kernel is compiled for.

    Attributes:
      head_dim: K.
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
    return whole and tokens in (LANES, 2 * LANES) and few <= ROWS


def _dot(x: jax.Array, y: jax.Array, axis_y: int = 0) -> jax.Array:
    """Product of matrices, over the last axis of x and this one of y, in float32."""
    return jax.lax.dot_general(
        x,
        y,
        (((1,), (axis_y,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


class _RotatedHead:
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
        return _dot(self.swap, x_KT.astype(self.swap.dtype))

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


def _inputs(
    image_ref: Ref, few_ref: Ref, norms_ref: Ref, rotation_ref: Ref, swap_ref: Ref, shape: Shape
) -> Iterator[tuple[_RotatedHead, _RotatedHead, jax.Array]]:
    """Queries, keys and values of each head, [K, T]."""
    K = shape.head_dim
    qkv = [jnp.concatenate([image_ref[0, i], few_ref[0, i].T], axis=1) for i in range(3)]
    rotation, swap = rotation_ref[...], swap_ref[...]
    for start in range(0, shape.width, K):
        q, k, v = (x[start : start + K] for x in qkv)
        yield (
            _RotatedHead(q, norms_ref[:2], rotation, swap, shape.qk_norm, K**-0.5 / math.log(2)),
            _RotatedHead(k, norms_ref[2:], rotation, swap, shape.qk_norm, 1.0),
            v,
        )


def _blocks(L: int) -> Blocks:
    """Columns of queries, and the axis of their keys.

    Image tokens fill the lanes, so that sums over keys are over registers; the few do not.
    """
    return [(slice(i, i + LANES), 0) for i in range(0, L, LANES)] + [(slice(L, None), 1)]


def _pairs(x_KT: jax.Array, y_KT: jax.Array, blocks: Blocks) -> list[jax.Array]:
    """Products of all columns of x with those of y, block by block."""
    x_TK = x_KT.T
    return [
        _dot(x_TK, y_KT[:, columns]) if axis == 0 else _dot(y_KT[:, columns].T, x_KT)
        for columns, axis in blocks
    ]


def _softmax(scores: jax.Array, axis: int, real: int) -> jax.Array:
    """Powers of 2, normed over keys, of which the first `real` are no padding."""
    images, few = jnp.split(scores, [real // LANES * LANES], axis=axis)
    index = jax.lax.broadcasted_iota(jnp.int32, few.shape, axis)
    few = jnp.where(index < real % LANES, few, jnp.finfo(jnp.float32).min)
    scores = jnp.concatenate([images, few], axis=axis)
    weights = jnp.exp2(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def _joined(by_block: list[jax.Array], blocks: Blocks, dtype: Any) -> jax.Array:
    """Keys by queries, [T, T]."""
    columns = [x if axis == 0 else x.T for x, (_, axis) in zip(by_block, blocks, strict=True)]
    return jnp.concatenate([x.astype(dtype) for x in columns], axis=1)


# The kernels do one thing after another for all heads: what does not depend on what comes before
# it is scheduled beside it.


def _forward_kernel(
    image_ref: Ref,
    few_ref: Ref,
    norms_ref: Ref,
    rotation_ref: Ref,
    swap_ref: Ref,
    out_ref: Ref,
    out_few_ref: Ref,
    *,
    shape: Shape,
) -> None:
    blocks, L = _blocks(image_ref.shape[-1]), image_ref.shape[-1]
    heads = list(_inputs(image_ref, few_ref, norms_ref, rotation_ref, swap_ref, shape))
    scores = [_pairs(k.result, q.result, blocks) for q, k, _ in heads]
    weights = [
        [_softmax(s, axis, L + shape.few) for s, (_, axis) in zip(head, blocks, strict=True)]
        for head in scores
    ]
    outputs = [
        _dot(v, _joined(w, blocks, v.dtype)) for (_, _, v), w in zip(heads, weights, strict=True)
    ]
    out = jnp.concatenate(outputs)
    out_ref[0] = out[:, :L].astype(out_ref.dtype)
    out_few_ref[0] = out[:, L:].T.astype(out_ref.dtype)


def _backward_kernel(
    image_ref: Ref,
    few_ref: Ref,
    norms_ref: Ref,
    rotation_ref: Ref,
    swap_ref: Ref,
    dout_ref: Ref,
    dout_few_ref: Ref,
    dimage_ref: Ref,
    dfew_ref: Ref,
    dnorms_ref: Ref,
    *,
    shape: Shape,
) -> None:
    blocks, L, K = _blocks(image_ref.shape[-1]), image_ref.shape[-1], shape.head_dim
    heads = list(_inputs(image_ref, few_ref, norms_ref, rotation_ref, swap_ref, shape))
    dout = jnp.concatenate([dout_ref[0], dout_few_ref[0].T], axis=1)
    gradients = [dout[start : start + K] for start in range(0, shape.width, K)]
    scores = [_pairs(k.result, q.result, blocks) for q, k, _ in heads]
    dweights = [_pairs(v, g, blocks) for (_, _, v), g in zip(heads, gradients, strict=True)]
    joined = []
    for head, head_dweights in zip(scores, dweights, strict=True):
        weights, dscores = [], []
        for s, g, (_, axis) in zip(head, head_dweights, blocks, strict=True):
            w = _softmax(s, axis, L + shape.few)
            weights.append(w)
            dscores.append(w * (g - (w * g).sum(axis=axis, keepdims=True)))
        joined.append([_joined(x, blocks, dout.dtype) for x in (weights, dscores)])
    dqkv, dnorms = [], []
    for (q, k, _), g, (w, s) in zip(heads, gradients, joined, strict=True):
        dq, dq_norm = q.back(_dot(k.result, s) * math.log(2))
        dk, dk_norm = k.back(_dot(q.result, s, 1) * math.log(2))
        dqkv.append((dq, dk, _dot(g, w, 1)))
        dnorms.append(dq_norm + dk_norm)
    for i, by_head in enumerate(zip(*dqkv, strict=True)):
        gradient = jnp.concatenate(by_head)
        dimage_ref[0, i] = gradient[:, :L].astype(dout.dtype)
        dfew_ref[0, i] = gradient[:, L:].T.astype(dout.dtype)

    @pl.when(pl.program_id(1) == 0)
    def start() -> None:
        dnorms_ref[...] = jnp.zeros_like(dnorms_ref)

    for i, by_head in enumerate(zip(*dnorms, strict=True)):
        dnorm = sum(by_head)
        columns = [dnorm[:, j : j + LANES] for j in range(0, L, LANES)]
        dnorms_ref[0, 0, i] += sum(columns)
        dnorms_ref[0, 0, i, :, : dnorm.shape[1] - L] += dnorm[:, L:]


def _cost(image: jax.Array, few: jax.Array, backward: bool, K: int) -> pl.CostEstimate:
    """What a kernel does on one device, with all that registers of LANES add to it."""
    (B, _, N, L), c = image.shape, few.shape[2]
    T, H = L + c, N // K

    def product(m: int, k: int, n: int) -> int:
        return 2 * m * math.prod(-(-size // LANES) * LANES for size in (k, n))

    swap, outputs = product(K, K, T), product(K, T, T)
    pairs = product(T, K, L) + product(c, K, T)
    flops = 4 * swap + 2 * pairs + 3 * outputs if backward else 2 * swap + pairs + outputs
    arrays = 7 / 3 if backward else 4 / 3  # as large as queries, keys and values
    return pl.CostEstimate(
        flops=B * H * flops,
        transcendentals=B * H * T * T,
        bytes_accessed=int(arrays * (image.size + few.size) * image.dtype.itemsize),
    )


def _call(
    kernel: Callable[..., None], arguments: tuple[jax.Array, ...], backward: bool, shape: Shape
) -> list[jax.Array]:
    """Run a kernel for each image and group of heads, on each device for those that it holds.

    Args:
      kernel: of `arguments` and the outputs.
      arguments: image [B, 3, N, L] and few [B, 3, c, N], norms, rotation, swap, gradients of the
        outputs, [B, N, L] and [B, c, N].
      backward: whether there are gradients.
      shape: of the kernel.
    """
    on_device = functools.partial(_call_on_device, kernel, backward, shape)
    if not sharding.splits():
        return on_device(*arguments)
    (batch,) = sharding.BATCH
    inputs = P(batch, None, "tensor"), P(batch, None, None, "tensor")
    outputs = P(batch, "tensor"), P(batch, None, "tensor")
    mapped = jax.shard_map(
        on_device,
        in_specs=(*inputs, P(), P(), P(), *(outputs if backward else ())),
        out_specs=(*inputs, P(batch, "tensor")) if backward else outputs,
        check_vma=False,
    )
    return mapped(*arguments)


def _call_on_device(
    kernel: Callable[..., None], backward: bool, shape: Shape, *arguments: jax.Array
) -> list[jax.Array]:
    """As `_call`, for the images and heads that one device holds."""
    image, few, *fixed = arguments[:5]
    (B, _, N, L), c, K, W = image.shape, few.shape[2], shape.head_dim, shape.width
    inputs = [
        pl.BlockSpec((1, 3, W, L), lambda b, g: (b, 0, g, 0)),
        pl.BlockSpec((1, 3, c, W), lambda b, g: (b, 0, 0, g)),
    ]
    outputs = [
        pl.BlockSpec((1, W, L), lambda b, g: (b, g, 0)),
        pl.BlockSpec((1, c, W), lambda b, g: (b, 0, g)),
    ]
    in_specs = inputs + [pl.BlockSpec(x.shape, lambda b, g, n=x.ndim: (0,) * n) for x in fixed]
    shapes: list[tuple[int, ...]] = [(B, N, L), (B, c, N)]
    dtypes = [image.dtype, image.dtype]
    out_specs = outputs
    if backward:
        in_specs += outputs
        dnorms = (1, 1, 4, K, LANES)
        shapes = [image.shape, few.shape, (B, *dnorms[1:])]
        dtypes.append(jnp.dtype(jnp.float32))
        out_specs = [*inputs, pl.BlockSpec(dnorms, lambda b, g: (b, 0, 0, 0, 0))]
    return pl.pallas_call(
        functools.partial(kernel, shape=shape),
        grid=(B, N // W),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=[*map(jax.ShapeDtypeStruct, shapes, dtypes)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            allow_input_fusion=[True] * len(arguments),
        ),
        cost_estimate=_cost(image, few, backward, K),
        interpret=sharding.platform() != "tpu",
    )(*arguments)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attention(
    image_B3NL: jax.Array,
    few_B3cN: jax.Array,
    norms_4K: jax.Array,
    tables: tuple[jax.Array, jax.Array],
    shape: Shape,
) -> tuple[jax.Array, jax.Array]:
    """Softmax attention of image tokens and a condition's with each other.

    Args:
      image_B3NL, few_B3cN: queries, keys and values.
      norms_4K: scale and bias of the norm of queries, and of keys; read by QK-norms only.
      tables: of rotations, [L, K / 2, 2] and [c, K / 2, 2].
      shape: of the kernel.

    Returns:
      [B, N, L] and [B, c, N].
    """
    return _forward(image_B3NL, few_B3cN, norms_4K, tables, shape)[0]


def _arguments(
    image: jax.Array, few: jax.Array, norms_4K: jax.Array, tables: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    table_TJ2 = _padded(jnp.concatenate(tables), few.shape[2], 0)
    cos, sin = jnp.repeat(table_TJ2, 2, axis=1).transpose(2, 1, 0)
    channel = np.arange(len(cos))
    rotation = jnp.stack([cos, sin * np.where(channel % 2, 1, -1)[:, None]])
    swap = jnp.asarray(channel[:, None] == channel ^ 1, image.dtype)
    return image, _padded(few), norms_4K[..., None].astype(jnp.float32), rotation, swap


def _padded(x: jax.Array, few: int | None = None, axis: int = -2) -> jax.Array:
    """With tokens of the condition, at the end of the axis, for whole registers."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, -(few or x.shape[axis]) % ROWS)
    return jnp.pad(x, pads)


def _forward(
    image: jax.Array,
    few: jax.Array,
    norms_4K: jax.Array,
    tables: tuple[jax.Array, jax.Array],
    shape: Shape,
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    out, out_few = _call(_forward_kernel, _arguments(image, few, norms_4K, tables), False, shape)
    outputs = saved(out, "attention"), saved(out_few[:, : shape.few], "attention")
    return outputs, (image, few, norms_4K, tables)


def _backward(
    shape: Shape, operands: Any, gradients: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    dout, dfew = gradients
    arguments = (*_arguments(*operands), dout, _padded(dfew))
    dimage, dfew, dnorms = _call(_backward_kernel, arguments, True, shape)
    dnorms = dnorms.sum(axis=(0, 1, 4)).astype(operands[2].dtype)
    return dimage, dfew[:, :, : shape.few], dnorms, None


attention.defvjp(_forward, _backward)
