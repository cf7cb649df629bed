"""Matrix products with sums in float32, and attention made of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(equation: str, x: jax.Array, y: jax.Array, dtype: Any = None) -> jax.Array:
    """`einsum` of two arrays of one dtype, summed in float32 and rounded once.

    XLA's CPU backend multiplies bfloat16 at twice the speed of float32 only when the result is
    float32; its derivative, left to JAX, would multiply in float32.

    Args:
      equation: with every letter of an operand in the other or in the result.
      x, y: the operands.
      dtype: of the result; None: that of the operands. Gradients have the operands' in any case.
    """
    return _einsum(equation, x, y).astype(dtype or x.dtype)


def _product_forward(
    equation: str, x: jax.Array, y: jax.Array, dtype: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    found = _einsum(equation, x, y).astype(dtype or x.dtype)
    return kept(found, "product"), (x, y)


def _product_backward(
    equation: str, dtype: Any, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y = operands
    of_x, of_y, result = _letters(equation)
    gradient = gradient.astype(x.dtype)
    return (
        product(f"{result},{of_y}->{of_x}", gradient, y),
        product(f"{of_x},{result}->{of_y}", x, gradient),
    )


product.defvjp(_product_forward, _product_backward)


def turning_pays(dtype: Any) -> bool:
    """Whether `product_of_turned` is faster where x is a few rows: in float32 on the CPU."""
    return jax.default_backend() == "cpu" and jnp.dtype(dtype) == jnp.float32


def turned(equation: str, y: jax.Array) -> jax.Array:
    """The right operand of `product(equation, ...)` as `product_of_turned` takes it."""
    of_x, of_y, _ = _letters(equation)
    stays = [letter for letter in of_y if letter not in of_x]
    summed = [letter for letter in of_y if letter in of_x]
    # The barrier keeps XLA from folding the transposition into each product again.
    order = [of_y.index(letter) for letter in stays + summed]
    return jax.lax.optimization_barrier(y.transpose(order))


def product_of_turned(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`product(equation, x, y)` of a `turned` y, which comes first: without a derivative.

    XLA's CPU backend reads float32 weights 1.4 times as fast in this way where x is a few rows; in
    bfloat16 it does not.
    """
    of_x, of_y, result = _letters(equation)
    stays = "".join(letter for letter in of_y if letter not in of_x)
    summed = "".join(letter for letter in of_y if letter in of_x)
    rows = "".join(letter for letter in of_x if letter not in of_y)
    found = _einsum(f"{stays}{summed},{of_x}->{stays}{rows}", y, x)
    return jnp.einsum(f"{stays}{rows}->{result}", found).astype(x.dtype)


def _letters(equation: str) -> tuple[str, str, str]:
    inputs, result = equation.split("->")
    of_x, of_y = inputs.split(",")
    return of_x, of_y, result


def kept(x: jax.Array, name: str) -> jax.Array:
    """x, named for the policy that says what is kept for the backward pass (layers.KEPT).

    Of bfloat16 the bits are: XLA's CPU backend would keep them as float32.
    """
    if x.dtype != jnp.bfloat16:
        return checkpoint_name(x, name)
    bits = checkpoint_name(jax.lax.bitcast_convert_type(x, jnp.uint16), name)
    return jax.lax.bitcast_convert_type(bits, jnp.bfloat16)


def cache_dtype(dtype: Any) -> Any:
    """What keys and values are kept in for decoding token by token.

    That of the computation; but XLA's CPU backend multiplies few rows of float32 three times as
    fast as those of bfloat16.
    """
    return jnp.float32 if jax.default_backend() == "cpu" else dtype


def attention(
    q_BTHK: jax.Array,
    k_BTHK: jax.Array,
    v_BTHK: jax.Array,
    mask: jax.Array | None = None,
    boundary: int = 0,
) -> jax.Array:
    """Softmax attention of all tokens to all, scaled by K^-1/2, softmax in float32: [B, T, H, K].

    Args:
      q_BTHK, k_BTHK, v_BTHK: queries, keys and values.
      mask: bool [B or 1, 1, T, T], true where a query may see a key; None: everywhere.
      boundary: between the image tokens and the few others. The two sides are products of their
        own, which changes no number: together they would make all arrays a little larger than a
        power of two, at a third of the cost of attention on TPUs and more on CPUs.
    """
    T = q_BTHK.shape[1]
    parts = ((0, boundary), (boundary, T)) if boundary else ((0, T),)
    heads_first = (x.transpose(0, 2, 1, 3) for x in (q_BTHK, k_BTHK, v_BTHK))
    return heads_first_attention(*heads_first, mask, parts).transpose(0, 2, 1, 3)


