"""Poolings of a CPU, against XLA's reductions of windows, which other platforms use."""

import functools

import jax
import numpy as np
import pytest

from maskgil_jax.models.perceptual import pooling

KINDS = {
    "average 3x3": pooling.average_3x3,
    "maximum 3x3": functools.partial(pooling.maximum, size=3, stride=1, padding="SAME"),
    "maximum 3x3, stride 2": functools.partial(pooling.maximum, size=3, stride=2),
    "maximum 2x2, stride 2": functools.partial(pooling.maximum, size=2, stride=2),
}


@pytest.mark.parametrize("sides", [(9, 12), (8, 7), (3, 3)])
@pytest.mark.parametrize("pool", KINDS.values(), ids=KINDS)
def test_a_cpu_gives_the_values_and_gradients_of_other_platforms(pool, sides, monkeypatch):
    x = jax.random.normal(jax.random.key(0), (2, *sides, 5))

    def value_and_gradient():
        return pool(x), jax.grad(lambda x: (pool(x) ** 2).sum())(x)

    ours = value_and_gradient()
    monkeypatch.setattr(pooling.sharding, "platform", lambda: "tpu")  # Flax's, of XLA's windows
    for one, other in zip(ours, value_and_gradient(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
