"""TPU kernels of attention, tile by tile: no scores leave the chip (attention_tpu.py calls them).

QK-norm, rotation, softmax and their derivative, of any number of tokens with a mask of keys, as in
FlashAttention (Dao et al. 2022). Channels stand in rows and tokens in columns, so that heads of 64
channels take no more memory than they have, and sums of norms are over registers.

Products do what vector units would else do at every score. A few rows are added to the channels, of
which a systolic array takes 128 at once: of the queries the negative logarithm of their weights'
sum, of the keys ones, so that their product is the logarithm of a weight; in the same way the mask
is part of a product, and in the backward pass the mean of the weights' gradients. A row of ones
under the values makes the sums of weights.

A softmax may subtract any number from its scores; the largest of them is the usual choice, for
which all must be known. With several tiles it is here the product of norms of a query and the
longest key, which is no smaller, and known at once; but where that is so large that weights could
vanish, the largest score so far.

Letters: B batch, L image tokens, T all tokens (with padding), K head dimension, N = H K channels of
all heads, W channels of a group of heads, G groups, Q queries of a tile.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from maskgil_jax.models.token_models.attention_heads import LANES, ROWS, RotatedHead, Shape, dot

Ref = Any  # of a kernel's block in memory

HIDDEN = -(2.0**15)  # score of a key that is masked
LARGEST = 60.0  # logarithm of a weight
SAFE = 90.0  # where scores are between this and its negative, weights are 2**-120 at least


class Operands(NamedTuple):
    """What a kernel reads: arrays, how they are split into blocks, or references to the blocks.

    Attributes:
      queries, keys, values: of image tokens, or of all, [B, 3, N, L]: the same array.
      few: queries, keys and values of the tokens that follow them, [B, 3, ROWS, N]; None: of none.
      real: [B, 1, T], 0 for tokens that no other sees, which get 0.
      norms: [4, K, 1], scale and bias of the norm of queries, and of keys.
      rotation, rotations: [2, K, T], cosines and sines, for queries and for keys.
      swap: of RotatedHead.
      out, out_few: results of the forward kernel, for the backward one.
      log_sums: [B, G, W / K, T], logarithms of the sums of weights, to base 2.
      dout, dout_few: gradients of the results.
    """

    queries: Any
    keys: Any
    values: Any
    few: Any
    real: Any
    norms: Any
    rotation: Any
    rotations: Any
    swap: Any
    out: Any = None
    out_few: Any = None
    log_sums: Any = None
    dout: Any = None
    dout_few: Any = None


class Outputs(NamedTuple):
    """What the forward kernel gives: [B, N, L], [B, ROWS, N] and `log_sums`, or None."""

    out: Any
    out_few: Any
    log_sums: Any


class Gradients(NamedTuple):
    """What the backward kernel gives: [B, 3, N, L], [B, 3, ROWS, N] and [B, 4, K, LANES]."""

    image: Any
    few: Any
    norms: Any


class _Group:
    """The heads of a group, as blocks have them."""

    def __init__(self, refs: Operands, shape: Shape, count: int):
        self.refs, self.shape, self.heads = refs, shape, range(count)
        tokens = refs.rotation.shape[-1]  # of a tile
        start = pl.multiple_of(pl.program_id(2) * tokens, tokens)
        self.tile = pl.ds(start, tokens)
        self.tiles = refs.rotations.shape[-1] // tokens
        self._made: dict[int, RotatedHead] = {}
        self.real_T, self.real_Q = refs.real[0] > 0, refs.real[0, :, self.tile] > 0

    def rows(self, head: int) -> slice:
        return slice(head * self.shape.head_dim, (head + 1) * self.shape.head_dim)

    def queries(self, head: int) -> RotatedHead:
        x_KQ = _joined(self.refs.queries[0, 0, self.rows(head)], self._few(0, head))
        scale = self.shape.head_dim**-0.5 / math.log(2)
        return self._rotated(x_KQ, self.refs.rotation[...], 0, scale)

    def keys(self, head: int) -> RotatedHead:
        if head in self._made:
            return self._made[head]
        x_KT = _joined(self.refs.keys[0, 0, self.rows(head)], self._few(1, head))
        made = self._rotated(x_KT, self.refs.rotations[...], 2, 1.0)
        if self.tiles == 1:  # the kernel is one region, in which they need be made only once
            self._made[head] = made
        return made

    def values(self, head: int) -> jax.Array:
        x_KT = _joined(self.refs.values[0, 0, self.rows(head)], self._few(2, head))
        return _where(self.real_T, x_KT)

    def _few(self, i: int, head: int) -> jax.Array | None:
        few = self.refs.few
        return None if few is None else few[0, i].T[self.rows(head)]

    def _rotated(self, x: jax.Array, rotation: jax.Array, row: int, scale: float) -> RotatedHead:
        norm, swap = self.refs.norms[row : row + 2], self.refs.swap[...]
        return RotatedHead(x, norm, rotation, swap, self.shape.qk_norm, scale)

    def results(self, head: int, image: Ref, few: Ref | None) -> jax.Array:
        """Of a tile's queries, or gradients: [K, Q]."""
        rows = self.rows(head)
        x_KQ = _joined(image[0, rows], None if few is None else few[0].T[rows])
        return _where(self.real_Q, x_KQ)

    def at_tile(self, index: int) -> Callable[[Callable[[], None]], Any]:
        """Run a function at one of the tiles of queries."""
        if self.tiles == 1:
            return lambda function: function()
        return pl.when(pl.program_id(2) == index)

    def through_tiles(self, tokens: int, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Carry through as many tiles of keys as there are of queries."""
        if self.tiles == 1:
            return body(pl.ds(0, tokens), carry)
        size = tokens // self.tiles

        def step(i: Any, carry: Any) -> Any:
            return body(pl.ds(pl.multiple_of(i * size, size), size), carry)

        return jax.lax.fori_loop(0, self.tiles, step, carry, unroll=self.tiles <= 2)


def _joined(image_KL: jax.Array, few_KR: jax.Array | None) -> jax.Array:
    """Image tokens, the others, and zeros in the columns that are left of their register."""
    if few_KR is None:
        return image_KL
    K, R = few_KR.shape
    return jnp.concatenate([image_KL, few_KR, jnp.zeros((K, LANES - R), few_KR.dtype)], axis=1)


def _where(real: jax.Array, x: jax.Array) -> jax.Array:
    """x where tokens are real, else 0: what memory holds behind the last token may be no number."""
    return jnp.where(real, x, jnp.zeros_like(x))


def _under(x_KT: jax.Array, *rows: Any) -> jax.Array:
    """x and under it rows of numbers, [1, T] or one for all, and of zeros: [K + ROWS, T]."""
    index = jax.lax.broadcasted_iota(jnp.int32, (ROWS, x_KT.shape[1]), 0)
    added = jnp.zeros(index.shape, jnp.float32)
    for i, row in enumerate(rows):
        added = jnp.where(index == i, jnp.asarray(row, jnp.float32), added)
    return jnp.concatenate([x_KT, added.astype(x_KT.dtype)])


def _terms(x: jax.Array, dtype: Any) -> list[jax.Array]:
    """Three numbers of a dtype whose sum is x, nearly to the precision of float32."""
    terms = []
    for _ in range(3):
        terms.append(x.astype(dtype).astype(jnp.float32))
        x = x - terms[-1]
    return terms


def _lengths(x_KT: jax.Array) -> jax.Array:
    return jnp.sqrt((x_KT.astype(jnp.float32) ** 2).sum(axis=0, keepdims=True))


Sums = tuple[list[jax.Array], list[jax.Array]]


def _summed(
    group: _Group, queries: list[jax.Array], keys_ref: Ref, values_ref: Ref, longest_ref: Ref
) -> Sums:
    """Sums of weighted values and of weights, [K + ROWS, Q], and what was subtracted, [1, Q]."""
    by_largest = functools.partial(_by_largest, group, queries, keys_ref, values_ref)
    if group.tiles == 1:  # all scores are known at once
        return by_largest()
    bounds = [_lengths(q_KQ) * longest_ref[head] for head, q_KQ in enumerate(queries)]
    by_bounds = functools.partial(_by_bounds, group, queries, bounds, keys_ref, values_ref)
    is_safe = functools.reduce(jnp.maximum, bounds).max() < SAFE
    return jax.lax.cond(is_safe, by_bounds, by_largest)


def _by_bounds(
    group: _Group, queries: list[jax.Array], bounds: list[jax.Array], keys_ref: Ref, values_ref: Ref
) -> Sums:
    """As `_summed`, where a score is less than its bound, and not so much that weights vanish."""
    dtype = keys_ref.dtype
    subtracted = [(x - LARGEST).astype(dtype).astype(jnp.float32) for x in bounds]
    shifted = [_under(q, -m, 0, 0, 1) for q, m in zip(queries, subtracted, strict=True)]

    def tile(keys: Any, sums: list[jax.Array]) -> list[jax.Array]:
        scores = [dot(keys_ref[head, keys], q) for head, q in enumerate(shifted)]
        weights = [jnp.exp2(x).astype(dtype) for x in scores]
        return [x + dot(values_ref[i, :, keys], weights[i]) for i, x in enumerate(sums)]

    empty = jnp.zeros((values_ref.shape[1], bounds[0].shape[1]), jnp.float32)
    return group.through_tiles(keys_ref.shape[1], tile, [empty] * len(queries)), subtracted


def _by_largest(group: _Group, queries: list[jax.Array], keys_ref: Ref, values_ref: Ref) -> Sums:
    """As `_summed`, of any scores: weights are of the largest so far, and all of the last one."""
    shifted, columns = [_under(q, 0, 0, 0, 1) for q in queries], queries[0].shape[1]

    def tile(keys: Any, carry: Sums) -> Sums:
        scores = [dot(keys_ref[head, keys], q) for head, q in enumerate(shifted)]
        largest = [
            jnp.maximum(before, x.max(axis=0, keepdims=True))
            for x, before in zip(scores, carry[1], strict=True)
        ]
        weights = [
            jnp.exp2(x - most).astype(keys_ref.dtype)
            for x, most in zip(scores, largest, strict=True)
        ]
        sums = [
            x * jnp.exp2(before - most) + dot(values_ref[head, :, keys], weights[head])
            for head, (x, before, most) in enumerate(zip(*carry, largest, strict=True))
        ]
        return sums, largest

    empty = jnp.zeros((values_ref.shape[1], columns), jnp.float32)
    least = jnp.full((1, columns), HIDDEN)
    carry = [empty] * len(queries), [least] * len(queries)
    return group.through_tiles(keys_ref.shape[1], tile, carry)


def forward(
    refs: Operands,
    outputs: Outputs,
    keys_ref: Ref,
    values_ref: Ref,
    longest_ref: Ref,
    *,
    shape: Shape,
) -> None:
    """Results of a tile of queries.

    What is made of the keys for the first tile is there for all: `keys_ref` [heads, T, K + ROWS],
    `values_ref` [heads, K + ROWS, T], both without the columns that fill a register, and
    `longest_ref` [heads], the largest norm.
    """
    group, tokens = _Group(refs, shape, len(keys_ref)), keys_ref.shape[1]
    heads, K = group.heads, shape.head_dim

    @group.at_tile(0)
    def start() -> None:
        for head in heads:
            k_KT = _where(group.real_T, group.keys(head).result)
            longest_ref[head] = _lengths(k_KT).max()
            keys_ref[head] = _of_scores(k_KT, group.real_T)[:tokens]
            values_ref[head] = _under(group.values(head), 1)[:, :tokens]

    queries = [_where(group.real_Q, group.queries(head).result) for head in heads]
    sums, subtracted = _summed(group, queries, keys_ref, values_ref, longest_ref)
    totals = [x[K : K + 1] for x in sums]
    results = [
        _where(group.real_Q, x[:K] * (1 / total)) for x, total in zip(sums, totals, strict=True)
    ]
    _write(results, outputs.out, (0,), outputs.out_few, (0,))
    if outputs.log_sums is not None:
        for head in heads:
            log_sum_1Q = subtracted[head] + jnp.log2(totals[head])
            outputs.log_sums[0, 0, head : head + 1] = log_sum_1Q


def backward(
    refs: Operands,
    gradients: Gradients,
    keys_ref: Ref,
    keys_KT_ref: Ref,
    values_ref: Ref,
    dkeys_ref: Ref,
    dvalues_ref: Ref,
    *,
    shape: Shape,
) -> None:
    """Gradients from a tile of queries; those of keys and values are whole after the last.

    What is made for the first tile: `keys_ref` and `values_ref`, [heads, T, K + ROWS] without the
    columns that fill a register, `keys_KT_ref` [heads, K, T] and the sums of gradients.
    """
    group, tokens, dtype = _Group(refs, shape, len(keys_ref)), keys_ref.shape[1], keys_ref.dtype
    heads = group.heads

    @pl.when((pl.program_id(2) == 0) & (pl.program_id(1) == 0))
    def first_group() -> None:
        gradients.norms[...] = jnp.zeros_like(gradients.norms)

    @group.at_tile(0)
    def start() -> None:
        for head in heads:
            k_KT = _where(group.real_T, group.keys(head).result)
            keys_ref[head] = _of_scores(k_KT, group.real_T)[:tokens]
            keys_KT_ref[head] = k_KT[:, :tokens]
            values_ref[head] = _under(group.values(head), 1, 1, 1).T[:tokens]
        dkeys_ref[...] = jnp.zeros_like(dkeys_ref)
        dvalues_ref[...] = jnp.zeros_like(dvalues_ref)

    queries = [group.queries(head) for head in heads]
    q_KQ = [_where(group.real_Q, q.result) for q in queries]
    do_KQ = [group.results(head, refs.dout, refs.dout_few) for head in heads]
    of_scores, of_dweights = [], []
    for head in heads:
        o_KQ = group.results(head, refs.out, refs.out_few).astype(jnp.float32)
        mean_1Q = (o_KQ * do_KQ[head].astype(jnp.float32)).sum(axis=0, keepdims=True)
        log_sum_1Q = _where(group.real_Q, refs.log_sums[0, 0, head : head + 1])
        of_scores.append(_under(q_KQ[head], *_terms(-log_sum_1Q, dtype), 1))
        of_dweights.append(_under(do_KQ[head], *_terms(-mean_1Q, dtype)))

    def tile(keys: Any, dqueries: list[jax.Array]) -> list[jax.Array]:
        scores = [dot(keys_ref[head, keys], of_scores[head]) for head in heads]
        dweights = [dot(values_ref[head, keys], of_dweights[head]) for head in heads]
        weights = [jnp.exp2(x) for x in scores]
        dscores = [(w * d).astype(dtype) for w, d in zip(weights, dweights, strict=True)]
        for head in heads:
            dvalues_ref[head, :, keys] += dot(do_KQ[head], weights[head].astype(dtype), 1)
            dkeys_ref[head, :, keys] += dot(q_KQ[head], dscores[head], 1)
        return [dqueries[head] + dot(keys_KT_ref[head, :, keys], dscores[head]) for head in heads]

    empty = jnp.zeros(q_KQ[0].shape, jnp.float32)
    dqueries = group.through_tiles(tokens, tile, [empty] * len(heads))
    backs = [q.back(dq * math.log(2)) for q, dq in zip(queries, dqueries, strict=True)]
    dqueries = [_where(group.real_Q, dq) for dq, _ in backs]
    _write(dqueries, gradients.image, (0, 0), gradients.few, (0, 0), group.tile)
    _add_to_norms(gradients.norms, 0, group.real_Q, [dnorm for _, dnorm in backs])

    @group.at_tile(group.tiles - 1)
    def end() -> None:
        backs = [group.keys(head).back(dkeys_ref[head] * math.log(2)) for head in heads]
        dkeys = [_where(group.real_T, dk) for dk, _ in backs]
        _write(dkeys, gradients.image, (0, 1), gradients.few, (0, 1))
        _write(
            [dvalues_ref[head] for head in heads], gradients.image, (0, 2), gradients.few, (0, 2)
        )
        _add_to_norms(gradients.norms, 2, group.real_T, [dnorm for _, dnorm in backs])


def _of_scores(k_KT: jax.Array, real_1T: jax.Array) -> jax.Array:
    """Keys and the rows under them, by which queries are multiplied: [T, K + ROWS]."""
    return _under(k_KT, 1, 1, 1, jnp.where(real_1T, 0.0, HIDDEN)).T


def _write(
    by_head: list[jax.Array],
    image: Ref,
    at: tuple[int, ...],
    few: Ref | None,
    at_few: tuple[int, ...],
    columns: Any = slice(None),
) -> None:
    """[K, T] of each head to a block of image tokens, and what is left to that of the few."""
    x_WT = jnp.concatenate(by_head)
    if few is None:
        image[(*at, slice(None), columns)] = x_WT.astype(image.dtype)
        return
    L, R = image.shape[-1], few.shape[-2]
    image[at] = x_WT[:, :L].astype(image.dtype)
    few[at_few] = x_WT[:, L : L + R].T.astype(few.dtype)


def _add_to_norms(
    ref: Ref, row: int, real: jax.Array, by_head: list[tuple[jax.Array, jax.Array]]
) -> None:
    """Add gradients of scale and bias at every token to sums in as many columns as a register."""
    for i, dnorms in enumerate(zip(*by_head, strict=True)):
        dnorm = _where(real, sum(dnorms))
        ref[0, 0, row + i] += sum(dnorm[:, j : j + LANES] for j in range(0, dnorm.shape[1], LANES))