Parts = tuple[tuple[int, int], ...]  # (start, stop) one after another, all tokens in all


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def heads_first_attention(
    q_BHSK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    mask: jax.Array | None,
    parts: Parts | None = None,
) -> jax.Array:
    """The same in the layout that products want; S may differ from T where there are no parts.

    The derivative makes the weights anew from the logarithm of their sum, as FlashAttention (Dao et
    al. 2022, section 3.1) does: no array of S x T is kept for it.
    """
    return _attention_forward(q_BHSK, k_BHTK, v_BHTK, mask, parts)[0]


def _attention_forward(
    q_BHSK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    mask: jax.Array | None,
    parts: Parts | None,
) -> tuple[jax.Array, Any]:
    outputs, log_sums = [], []
    values = _cut(v_BHTK, parts)
    for q_BHsK, scores in zip(
        _cut(q_BHSK, parts), _scores(q_BHSK, k_BHTK, mask, parts), strict=True
    ):
        largest = functools.reduce(jnp.maximum, [s.max(axis=-1) for s in scores])
        weights = [jnp.exp(s - largest[..., None]) for s in scores]
        total_BHs = functools.reduce(jnp.add, [w.sum(axis=-1) for w in weights])
        summed = [
            _einsum("BHst,BHtK->BHsK", w.astype(v.dtype), v)
            for w, v in zip(weights, values, strict=True)
        ]
        o_BHsK = functools.reduce(jnp.add, summed) / total_BHs[..., None]
        outputs.append(o_BHsK.astype(q_BHsK.dtype))
        log_sums.append(largest + jnp.log(total_BHs))
    o_BHSK = kept(jnp.concatenate(outputs, axis=2), "attention")
    log_sum_BHS = kept(jnp.concatenate(log_sums, axis=2), "attention")
    return o_BHSK, (q_BHSK, k_BHTK, v_BHTK, mask, o_BHSK, log_sum_BHS)


def _attention_backward(
    parts: Parts | None, kept: Any, gradient_BHSK: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q_BHSK, k_BHTK, v_BHTK, mask, o_BHSK, log_sum_BHS = kept
    keys, values = _cut(k_BHTK, parts), _cut(v_BHTK, parts)
    # Of the softmax: sum over keys of weights times their gradients.
    mean_BHS = (o_BHSK.astype(jnp.float32) * gradient_BHSK).sum(axis=-1)
    rows = [_cut(x, parts) for x in (q_BHSK, gradient_BHSK, log_sum_BHS, mean_BHS)]
    of_queries, of_keys, of_values = [], [], []
    for q, g, log_sum, mean, scores in zip(
        *rows, _scores(q_BHSK, k_BHTK, mask, parts), strict=True
    ):
        weights = [jnp.exp(s - log_sum[..., None]) for s in scores]
        of_scores = [
            (w * (_einsum("BHsK,BHtK->BHst", g, v) - mean[..., None])).astype(q.dtype)
            for w, v in zip(weights, values, strict=True)
        ]
        summed = [_einsum("BHst,BHtK->BHsK", d, k) for d, k in zip(of_scores, keys, strict=True)]
        of_queries.append(functools.reduce(jnp.add, summed))
        of_keys.append([_einsum("BHst,BHsK->BHtK", d, q) for d in of_scores])
        of_values.append([_einsum("BHst,BHsK->BHtK", w.astype(g.dtype), g) for w in weights])

    def joined(by_rows: list[list[jax.Array]]) -> jax.Array:
        by_columns = zip(*by_rows, strict=True)
        return jnp.concatenate([functools.reduce(jnp.add, part) for part in by_columns], axis=2)

    scale = q_BHSK.shape[-1] ** -0.5
    return (
        (jnp.concatenate(of_queries, axis=2) * scale).astype(q_BHSK.dtype),
        (joined(of_keys) * scale).astype(k_BHTK.dtype),
        joined(of_values).astype(v_BHTK.dtype),
        None,
    )


heads_first_attention.defvjp(_attention_forward, _attention_backward)


def _scores(
    q_BHSK: jax.Array, k_BHTK: jax.Array, mask: jax.Array | None, parts: Parts | None
) -> list[list[jax.Array]]:
    """Scaled and masked scores of each part of the queries with each part of the keys, float32."""
    masks: Any = None
    if mask is not None:
        masks = [_cut(rows, parts, axis=3) for rows in _cut(mask, parts)]
    scores = []
    for i, q in enumerate(_cut(q_BHSK, parts)):
        row = []
        for j, k in enumerate(_cut(k_BHTK, parts)):
            s = _einsum("BHsK,BHtK->BHst", q, k) * q.shape[-1] ** -0.5
            row.append(s if mask is None else jnp.where(masks[i][j], s, jnp.finfo(s.dtype).min))
        scores.append(row)
    return scores


def _cut(x: jax.Array, parts: Parts | None, axis: int = 2) -> list[jax.Array]:
    if parts is None:
        return [x]
    return [jax.lax.slice_in_dim(x, *part, axis=axis) for part in parts]


def _einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
