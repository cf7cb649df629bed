"""Softmax attention made of products, over a sequence that may be split into parts.

Letters: B batch, H heads, G heads of keys, K head dimension, T tokens of the sequence, S queries of
it, s and t queries and keys of one part.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from maskgil_jax.models.token_models import platforms
from maskgil_jax.models.token_models.products import einsum_float32, saved

Parts = tuple[jax.Array, ...]  # of one sequence, in its order: they differ in the length of an axis

# Scores of one image and head that exist at a time: those of 1,024 image tokens and 1,024 others.
SCORES = 2**21


def attention(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, boundary: int = 0
) -> jax.Array:
    """`attention_heads_first` of arrays in the order of their products, [B, T, H, K]."""
    q_BHTK, k_BHTK, v_BHTK = (x.transpose(0, 2, 1, 3) for x in (q_BTHK, k_BTHK, v_BTHK))
    o_BHTK = attention_heads_first(q_BHTK, k_BHTK, v_BHTK, boundary=boundary)
    return o_BHTK.transpose(0, 2, 1, 3)


def attention_heads_first(
    q_BHTK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    mask: jax.Array | None = None,
    boundary: int = 0,
) -> jax.Array:
    """Softmax attention by what is fastest on the platform, [B, H, T, K].

    Args:
      q_BHTK, k_BHTK, v_BHTK: queries, keys and values; without a boundary these may have fewer
        heads, as in `grouped_attention`.
      mask: as in `attention_of_parts`.
      boundary: between the image tokens and the few others, where to split; 0: nowhere.
    """
    if cudnn_fits(q_BHTK, mask):
        return fused_attention(q_BHTK, k_BHTK, v_BHTK, mask)
    if not boundary:
        return grouped_attention(q_BHTK, k_BHTK, v_BHTK, mask)
    parts = (tuple(jnp.split(x, [boundary], axis=2)) for x in (q_BHTK, k_BHTK, v_BHTK))
    return jnp.concatenate(attention_of_parts(*parts, mask), axis=2)


def grouped_attention(
    q_BHSK: jax.Array, k_BGTK: jax.Array, v_BGTK: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Softmax attention, [B, H, S, K], where H / G heads of queries share one of keys and values.

    Args:
      q_BHSK, k_BGTK, v_BGTK: queries, keys and values.
      mask: as in `attention_of_parts`.
    """
    (B, H, S, K), G = q_BHSK.shape, k_BGTK.shape[1]
    if H != G:  # the heads that share keys are further rows of one product
        q_BHSK = q_BHSK.reshape(B, G, H // G * S, K)
        mask = None if mask is None else jnp.tile(mask, (1, 1, H // G, 1))
    (o_BHSK,) = attention_of_parts((q_BHSK,), (k_BGTK,), (v_BGTK,), mask)
    return o_BHSK.reshape(B, H, S, K)


def cudnn_fits(q_BHTK: jax.Array, mask: jax.Array | None) -> bool:
    """Whether cuDNN's FlashAttention can, and then should, do it: in bfloat16, from Ampere on."""
    if platforms.current().fused_attention != "cudnn" or q_BHTK.dtype != jnp.bfloat16:
        return False
    tokens, head_dim = q_BHTK.shape[2:]
    fits = head_dim % 8 == 0 and head_dim <= 128 and (mask is None or tokens % 2 == 0)
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))  # AMD: "gfx90a"
    return fits and capability[:1].isdigit() and float(capability) >= 8.0


def fused_attention(
    q_BHTK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    mask: jax.Array | None = None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Softmax attention in one kernel, [B, H, T, K]; with a `mask` of an even length T only."""
    B, _, T, _ = q_BHTK.shape
    odd = T % 2  # cuDNN's derivative is of even lengths
    widths = ((0, 0), (0, odd), (0, 0), (0, 0))
    q_BTHK, k_BTHK, v_BTHK = (
        jnp.pad(x.transpose(0, 2, 1, 3), widths) for x in (q_BHTK, k_BHTK, v_BHTK)
    )
    o_BTHK = jax.nn.dot_product_attention(
        q_BTHK,
        k_BTHK,
        v_BTHK,
        mask=mask,
        key_value_seq_lengths=jnp.full(B, T, jnp.int32) if odd else None,
        implementation=implementation,
    )
    return o_BTHK[:, :T].transpose(0, 2, 1, 3)


@jax.custom_vjp
def attention_of_parts(
    queries: Parts, keys: Parts, values: Parts, mask: jax.Array | None = None
) -> Parts:
    """Softmax attention of a sequence in parts, with heads first: [B, H, s, K] each.

    The parts are products of their own, which changes no number: image tokens, a power of two, and
    the few others together would make all arrays a little larger than a power of two, at a third
    of the cost of attention on TPUs and more on CPUs.

    Where nothing is differentiated, as in sampling, thousands of queries are done in chunks, so
    that no array of S x T exists; this changes numbers by their rounding at most.

    The derivative recomputes the weights from the logarithm of their sum, as FlashAttention (Dao et
    al. 2022, section 3.1) does: no array of S x T is saved for it.

    Args:
      queries: [B, H, s, K] each, S tokens in all.
      keys, values: [B, H, t, K] each, T tokens in all.
      mask: bool [B or 1, 1, S, T], true where a query may see a key; None: everywhere.
    """
    attended = _attended(_in_chunks, queries, keys, values, mask)
    return tuple(o_BHsK for o_BHsK, _ in attended)


def _forward(
    queries: Parts, keys: Parts, values: Parts, mask: jax.Array | None
) -> tuple[Parts, Any]:
    # The derivative holds all scores anyway, and whole they are faster.
    attended = _attended(_of_queries, queries, keys, values, mask)
    outputs, log_sums = (
        [saved(x, "attention") for x in one] for one in zip(*attended, strict=True)
    )
    return tuple(outputs), (queries, keys, values, mask, outputs, log_sums)


def _attended(
    attend: Callable[..., tuple[jax.Array, jax.Array]],
    queries: Parts,
    keys: Parts,
    values: Parts,
    mask: jax.Array | None,
) -> list[tuple[jax.Array, jax.Array]]:
    """What `attend`, _of_queries or the same in chunks, gives for each part of the queries."""
    attended, row = [], 0
    for q_BHsK in queries:
        rows = None if mask is None else mask[:, :, row : row + q_BHsK.shape[2]]
        attended.append(attend(q_BHsK, keys, values, rows))
        row += q_BHsK.shape[2]
    return attended


def _in_chunks(
    q_BHsK: jax.Array, keys: Parts, values: Parts, mask_BHsT: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """`_of_queries`, a chunk of them after another where all their scores would be too many."""
    s, T = q_BHsK.shape[2], sum(k.shape[2] for k in keys)
    chunks = 1
    while -(-s // chunks) * T > SCORES:
        chunks *= 2
    if chunks == 1:
        return _of_queries(q_BHsK, keys, values, mask_BHsT)

    def split(x: jax.Array) -> jax.Array:
        length = -(-s // chunks)
        x = jnp.pad(x, ((0, 0), (0, 0), (0, chunks * length - s), (0, 0)))
        return jnp.moveaxis(x.reshape(*x.shape[:2], chunks, length, x.shape[3]), 2, 0)

    def joined(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 2)
        return x.reshape(*x.shape[:2], -1, *x.shape[4:])[:, :, :s]

    def attend(chunk: tuple[jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
        return _of_queries(chunk[0], keys, values, chunk[1])

    masks = None if mask_BHsT is None else split(mask_BHsT)
    o, log_sum = jax.lax.map(attend, (split(q_BHsK), masks))
    return joined(o), joined(log_sum)


def _of_queries(
    q_BHsK: jax.Array, keys: Parts, values: Parts, mask_BHsT: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Attention of some queries, [B, H, s, K], and the logarithm of their weights' sum."""
    (scores,) = _scores((q_BHsK,), keys, mask_BHsT)
    largest = functools.reduce(jnp.maximum, [s.max(axis=-1) for s in scores])
    weights = [jnp.exp(s - largest[..., None]) for s in scores]
    total_BHs = functools.reduce(jnp.add, [w.sum(axis=-1) for w in weights])
    summed = [
        einsum_float32("BHst,BHtK->BHsK", w.astype(v.dtype), v)
        for w, v in zip(weights, values, strict=True)
    ]
    o_BHsK = functools.reduce(jnp.add, summed) / total_BHs[..., None]
    return o_BHsK.astype(q_BHsK.dtype), largest + jnp.log(total_BHs)


def _backward(residuals: Any, gradients: Parts) -> tuple[Parts, Parts, Parts, None]:
    queries, keys, values, mask, outputs, log_sums = residuals
    scale = queries[0].shape[-1] ** -0.5
    dqueries, dkeys, dvalues = [], [], []  # of keys and values: by the part of the queries
    for q, do, o, log_sum, scores in zip(
        queries, gradients, outputs, log_sums, _scores(queries, keys, mask), strict=True
    ):
        # Of the softmax: sum over keys of weights times their gradients.
        mean_BHs = (o.astype(jnp.float32) * do).sum(axis=-1)
        weights = [jnp.exp(s - log_sum[..., None]) for s in scores]
        dscores = [
            (w * (einsum_float32("BHsK,BHtK->BHst", do, v) - mean_BHs[..., None])).astype(q.dtype)
            for w, v in zip(weights, values, strict=True)
        ]
        dq = [einsum_float32("BHst,BHtK->BHsK", ds, k) for ds, k in zip(dscores, keys, strict=True)]
        dqueries.append((functools.reduce(jnp.add, dq) * scale).astype(q.dtype))
        dkeys.append([einsum_float32("BHst,BHsK->BHtK", ds, q) * scale for ds in dscores])
        dvalues.append([einsum_float32("BHst,BHsK->BHtK", w.astype(do.dtype), do) for w in weights])
    return tuple(dqueries), _summed(dkeys, keys), _summed(dvalues, values), None


def _summed(by_query: list[list[jax.Array]], like: Parts) -> Parts:
    """Gradients of each part of the keys, summed over the parts of the queries."""
    by_key = zip(*by_query, like, strict=True)
    return tuple(functools.reduce(jnp.add, part).astype(x.dtype) for *part, x in by_key)


attention_of_parts.defvjp(_forward, _backward)


def _scores(queries: Parts, keys: Parts, mask: jax.Array | None) -> list[list[jax.Array]]:
    """Scaled and masked scores of each part of the queries with each part of the keys, float32."""
    scores, row = [], 0
    for q in queries:
        scores_of_q, column = [], 0
        for k in keys:
            s = einsum_float32("BHsK,BHtK->BHst", q, k) * q.shape[-1] ** -0.5
            if mask is not None:
                visible = mask[:, :, row : row + q.shape[2], column : column + k.shape[2]]
                s = jnp.where(visible, s, jnp.finfo(s.dtype).min)
            scores_of_q.append(s)
            column += k.shape[2]
        scores.append(scores_of_q)
        row += q.shape[2]
    return scores
