"""Matrix products with sums in float32, and attention made of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`einsum` of two arrays of one dtype, summed in float32, rounded to that dtype once.

    XLA's CPU backend multiplies bfloat16 at twice the speed of float32 only when the result is
    float32; its derivative, left to JAX, would multiply in float32.

    Args:
      equation: with every letter of an operand in the other or in the result.
    """
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32).astype(x.dtype)


def _forward(
    equation: str, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(equation, x, y), (x, y)


def _backward(
    equation: str, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y = operands
    inputs, result = equation.split("->")
    of_x, of_y = inputs.split(",")
    return (
        product(f"{result},{of_y}->{of_x}", gradient.astype(y.dtype), y).astype(x.dtype),
        product(f"{of_x},{result}->{of_y}", x, gradient.astype(x.dtype)).astype(y.dtype),
    )


product.defvjp(_forward, _backward)


def attention_dtype(dtype: Any) -> Any:
    """What queries, keys and values are multiplied in.

    That of the computation; but the CPU backend has no bfloat16 products of some of the layouts
    that come up there, and multiplies few rows of float32 three times as fast as those it has.
    """
    return jnp.float32 if jax.default_backend() == "cpu" else dtype


def attention(
    q_BSHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Softmax attention, scaled by K^-1/2, with the softmax in float32: [B, S, H, K].

    `mask` is bool [B or 1, 1, S, T], true where a query may see a key; None: everywhere.
    """
    dtype = attention_dtype(q_BSHK.dtype)
    k_BHTK, v_BHTK = (x.transpose(0, 2, 1, 3).astype(dtype) for x in (k_BTHK, v_BTHK))
    return cached_attention(q_BSHK, k_BHTK, v_BHTK, mask)


def cached_attention(
    q_BSHK: jax.Array, k_BHTK: jax.Array, v_BHTK: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """The same with keys and values that are laid out for few queries, in `attention_dtype`."""
    q = q_BSHK.astype(k_BHTK.dtype)
    scores_BHST = jnp.einsum("BSHK,BHTK->BHST", q, k_BHTK, preferred_element_type=jnp.float32)
    scores_BHST = scores_BHST * q_BSHK.shape[-1] ** -0.5
    if mask is not None:
        scores_BHST = jnp.where(mask, scores_BHST, jnp.finfo(jnp.float32).min)
    weights_BHST = jax.nn.softmax(scores_BHST, axis=-1).astype(v_BHTK.dtype)
    return product("BHST,BHTK->BSHK", weights_BHST, v_BHTK).astype(q_BSHK.dtype)


def attention_apart(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, images: slice
) -> jax.Array:
    """Attention of all tokens to all, with the image tokens' among themselves a product of its own.

    The same numbers as `attention`. The few condition tokens would make all arrays a little larger
    than a power of two, which costs much more than their share: a third of attention on TPUs, three
    quarters of it on CPUs.

    Args:
      images: where the image tokens stand; the others are all before or all behind them.
    """
    others = slice(0, images.start) if images.start else slice(images.stop, None)
    scale = q_BTHK.shape[-1] ** -0.5
    q_BLHK = q_BTHK[:, images]

    def scores(part: slice) -> jax.Array:
        found = jnp.einsum(
            "BLHK,BTHK->BHLT", q_BLHK, k_BTHK[:, part], preferred_element_type=jnp.float32
        )
        return found * scale

    of_images, of_others = scores(images), scores(others)
    largest = jnp.maximum(of_images.max(-1, keepdims=True), of_others.max(-1, keepdims=True))
    largest = jax.lax.stop_gradient(largest)
    of_images, of_others = jnp.exp(of_images - largest), jnp.exp(of_others - largest)
    total_BHL = of_images.sum(axis=-1) + of_others.sum(axis=-1)
    summed = sum(
        jnp.einsum(
            "BHLT,BTHK->BLHK",
            weights.astype(v_BTHK.dtype),
            v_BTHK[:, part],
            preferred_element_type=jnp.float32,
        )
        for weights, part in ((of_images, images), (of_others, others))
    )
    o_BLHK = (summed / total_BHL.transpose(0, 2, 1)[..., None]).astype(q_BTHK.dtype)
    o_BcHK = attention(q_BTHK[:, others], k_BTHK, v_BTHK)
    parts = [o_BcHK, o_BLHK] if images.start else [o_BLHK, o_BcHK]
    return jnp.concatenate(parts, axis=1)
