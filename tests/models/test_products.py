import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.products import attention, attention_apart, product


def heads(seed, count=3, shape=(2, 7, 3, 4)):
    return [jax.random.normal(k, shape) for k in jax.random.split(jax.random.key(seed), count)]


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
    x, y = heads(0, 2, (300, 300))
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64) @ np.asarray(y, np.float64)
    found = np.asarray(product("ab,bc->ac", x, y), np.float64)
    assert np.abs(found - exact).max() <= 2**-8 * np.abs(exact).max()
    grads = jax.grad(lambda x, y: product("ab,bc->ac", x, y).astype(jnp.float32).sum(), (0, 1))
    assert {g.dtype.name for g in grads(x, y)} == {"bfloat16"}


def test_attention_is_that_of_jax():
    q, k, v = heads(1)
    expected = jax.nn.dot_product_attention(q, k, v)
    np.testing.assert_allclose(attention(q, k, v), expected, atol=1e-6)
    mask = jnp.tril(jnp.ones((7, 7), bool))[None, None]
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask)
    np.testing.assert_allclose(attention(q, k, v, mask), expected, atol=1e-6)


@pytest.mark.parametrize("images", [slice(1, None), slice(3, 7), slice(0, -1), slice(0, 4)])
def test_image_tokens_apart_change_nothing(images):
    q, k, v = heads(2)

    def loss(function):
        return lambda *qkv: (function(*qkv) ** 2).sum(axis=(0, 2, 3))

    for vector in jnp.eye(7):
        found, expected = (
            jax.vjp(loss(function), q, k, v)
            for function in (lambda *a: attention_apart(*a, images), attention)
        )
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
        for a, b in zip(found[1](vector), expected[1](vector), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("batch, tokens, width", [(1, 13, 16), (3, 101, 64), (2, 257, 32)])
@pytest.mark.parametrize("images", [slice(1, None), slice(0, -1), slice(4, None)])
def test_attention_is_there_in_bfloat16_in_every_shape(batch, tokens, width, images):
    qkv = heads(3, shape=(batch, tokens, 2, width))

    def loss(function):
        return lambda *qkv: (function(*qkv).astype(jnp.float32) ** 2).sum()

    expected = jax.grad(loss(attention), argnums=(0, 1, 2))(*qkv)
    halves = [x.astype(jnp.bfloat16) for x in qkv]
    for function in (attention, lambda *qkv: attention_apart(*qkv, images)):
        found = jax.jit(jax.grad(loss(function), argnums=(0, 1, 2)))(*halves)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == jnp.bfloat16
            error = np.linalg.norm(np.asarray(a, np.float32) - b) / np.linalg.norm(b)
            assert error < 0.02
