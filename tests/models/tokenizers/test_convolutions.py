"""Changes of size: what they compute, and that the compiler has a fast program for it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.tokenizers.convolutions import Upsample


def test_upsampling_is_nearest_neighbour_and_a_convolution_also_backward():
    up = Upsample(4, dtype="float32", rngs=nnx.Rngs(0))

    def plain(up, x):
        return up.conv(x.repeat(2, axis=1).repeat(2, axis=2))

    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    g = jax.random.normal(jax.random.key(1), (2, 6, 10, 4))
    (y, back), (expected, expected_back) = (
        jax.vjp(lambda up, x, f=f: f(up, x), up, x) for f in (Upsample.__call__, plain)
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for one, other in zip(jax.tree.leaves(back(g)), jax.tree.leaves(expected_back(g)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_no_convolution_of_the_gradient_has_its_operands_exchanged():
    """XLA has no fast program for these on a CPU: training took 10 times as long."""
    up = Upsample(8, dtype="float32", rngs=nnx.Rngs(0))
    gradient = jax.jit(jax.grad(lambda up, x: jnp.sum(up(x) ** 2), argnums=(0, 1)))
    program = gradient.lower(up, jnp.ones((2, 8, 8, 8))).compile().as_text()
    layouts = re.findall(r"convolution\(.*dim_labels=(\S+?)[, ]", program)
    assert len(layouts) == 3 and {*layouts} == {"b01f_01io->b01f"}, layouts
