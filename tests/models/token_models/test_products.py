import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.models.token_models import products
from maskgil_jax.models.token_models.products import product
from maskgil_jax.runtime import sharding


@pytest.mark.parametrize(
    "equation, of_x, of_y",
    [
        ("BSD,DCHK->BSCHK", (2, 3, 4), (4, 3, 2, 5)),
        ("BHST,BTHK->BSHK", (2, 3, 4, 5), (2, 5, 3, 6)),
        ("BSF,FD->BSD", (2, 3, 8), (8, 3)),  # x is larger than the result
        ("BSHK,HKD->BSD", (2, 3, 4, 5), (4, 5, 6)),
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


PARTS = ("BSD,DHK->BSHK", "BSD,DHK->BHKS")  # as the kernel has its operands


@pytest.mark.parametrize("mesh", [dict(data=4, fsdp=2, tensor=1), dict(data=2, fsdp=2, tensor=2)])
def test_parts_of_a_sequence_have_one_gradient_that_is_exchanged_once(mesh):
    mesh = sharding.make_mesh(mesh)
    keys = jax.random.split(jax.random.key(0), 3)
    x, few, y = map(jax.random.normal, keys, [(16, 6, 8), (16, 1, 8), (8, 4, 5)])

    def loss(multiply, x, few, y):
        return sum((one**3).sum() for one in multiply(PARTS, (x, few), y))

    def apart(equations, parts, y):
        return [jnp.einsum(e, part, y) for e, part in zip(equations, parts, strict=True)]

    expected = jax.grad(functools.partial(loss, apart), (0, 1, 2))(x, few, y)
    specs = P(("data", "fsdp")), P(("data", "fsdp")), P("fsdp")
    layouts = tuple(NamedSharding(mesh, spec) for spec in specs)
    with jax.set_mesh(mesh):
        gradient = jax.jit(
            jax.grad(functools.partial(loss, products.product_of_parts), (0, 1, 2)),
            in_shardings=layouts,
            out_shardings=layouts,
        )
        compiled = gradient.lower(x, few, y).compile()
        found = compiled(*jax.device_put((x, few, y), layouts))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)
    text = compiled.as_text()
    assert text.count(" reduce-scatter(") == 1
    # The other axis of the batch; where heads are split, the gradient of x is summed over them.
    assert text.count(" all-reduce(") == 1 or mesh.shape["tensor"] == 2


def test_the_gradient_of_parts_is_rounded_once():
    x, y = (jax.random.normal(k, (300, 300)) for k in jax.random.split(jax.random.key(0)))
    x, y = x.astype(jnp.bfloat16)[None], y.astype(jnp.bfloat16)

    def total(y):
        outputs = products.product_of_parts(("BSD,DF->BSF",) * 2, (x, 2 * x[:, :7]), y)
        return sum(one.astype(jnp.float32).sum() for one in outputs)

    exact = np.asarray(x[0], np.float64).sum(0) + 2 * np.asarray(x[0, :7], np.float64).sum(0)
    found = jax.grad(total)(y)
    assert found.dtype == jnp.bfloat16
    error = np.abs(np.asarray(found, np.float64) - exact[:, None])
    assert (error <= 2**-8 * np.abs(exact[:, None]) + 1e-3).all()
