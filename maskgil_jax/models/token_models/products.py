"""Matrix products with sums in float32, and attention made of them."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from maskgil_jax.runtime import sharding


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
    return _rounded(equation, x, y, dtype or x.dtype)


def _product_forward(
    equation: str, x: jax.Array, y: jax.Array, dtype: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return kept(_rounded(equation, x, y, dtype or x.dtype), "product"), (x, y)


def _product_backward(
    equation: str, dtype: Any, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y = operands
    of_x, of_y, result = _letters(equation)
    gradient = gradient.astype(x.dtype)
    if sharding.platform() == "tpu":  # as in `read_often`
        gradient = stored(gradient)
    return (
        product(f"{result},{of_y}->{of_x}", gradient, y),
        product(f"{of_x},{result}->{of_y}", x, gradient),
    )


product.defvjp(_product_forward, _product_backward)


def _rounded(equation: str, x: jax.Array, y: jax.Array, dtype: Any) -> jax.Array:
    if rounding_in_products_pays():
        return jnp.einsum(equation, x, y, preferred_element_type=dtype)
    return _einsum(equation, x, y).astype(dtype)


def rounding_in_products_pays() -> bool:
    """Whether to ask a product, whose sums are in float32 all the same, for the result's dtype.

    On GPUs, where nothing of what follows is fused into a product of a library.
    """
    return sharding.platform() == "gpu"


def turning_pays(dtype: Any) -> bool:
    """Whether `product_of_turned` is faster where x is a few rows: in float32 on the CPU."""
    return sharding.platform() == "cpu" and jnp.dtype(dtype) == jnp.float32


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
    """x, named for the policy that says what is kept for the backward pass (layers.keeps).

    Of bfloat16 the bits are: XLA's CPU backend would keep them as float32.
    """
    if x.dtype != jnp.bfloat16 or sharding.platform() != "cpu":
        return checkpoint_name(x, name)
    bits = checkpoint_name(jax.lax.bitcast_convert_type(x, jnp.uint16), name)
    return jax.lax.bitcast_convert_type(bits, jnp.bfloat16)


def stored(x: jax.Array) -> jax.Array:
    """x, made once for all that read it, where XLA would rather make it anew for each of them."""
    return jax.lax.optimization_barrier(x)


@jax.custom_vjp
def read_often(x: jax.Array) -> jax.Array:
    """x, which several products read; its gradient is free to be joined with theirs.

    On TPUs it is stored: joined with a product, each tile of it would make its rows anew.
    """
    return stored(x) if sharding.platform() == "tpu" else x


read_often.defvjp(lambda x: (read_often(x), None), lambda _, gradient: (gradient,))


def cache_dtype(dtype: Any) -> Any:
    """What keys and values are kept in for decoding token by token.

    That of the computation; but XLA's CPU backend multiplies few rows of float32 three times as
    fast as those of bfloat16.
    """
    return jnp.float32 if sharding.platform() == "cpu" else dtype


def attention(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, boundary: int = 0
) -> jax.Array:
    """`attention_cut` of arrays in the order of their products, [B, T, H, K]."""
    q_BHTK, k_BHTK, v_BHTK = (x.transpose(0, 2, 1, 3) for x in (q_BTHK, k_BTHK, v_BTHK))
    return attention_cut(q_BHTK, k_BHTK, v_BHTK, boundary=boundary).transpose(0, 2, 1, 3)


def attention_cut(
    q_BHTK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    mask: jax.Array | None = None,
    boundary: int = 0,
) -> jax.Array:
    """`attention_of_parts` of a sequence in one piece, [B, H, T, K].

    Args:
      q_BHTK, k_BHTK, v_BHTK: queries, keys and values.
      mask: as there.
      boundary: between the image tokens and the few others, where to cut; 0: nowhere.
    """
    if fused_attention_pays(q_BHTK, mask):
        return fused_attention(q_BHTK, k_BHTK, v_BHTK, mask)
    cuts = [boundary] if boundary else []
    parts = (tuple(jnp.split(x, cuts, axis=2)) for x in (q_BHTK, k_BHTK, v_BHTK))
    return jnp.concatenate(attention_of_parts(*parts, mask), axis=2)


def fused_attention_pays(q_BHTK: jax.Array, mask: jax.Array | None) -> bool:
    """Whether cuDNN's FlashAttention can, and then should, do it: in bfloat16, from Ampere on."""
    if sharding.platform() != "gpu" or q_BHTK.dtype != jnp.bfloat16:
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


def parts_pay() -> bool:
    """Whether a sequence runs in parts through whole layers, not only through attention.

    On TPUs; elsewhere the few others in products of their own cost more than they save.
    """
    return sharding.platform() == "tpu"


