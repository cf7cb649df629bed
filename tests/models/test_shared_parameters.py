"""Gradients of what all positions share are as exact in bfloat16 as its products allow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from maskgil_jax.models.shared_parameters import Conv, Linear, spread
from maskgil_jax.models.token_models.layers import RMSNorm
from maskgil_jax.models.token_models.llama_layers import HeadNorm
from maskgil_jax.models.tokenizers.convolutions import AdaptiveGroupNorm, Upsample
from tests.helpers import tiny_llama

B, SIDE, C = 2, 128, 32
HEADS = dataclasses.replace(tiny_llama.TINY, dim=C * SIDE, heads=SIDE)


def rngs():
    return nnx.Rngs(0)


MODULES = {
    "rms": lambda dtype: RMSNorm(C),
    "heads": lambda dtype: HeadNorm(SIDE // 2, HEADS),
    "conv": lambda dtype: Conv(C, C, (3, 3), dtype=dtype, rngs=rngs()),
    "linear": lambda dtype: Linear(C, C, dtype=dtype, rngs=rngs()),
    "upsample": lambda dtype: Upsample(C, dtype=dtype, rngs=rngs()),
    "adaptive": lambda dtype: AdaptiveGroupNorm(C, C, dtype=dtype, rngs=rngs()),
}


def gradients(name, dtype):
    """Of a weighted mean of the output, by the parameter's path."""
    module = MODULES[name](dtype)
    x = jax.random.normal(jax.random.key(1), (B, SIDE, SIDE, C)).astype(dtype)

    def total(module):
        y = module(x, x[:, ::4, ::4]) if name == "adaptive" else module(x)
        y = y.astype(jnp.float32)
        return (y * jax.lax.stop_gradient(1 + y)).mean()  # in which nothing cancels

    found = jax.grad(total)(module)
    return {jax.tree_util.keystr(path): g for path, g in jax.tree_util.tree_leaves_with_path(found)}


@pytest.mark.parametrize("name", MODULES)
def test_a_gradient_is_not_lost_in_a_sum_of_bfloat16(name):
    exact, found = gradients(name, "float32"), gradients(name, "bfloat16")
    for path, gradient in exact.items():
        error = np.linalg.norm(np.asarray(found[path], np.float32) - gradient)
        assert error < 0.02 * np.linalg.norm(gradient), path


def test_spread_gives_the_shape_and_the_dtype_of_what_it_goes_with():
    x = jnp.zeros((2, 3, 4), jnp.bfloat16)
    for shape in ((4,), (3, 1), (2, 1, 1)):
        parameter = jnp.full(shape, 1 + 2**-10)
        assert spread(parameter, x).shape == x.shape
        assert set(np.asarray(spread(parameter, x), np.float32).ravel()) == {1.0}  # rounded
    assert spread(jnp.ones(4), x.astype(jnp.float32)).dtype == jnp.float32
