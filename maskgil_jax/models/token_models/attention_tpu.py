"""Attention of a LLaMA's layer as one TPU kernel: QK-norm, rotation, softmax and their derivative.

Left to the compiler, each of them reads and writes its arrays in a layout of its own, in which a
head of 64 channels takes the place of 128. The kernels, forward and backward, stand in
attention_kernels.py; here is how they are called.

Letters: B batch, L image tokens, c tokens of the condition, T = L + c (with padding), K head
dimension, N = H K channels of all heads, W channels of a group of heads, Q queries of a tile.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

from maskgil_jax.models.token_models import attention_kernels
from maskgil_jax.models.token_models.attention_heads import LANES, ROWS, Shape, rotations
from maskgil_jax.models.token_models.attention_kernels import Gradients, Operands, Outputs
from maskgil_jax.models.token_models.products import saved
from maskgil_jax.runtime import sharding

LONGEST = 8192  # tokens, of which keys and values of a group of heads stay on the chip
MOST = 2 * LANES  # image tokens with others beside them
VMEM_BYTES = 60 * 2**20  # of 64 MiB of v5p, 128 MiB of v5e and v6e


def fits(head_dim: int, heads: int, tokens: int) -> bool:
    """Whether there is a kernel for this many heads and tokens of one array."""
    return _fits(head_dim, heads, _width(head_dim, few=False)) and tokens <= LONGEST


def fits_parts(head_dim: int, heads: int, tokens: int, few: int) -> bool:
    """Whether there is a kernel for this many heads, image tokens and tokens of the condition."""
    whole = tokens % LANES == 0 and tokens <= MOST and few <= ROWS
    return _fits(head_dim, heads, _width(head_dim, few=True)) and whole


def _fits(head_dim: int, heads: int, width: int) -> bool:
    shards = jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
    return head_dim % ROWS == 0 and (heads * head_dim) % (width * shards) == 0


def _width(head_dim: int, few: bool) -> int:
    """W: of several heads, of which one is multiplied while another is in vector units.

    Tokens of the condition have channels in columns, of whole registers.
    """
    if few:
        return math.lcm(head_dim, LANES)
    return 2 * head_dim if head_dim <= LANES // 2 else head_dim


def _tile(tokens: int) -> int:
    """Q, and as many keys: 3 to 5 registers' columns, with as little padding as they allow."""
    columns = -(-tokens // LANES)
    sizes = range(min(columns, 3), min(columns, 5) + 1)
    return LANES * min(sizes, key=lambda size: (-(-columns // size) * size, -size))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attention(
    image_B3NL: jax.Array,
    few_B3cN: jax.Array | None,
    real_BT: jax.Array,
    norms_4K: jax.Array,
    table_TJ2: Any,
    shape: Shape,
) -> tuple[jax.Array, jax.Array | None]:
    """Softmax attention of all tokens with each other.

    Args:
      image_B3NL: queries, keys and values of image tokens, or of all.
      few_B3cN: of the condition's tokens, which follow; None: of none.
      real_BT: bool, false for tokens that no other sees, which get 0.
      norms_4K: scale and bias of the norm of queries, and of keys; read by QK-norms only.
      table_TJ2: of rotations, [T, K / 2, 2].
      shape: of the kernel.

    Returns:
      [B, N, L] and [B, c, N].
    """
    operands = _operands(image_B3NL, few_B3cN, real_BT, norms_4K, table_TJ2)
    return _cut(_call(operands, shape, False), few_B3cN)[:2]


def _forward(
    image: jax.Array,
    few: jax.Array | None,
    real_BT: jax.Array,
    norms_4K: jax.Array,
    table_TJ2: Any,
    shape: Shape,
) -> tuple[tuple[jax.Array, jax.Array | None], Any]:
    operands = _operands(image, few, real_BT, norms_4K, table_TJ2)
    outputs = _cut(_call(operands, shape, True), few)
    outputs = jax.tree.map(lambda x: saved(x, "attention"), outputs)
    return outputs[:2], (image, few, real_BT, norms_4K, table_TJ2, outputs)


def _backward(
    shape: Shape, residuals: Any, gradients: tuple[jax.Array, jax.Array | None]
) -> tuple[jax.Array, jax.Array | None, None, jax.Array, None]:
    *given, outputs = residuals
    out_few, dout_few = (_padded(x) for x in (outputs.out_few, gradients[1]))
    operands = _operands(*given)._replace(
        out=outputs.out,
        out_few=out_few,
        log_sums=outputs.log_sums,
        dout=gradients[0],
        dout_few=dout_few,
    )
    dimage, dfew, dnorms = _call(operands, shape, False)
    if given[1] is not None:
        dfew = dfew[:, :, : given[1].shape[2]]
    return dimage, dfew, None, dnorms.sum(axis=(0, 1, 4)).astype(given[3].dtype), None


attention.defvjp(_forward, _backward)


def _cut(outputs: Outputs, few: jax.Array | None) -> Outputs:
    """Without what the tokens of the condition were padded by."""
    if few is None:
        return outputs
    return outputs._replace(out_few=outputs.out_few[:, : few.shape[2]])


def _padded(x: Any, axis: int = -2, size: int = ROWS) -> Any:
    """An array, or None, with zeros at the end of an axis, to a multiple of `size`."""
    if x is None:
        return None
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, -x.shape[axis] % size)
    return jnp.pad(x, pads)


def _operands(
    image: jax.Array, few: jax.Array | None, real_BT: jax.Array, norms_4K: jax.Array, table_TJ2: Any
) -> Operands:
    size = _tile(image.shape[3]) if few is None else image.shape[3] + LANES
    rotation, swap = rotations(_padded(jnp.asarray(table_TJ2), 0, size), image.dtype)
    real_B1T = _padded(real_BT.astype(jnp.float32), 1, size)[:, None]
    norms_4K1 = norms_4K[..., None].astype(jnp.float32)
    return Operands(
        image, image, image, _padded(few), real_B1T, norms_4K1, rotation, rotation, swap
    )


def _results(operands: Operands, shape: Shape, with_sums: bool) -> Outputs | Gradients:
    """Shapes of what a kernel gives."""
    image, few, T = operands.queries, operands.few, operands.real.shape[2]
    (B, _, N, L), K = image.shape, shape.head_dim
    if operands.dout is not None:
        return Gradients(image, few, jax.ShapeDtypeStruct((B, 1, 4, K, LANES), jnp.float32))
    W = _width(K, few is not None)
    return Outputs(
        jax.ShapeDtypeStruct((B, N, L), image.dtype),
        None if few is None else jax.ShapeDtypeStruct((B, ROWS, N), image.dtype),
        jax.ShapeDtypeStruct((B, N // W, W // K, T), jnp.float32) if with_sums else None,
    )


def _of_present(there: Any, every: Any) -> Any:
    """Of a tuple that has something for every array, what it has for those that are there."""
    return type(every)(*(None if x is None else y for x, y in zip(there, every, strict=True)))


def _call(operands: Operands, shape: Shape, with_sums: bool) -> Any:
    """Run a kernel for each image and group of heads, on each device for those that it holds.

    Args:
      operands: of the forward kernel, or with outputs and their gradients of the backward one.
      shape: of the kernel.
      with_sums: the forward kernel gives the logarithms of sums too.
    """
    on_device = functools.partial(_call_on_device, shape=shape, with_sums=with_sums)
    if not sharding.splits():
        return on_device(operands)
    (batch,) = sharding.BATCH
    image, few, out = P(batch, None, "tensor"), P(batch, None, None, "tensor"), P(batch, "tensor")
    out_few, whole = P(batch, None, "tensor"), P()
    inputs = Operands(
        *(image, image, image, few, P(batch), whole, whole, whole, whole),
        *(out, out_few, out, out, out_few),
    )
    outputs = _results(operands, shape, with_sums)
    of_outputs: Any = Outputs(out, out_few, out)
    if isinstance(outputs, Gradients):
        of_outputs = Gradients(image, few, out)
    mapped = jax.shard_map(
        on_device,
        in_specs=(_of_present(operands, inputs),),
        out_specs=_of_present(outputs, of_outputs),
        check_vma=False,
    )
    return mapped(operands)


def _call_on_device(operands: Operands, *, shape: Shape, with_sums: bool) -> Any:
    """As `_call`, for the images and heads that one device holds."""
    few, backward = operands.few, operands.dout is not None
    (B, _, N, L), K, T = operands.queries.shape, shape.head_dim, operands.real.shape[2]
    W = _width(K, few is not None)
    Q = T if few is not None else _tile(L)
    blocks = _blocks(operands, K, W, Q)
    outputs = _results(operands, shape, with_sums)
    of_outputs: Any = Outputs(blocks.out, blocks.out_few, blocks.log_sums)
    if backward:
        # Whole sequences, of which a kernel fills in one tile after another.
        image = pl.BlockSpec((1, 3, *blocks.keys.block_shape[2:]), lambda b, g, i: (b, 0, g, 0))
        norms = pl.BlockSpec((1, 1, 4, K, LANES), lambda b, g, i: (b, 0, 0, 0, 0))
        of_outputs = Gradients(image, blocks.few, norms)
    kernel = attention_kernels.backward if backward else attention_kernels.forward
    return pl.pallas_call(
        functools.partial(kernel, shape=shape),
        grid=(B, N // W, T // Q),
        in_specs=(_of_present(operands, blocks),),
        out_specs=(_of_present(outputs, of_outputs),),
        out_shape=(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), outputs),),
        scratch_shapes=_scratch(operands, K, W, T if few is None else L + ROWS),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=VMEM_BYTES,
        ),
        cost_estimate=_cost(operands, K, T),
        interpret=sharding.platform() != "tpu",
    )(operands)[0]


def _blocks(operands: Operands, K: int, W: int, Q: int) -> Operands:
    """What a kernel reads of its operands at (image, group of heads, tile)."""
    T = operands.real.shape[2]
    columns, all_columns = (Q, T) if operands.few is None else (operands.queries.shape[3],) * 2
    few = pl.BlockSpec((1, 3, ROWS, W), lambda b, g, i: (b, 0, 0, g))
    out = pl.BlockSpec((1, W, columns), lambda b, g, i: (b, g, i))
    out_few = pl.BlockSpec((1, ROWS, W), lambda b, g, i: (b, 0, g))
    return Operands(
        queries=pl.BlockSpec((1, 1, W, columns), lambda b, g, i: (b, 0, g, i)),
        keys=pl.BlockSpec((1, 1, W, all_columns), lambda b, g, i: (b, 1, g, 0)),
        values=pl.BlockSpec((1, 1, W, all_columns), lambda b, g, i: (b, 2, g, 0)),
        few=few,
        real=pl.BlockSpec((1, 1, T), lambda b, g, i: (b, 0, 0)),
        norms=pl.BlockSpec((4, K, 1), lambda b, g, i: (0, 0, 0)),
        rotation=pl.BlockSpec((2, K, Q), lambda b, g, i: (0, 0, i)),
        rotations=pl.BlockSpec((2, K, T), lambda b, g, i: (0, 0, 0)),
        swap=pl.BlockSpec((K, K), lambda b, g, i: (0, 0)),
        out=out,
        out_few=out_few,
        log_sums=pl.BlockSpec((1, 1, W // K, Q), lambda b, g, i: (b, g, 0, i)),
        dout=out,
        dout_few=out_few,
    )


def _scratch(operands: Operands, K: int, W: int, tokens: int) -> list[Any]:
    """What a kernel keeps from the first tile to the last, of so many keys."""
    dtype, heads, T = operands.queries.dtype, W // K, operands.real.shape[2]
    keys = pltpu.VMEM((heads, tokens, K + ROWS), dtype)
    if operands.dout is None:
        return [
            keys,
            pltpu.VMEM((heads, K + ROWS, tokens), dtype),
            pltpu.SMEM((heads,), jnp.float32),
        ]
    sums = pltpu.VMEM((heads, K, T), jnp.float32)
    return [keys, pltpu.VMEM((heads, K, tokens), dtype), keys, sums, sums]


def _cost(operands: Operands, K: int, T: int) -> pl.CostEstimate:
    """What a kernel does on one device, with all that registers of LANES add to it."""
    image, backward = operands.queries, operands.dout is not None
    B, _, N, _ = image.shape
    pairs, outputs = 2 * T * T * -(-(K + ROWS) // LANES) * LANES, 2 * T * T * K
    arrays = 3 if backward else 4 / 3  # as large as queries, keys and values
    return pl.CostEstimate(
        flops=B * N // K * (2 * pairs + 3 * outputs if backward else pairs + outputs),
        transcendentals=B * N // K * T * T,
        bytes_accessed=int(arrays * image.size * image.dtype.itemsize),
    )