Parts = tuple[jax.Array, ...]  # of one sequence: arrays that differ in the length of one axis


@jax.custom_vjp
def attention_of_parts(
    queries: Parts, keys: Parts, values: Parts, mask: jax.Array | None = None
) -> Parts:
    """Softmax attention of a sequence that is cut into parts, with heads first: [B, H, s, K] each.

    The parts are products of their own, which changes no number: image tokens, a power of two, and
    the few others together would make all arrays a little larger than a power of two, at a third
    of the cost of attention on TPUs and more on CPUs.

    The derivative makes the weights anew from the logarithm of their sum, as FlashAttention (Dao et
    al. 2022, section 3.1) does: no array of S x T is kept for it.

    Args:
      queries: [B, H, s, K] each, S tokens in all.
      keys, values: [B, H, t, K] each, T tokens in all.
      mask: bool [B or 1, 1, S, T], true where a query may see a key; None: everywhere.
    """
    return _attention_forward(queries, keys, values, mask)[0]


def _attention_forward(
    queries: Parts, keys: Parts, values: Parts, mask: jax.Array | None
) -> tuple[Parts, Any]:
    outputs, log_sums = [], []
    for q_BHsK, scores in zip(queries, _scores(queries, keys, mask), strict=True):
        largest = functools.reduce(jnp.maximum, [s.max(axis=-1) for s in scores])
        weights = [jnp.exp(s - largest[..., None]) for s in scores]
        total_BHs = functools.reduce(jnp.add, [w.sum(axis=-1) for w in weights])
        summed = [
            _einsum("BHst,BHtK->BHsK", w.astype(v.dtype), v)
            for w, v in zip(weights, values, strict=True)
        ]
        o_BHsK = functools.reduce(jnp.add, summed) / total_BHs[..., None]
        outputs.append(kept(o_BHsK.astype(q_BHsK.dtype), "attention"))
        log_sums.append(kept(largest + jnp.log(total_BHs), "attention"))
    return tuple(outputs), (queries, keys, values, mask, outputs, log_sums)


def _attention_backward(kept: Any, gradients: Parts) -> tuple[Parts, Parts, Parts, None]:
    queries, keys, values, mask, outputs, log_sums = kept
    scale = queries[0].shape[-1] ** -0.5
    of_queries, of_keys, of_values = [], [], []
    for q, g, o, log_sum, scores in zip(
        queries, gradients, outputs, log_sums, _scores(queries, keys, mask), strict=True
    ):
        # Of the softmax: sum over keys of weights times their gradients.
        mean_BHs = (o.astype(jnp.float32) * g).sum(axis=-1)
        weights = [jnp.exp(s - log_sum[..., None]) for s in scores]
        of_scores = [
            (w * (_einsum("BHsK,BHtK->BHst", g, v) - mean_BHs[..., None])).astype(q.dtype)
            for w, v in zip(weights, values, strict=True)
        ]
        summed = [_einsum("BHst,BHtK->BHsK", d, k) for d, k in zip(of_scores, keys, strict=True)]
        of_queries.append((functools.reduce(jnp.add, summed) * scale).astype(q.dtype))
        of_keys.append([_einsum("BHst,BHsK->BHtK", d, q) * scale for d in of_scores])
        of_values.append([_einsum("BHst,BHsK->BHtK", w.astype(g.dtype), g) for w in weights])

    def summed_over_queries(by_query: list[list[jax.Array]], like: Parts) -> Parts:
        by_key = zip(*by_query, like, strict=True)
        return tuple(functools.reduce(jnp.add, part).astype(x.dtype) for *part, x in by_key)

    return (
        tuple(of_queries),
        summed_over_queries(of_keys, keys),
        summed_over_queries(of_values, values),
        None,
    )


attention_of_parts.defvjp(_attention_forward, _attention_backward)


def _scores(queries: Parts, keys: Parts, mask: jax.Array | None) -> list[list[jax.Array]]:
    """Scaled and masked scores of each part of the queries with each part of the keys, float32."""
    scores, row = [], 0
    for q in queries:
        of_keys, column = [], 0
        for k in keys:
            s = _einsum("BHsK,BHtK->BHst", q, k) * q.shape[-1] ** -0.5
            if mask is not None:
                seen = mask[:, :, row : row + q.shape[2], column : column + k.shape[2]]
                s = jnp.where(seen, s, jnp.finfo(s.dtype).min)
            of_keys.append(s)
            column += k.shape[2]
        scores.append(of_keys)
        row += q.shape[2]
    return scores


def _einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
