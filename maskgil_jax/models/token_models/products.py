"""Matrix products with sums in float32, and what is saved of them for the backward pass."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from maskgil_jax.models.token_models import platforms
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
    return saved(_rounded(equation, x, y, dtype or x.dtype), "product"), (x, y)


def _product_backward(
    equation: str, dtype: Any, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y = operands
    x_letters, y_letters, result = _letters(equation)
    gradient = gradient.astype(x.dtype)
    if platforms.current().materializes_shared:
        gradient = materialized(gradient)
    dx = product(f"{result},{y_letters}->{x_letters}", gradient, y)
    dy = _gradient_of_matrix(x_letters, result, y_letters, x, gradient)
    return dx, dy


def _gradient_of_matrix(
    x_letters: str, result: str, y_letters: str, x: jax.Array, gradient: jax.Array
) -> jax.Array:
    """dy of `product`, summed over the letters that y lacks."""
    in_all = set(x_letters) & set(result) & set(y_letters)
    exchanged = platforms.current().transposes_first_operand and x.size > gradient.size
    if in_all or not exchanged:
        return product(f"{x_letters},{result}->{y_letters}", x, gradient)
    columns = "".join(letter for letter in y_letters if letter in result)
    rows = "".join(letter for letter in y_letters if letter in x_letters)
    # Stored before it is transposed: XLA would exchange the operands again.
    dy = materialized(product(f"{result},{x_letters}->{columns}{rows}", gradient, x))
    return jnp.einsum(f"{columns}{rows}->{y_letters}", dy)


product.defvjp(_product_forward, _product_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product_of_parts(
    equations: tuple[str, ...], parts: tuple[jax.Array, ...], y: jax.Array
) -> tuple[jax.Array, ...]:
    """`product` of each part of a sequence with the same matrix.

    The gradient of the matrix is summed in float32 over all parts and then over devices: it is
    rounded once, and exchanged once.

    Args:
      equations: of each part.
      parts: [B, ...] each.
      y: the matrix, split over devices by its dimension D, the width of the model.
    """
    return tuple(_rounded(e, x, y, x.dtype) for e, x in zip(equations, parts, strict=True))


def _parts_forward(
    equations: tuple[str, ...], parts: tuple[jax.Array, ...], y: jax.Array
) -> tuple[tuple[jax.Array, ...], tuple[tuple[jax.Array, ...], jax.Array]]:
    outputs = product_of_parts(equations, parts, y)
    return tuple(saved(x, "product") for x in outputs), (parts, y)


def _parts_backward(
    equations: tuple[str, ...],
    operands: tuple[tuple[jax.Array, ...], jax.Array],
    gradients: tuple[jax.Array, ...],
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    parts, y = operands
    gradients = tuple(g.astype(x.dtype) for g, x in zip(gradients, parts, strict=True))
    if platforms.current().materializes_shared:
        gradients = tuple(map(materialized, gradients))
    dparts, to_matrix = [], []
    for equation, gradient in zip(equations, gradients, strict=True):
        x_letters, y_letters, result = _letters(equation)
        dparts.append(product(f"{result},{y_letters}->{x_letters}", gradient, y))
        to_matrix.append(f"{x_letters},{result}->{y_letters}")

    def summed(_: None, parts: Any, gradients: Any) -> tuple[jax.Array, None]:
        return functools.reduce(jnp.add, map(einsum_float32, to_matrix, parts, gradients)), None

    split = _letters(equations[0])[1].index("D")
    dy, _ = sharding.sum_over_devices(summed, split, None, parts, gradients)
    return tuple(dparts), dy.astype(y.dtype)


product_of_parts.defvjp(_parts_forward, _parts_backward)


def _rounded(equation: str, x: jax.Array, y: jax.Array, dtype: Any) -> jax.Array:
    if platforms.current().rounds_in_products:
        return jnp.einsum(equation, x, y, preferred_element_type=dtype)
    return einsum_float32(equation, x, y).astype(dtype)


def einsum_float32(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`einsum` with a float32 result, whatever the operands."""
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _letters(equation: str) -> tuple[str, str, str]:
    inputs, result = equation.split("->")
    x_letters, y_letters = inputs.split(",")
    return x_letters, y_letters, result


def saved(x: jax.Array, name: str) -> jax.Array:
    """x, named for the policy that says what is saved for the backward pass (layers.saves)."""
    if x.dtype != jnp.bfloat16 or not platforms.current().saves_bfloat16_as_bits:
        return checkpoint_name(x, name)
    bits = checkpoint_name(jax.lax.bitcast_convert_type(x, jnp.uint16), name)
    return jax.lax.bitcast_convert_type(bits, jnp.bfloat16)


def materialized(x: jax.Array) -> jax.Array:
    """x, computed once for all that read it, where XLA would rather compute it for each of them."""
    return jax.lax.optimization_barrier(x)


@jax.custom_vjp
def read_often(x: jax.Array) -> jax.Array:
    """x, which several products read; its gradient is free to be joined with theirs."""
    return materialized(x) if platforms.current().materializes_shared else x


read_often.defvjp(lambda x: (read_often(x), None), lambda _, gradient: (gradient,))
