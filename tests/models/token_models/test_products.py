import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.token_models import products
from maskgil_jax.models.token_models.llama_layers import EQUATIONS
from maskgil_jax.models.token_models.products import product


@pytest.mark.parametrize(
    "equation, of_x, of_y",
    [
        ("BSD,DCHK->BSCHK", (2, 3, 4), (4, 3, 2, 5)),
        ("BHST,BTHK->BSHK", (2, 3, 4, 5), (2, 5, 3, 6)),
    ],
)
def test_a_product_and_its_gradients_are_those_of_einsum(equation, of_x, of_y):
    x, y = jax.random.normal(jax.random.key(0), of_x), jax.random.normal(jax.random.key(1), of_y)

    def loss(function):
        return lambda x, y: (function(equation, x, y) ** 3).sum()

    found = jax.value_and_grad(loss(product), argnums=(0, 1))(x, y)
    expected = jax.value_and_grad(loss(jnp.einsum), argnums=(0, 1))(x, y)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_a_product_of_bfloat16_is_rounded_once_and_its_gradients_are_bfloat16():
    x, y = (jax.random.normal(k, (300, 300)) for k in jax.random.split(jax.random.key(0)))
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64) @ np.asarray(y, np.float64)
    found = np.asarray(product("ab,bc->ac", x, y), np.float64)
    assert np.abs(found - exact).max() <= 2**-8 * np.abs(exact).max()
    grads = jax.grad(lambda x, y: product("ab,bc->ac", x, y).astype(jnp.float32).sum(), (0, 1))
    assert {g.dtype.name for g in grads(x, y)} == {"bfloat16"}


@pytest.mark.parametrize("equation", EQUATIONS.values())
def test_a_transposed_operand_gives_the_same_product(equation):
    sizes = dict(B=2, S=3, D=8, C=2, H=4, G=2, K=5, F=6)
    of_x, of_y = equation.split("->")[0].split(",")
    x, y = (
        jax.random.normal(jax.random.key(i), [sizes[letter] for letter in letters])
        for i, letters in enumerate((of_x, of_y))
    )
    found = products.product_of_transposed(equation, x, products.transposed(equation, y))
    np.testing.assert_allclose(found, products.product(equation, x, y), atol=1e-5)
