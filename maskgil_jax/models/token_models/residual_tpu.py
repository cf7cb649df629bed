"""What stands between the products of a layer as one TPU kernel: norm, dropout, sum, next norm.

Left to the compiler, each of them reads and writes the whole sequence again, and the mask of
dropout is made, stored and read. Here its bits are made where they are used, from a seed and the
place of a block in the batch, forward and backward the same; so they do not depend on the mesh.

Letters: B batch, S tokens, R = B S rows, D width, n norms: that of what is added, and the next.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

from maskgil_jax.runtime import sharding

LANES = 128
BLOCK = 2**18  # elements of a block: 1 MiB in float32
MOST_ROWS = 256  # of a block: the tokens of an image of 256 pixels
CORES = 2  # of a chip, at most; on one of them the halves run one after the other

Ref = Any  # of a kernel's block in memory


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a kernel is compiled for.

    Attributes:
      rate: of dropout.
      eps: of the norms.
      interpreted: not on a TPU: random bits are a hash of their place.
    """

    rate: float
    eps: float
    interpreted: bool


def fits(dim: int, tokens: int) -> bool:
    """Whether there is a kernel for this width and this many tokens of each example."""
    return dim % LANES == 0 and tokens % _rows(dim) == 0


def _rows(D: int) -> int:
    """Rows of a block: a power of two."""
    return min(2 ** max((BLOCK // D).bit_length() - 1, 4), MOST_ROWS)


def _kept(seed_ref: Ref, like: jax.Array, shape: Shape) -> jax.Array:
    """Which elements of this block dropout keeps."""
    block = seed_ref[2] + pl.program_id(0) * pl.num_programs(1) + pl.program_id(1)
    if shape.interpreted:
        bits = _hashed(seed_ref[0], seed_ref[1], block, like.shape)
    else:
        pltpu.prng_seed(seed_ref[0], seed_ref[1] + block)
        bits = pltpu.prng_random_bits(like.shape)
    bits = pltpu.bitcast(bits, jnp.int32) if bits.dtype != jnp.int32 else bits
    return bits < round((1 - shape.rate) * 2**32) - 2**31


def _hashed(
    first: jax.Array, second: jax.Array, block: jax.Array, of: tuple[int, ...]
) -> jax.Array:
    """Bits of each place of a block, int32: the finalizer of MurmurHash3, twice."""
    row, column = (jax.lax.broadcasted_iota(jnp.uint32, of, axis) for axis in (0, 1))
    x = row * of[1] + column + jnp.uint32(of[0] * of[1]) * block.astype(jnp.uint32)
    for seed in (first, second):
        x = x ^ seed.astype(jnp.uint32)
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        x = x ^ (x >> 16)
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _normed(x: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    """x / rms(x), and 1 / rms(x)."""
    inverse = jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return x * inverse, inverse


def _back(gradient: jax.Array, normed: jax.Array, inverse: jax.Array) -> jax.Array:
    """The gradient of what was normed."""
    return inverse * (gradient - normed * (gradient * normed).mean(axis=-1, keepdims=True))


def _forward_kernel(
    seed_ref: Ref, x_ref: Ref, y_ref: Ref, norms_ref: Ref, *outputs: Ref, shape: Shape
) -> None:
    z, _ = _normed(y_ref[...].astype(jnp.float32), shape.eps)
    z = z * norms_ref[:1]
    if shape.rate:
        z = jnp.where(_kept(seed_ref, z, shape), z / (1 - shape.rate), 0)
    sum_ref, *next_refs = outputs
    total = (x_ref[...].astype(jnp.float32) + z).astype(x_ref.dtype)
    sum_ref[...] = total
    for next_ref in next_refs:
        normed, _ = _normed(total.astype(jnp.float32), shape.eps)
        next_ref[...] = (normed * norms_ref[1:]).astype(next_ref.dtype)


def _backward_kernel(
    seed_ref: Ref, y_ref: Ref, dtotal_ref: Ref, norms_ref: Ref, *rest: Ref, shape: Shape
) -> None:
    *of_next, dx_ref, dy_ref, dnorms_ref = rest

    @pl.when(pl.program_id(1) == 0)
    def start() -> None:
        dnorms_ref[...] = jnp.zeros_like(dnorms_ref)

    dtotal = dtotal_ref[...].astype(jnp.float32)
    if of_next:
        total_ref, dnext_ref = of_next
        dnext = dnext_ref[...].astype(jnp.float32)
        normed, inverse = _normed(total_ref[...].astype(jnp.float32), shape.eps)
        dnorms_ref[0, 1:] += (dnext * normed).sum(axis=0, keepdims=True)
        dtotal += _back(dnext * norms_ref[1:], normed, inverse)
    dx_ref[...] = dtotal.astype(dx_ref.dtype)
    if shape.rate:
        dtotal = jnp.where(_kept(seed_ref, dtotal, shape), dtotal / (1 - shape.rate), 0)
    normed, inverse = _normed(y_ref[...].astype(jnp.float32), shape.eps)
    dnorms_ref[0, :1] += (dtotal * normed).sum(axis=0, keepdims=True)
    dy_ref[...] = _back(dtotal * norms_ref[:1], normed, inverse).astype(dy_ref.dtype)


def _call(
    kernel: Callable[..., None],
    seed_2: jax.Array,
    arrays: tuple[jax.Array, ...],
    norms_nD: jax.Array,
    results: int,
    shape: Shape,
) -> list[jax.Array]:
    """Run a kernel over all blocks of rows, on each device for those that it holds.

    Args:
      kernel: of a seed, the first two arrays, norms, the other arrays and the results.
      seed_2: int32.
      arrays: [B, S, D] each.
      norms_nD: float32, scales.
      results: like the arrays, that it gives.
      shape: of the kernel.

    Returns:
      The results; of the backward kernel the gradient of norms_nD too.
    """
    backward = kernel is _backward_kernel

    def on_device(first: jax.Array, seed_2: jax.Array, norms: jax.Array, *arrays: Any) -> Any:
        seed_3 = jnp.append(seed_2, first)
        found = _call_on_device(kernel, seed_3, arrays, norms, results, backward, shape)
        if not backward:
            return found
        *found, dnorms = found
        dnorms = dnorms.sum(axis=0)
        return [*found, jax.lax.psum(dnorms, sharding.BATCH[0]) if sharded else dnorms]

    (_, S, D), sharded = arrays[0].shape, sharding.splits()
    if not sharded:
        return on_device(jnp.int32(0), seed_2, norms_nD, *arrays)
    axes = sharding.BATCH[0]

    def on_each(*arguments: Any) -> Any:
        blocks = arguments[2].shape[0] * S // _rows(D)
        return on_device(jax.lax.axis_index(axes) * blocks, *arguments)

    return jax.shard_map(
        on_each,
        in_specs=(P(), P(), *(sharding.BATCH for _ in arrays)),
        out_specs=[sharding.BATCH] * results + [P()] * backward,
        check_vma=False,
    )(seed_2, norms_nD, *arrays)


def _call_on_device(
    kernel: Callable[..., None],
    seed_3: jax.Array,
    arrays: tuple[jax.Array, ...],
    norms_nD: jax.Array,
    results: int,
    backward: bool,
    shape: Shape,
) -> list[jax.Array]:
    """As `_call`, for the examples that one device holds; the seed has the first block's number."""
    B, S, D = arrays[0].shape
    rows, R, n = _rows(D), B * S, len(norms_nD)
    cores = CORES if R // rows % CORES == 0 else 1
    each = R // rows // cores
    of_rows = pl.BlockSpec((rows, D), lambda core, i: (core * each + i, 0))
    of_norms = pl.BlockSpec((n, D), lambda core, i: (0, 0))
    flat = [x.reshape(R, D) for x in arrays]
    out_shapes = [jax.ShapeDtypeStruct((R, D), flat[0].dtype)] * results
    out_specs = [of_rows] * results
    if backward:
        out_shapes.append(jax.ShapeDtypeStruct((cores, n, D), jnp.dtype("float32")))
        out_specs.append(pl.BlockSpec((1, n, D), lambda core, i: (core, 0, 0)))
    found = pl.pallas_call(
        functools.partial(kernel, shape=shape),
        grid=(cores, each),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *(of_rows, of_rows, of_norms),
            *[of_rows] * (len(flat) - 2),
        ],
        out_specs=out_specs,
        out_shape=out_shapes,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=48 * 2**20
        ),
        cost_estimate=pl.CostEstimate(
            flops=0,
            transcendentals=0,
            bytes_accessed=(len(flat) + results) * R * D * flat[0].dtype.itemsize,
        ),
        interpret=shape.interpreted,
    )(seed_3, *flat[:2], norms_nD, *flat[2:])
    return [*(x.reshape(B, S, D) for x in found[:results]), *found[results:]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def added(
    x_BSD: jax.Array, y_BSD: jax.Array, norms_nD: jax.Array, seed_2: jax.Array, shape: Shape
) -> list[jax.Array]:
    """x + dropout(norm(y)), and where there is a second norm also that of the sum.

    Args:
      x_BSD, y_BSD: what fits.
      norms_nD: float32, the scales of one or two RMSNorms.
      seed_2: int32, of dropout.
      shape: of the kernel.

    Returns:
      One or two arrays [B, S, D].
    """
    return _call(_forward_kernel, seed_2, (x_BSD, y_BSD), norms_nD, len(norms_nD), shape)


def _forward(
    x_BSD: jax.Array, y_BSD: jax.Array, norms_nD: jax.Array, seed_2: jax.Array, shape: Shape
) -> tuple[list[jax.Array], Any]:
    outputs = added(x_BSD, y_BSD, norms_nD, seed_2, shape)
    total = outputs[:1] if outputs[1:] else []  # only the next norm's derivative reads it
    return outputs, (total, y_BSD, norms_nD, seed_2)


def _backward(shape: Shape, residuals: Any, gradients: list[jax.Array]) -> tuple[Any, ...]:
    total, y_BSD, norms_nD, seed_2 = residuals
    dtotal_BSD, *dnext = gradients
    arrays = (y_BSD, dtotal_BSD, *total, *dnext)
    return (*_call(_backward_kernel, seed_2, arrays, norms_nD, 2, shape), None)


added.defvjp(_forward, _backward)


def seed_of(key: jax.Array | None) -> jax.Array:
    """The seed of a key, int32 [2]; without one, of a kernel whose rate is 0."""
    if key is None:
        return jnp.zeros(2, jnp.int32)
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (2,), jnp.uint32), jnp.int32)
