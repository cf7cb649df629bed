"""Poolings, against Flax's reductions of windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from maskgil_jax.models.perceptual import pooling

KINDS = {
    "average 3x3": (
        pooling.average_3x3,
        lambda x: nnx.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False),
    ),
    "maximum 3x3": (pooling.max_3x3, lambda x: nnx.max_pool(x, (3, 3), padding="SAME")),
    "maximum 3x3, stride 2": (
        functools.partial(pooling.over_windows, jnp.maximum, size=3, stride=2),
        lambda x: nnx.max_pool(x, (3, 3), strides=(2, 2)),
    ),
    "maximum 2x2, stride 2": (
        functools.partial(pooling.over_windows, jnp.maximum, size=2, stride=2),
        lambda x: nnx.max_pool(x, (2, 2), strides=(2, 2)),
    ),
}


@pytest.mark.parametrize("sides", [(9, 12), (8, 7), (3, 3)])
@pytest.mark.parametrize("ours, flax", KINDS.values(), ids=KINDS)
def test_values_and_gradients_are_those_of_windows(ours, flax, sides):
    x = jax.random.normal(jax.random.key(0), (2, *sides, 5))

    def loss(pool):
        return lambda x: (pool(x) ** 2).sum()

    np.testing.assert_allclose(ours(x), flax(x), atol=1e-6)
    np.testing.assert_allclose(jax.grad(loss(ours))(x), jax.grad(loss(flax))(x), atol=1e-5)
