"""FLOPs counted from the shape are those of the products that the network traces."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.flops import forward_flops, training_flops
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import PRESETS, SIZES, LlamaConfig
from maskgil_jax.runtime.traced_flops import traced_flops

TINY = LlamaConfig(layers=3, dim=32, heads=2, codebook_size=24, num_classes=5, grid=(3, 4))
CASES = {
    **{name: dataclasses.replace(TINY, **preset) for name, preset in PRESETS.items()},
    "digits": dataclasses.replace(TINY, factors=(4, 6)),
    "features": dataclasses.replace(TINY, num_classes=0, feature_dim=7, condition_tokens=5),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_flops_are_those_of_the_products_that_are_traced(name):
    config = CASES[name]
    model = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    codes = jax.ShapeDtypeStruct((2, *config.grid), jnp.int32)
    condition = jax.ShapeDtypeStruct((2,), jnp.int32)
    if config.feature_dim:
        condition = Features(
            jax.ShapeDtypeStruct((2, 5, 7), jnp.float32), jax.ShapeDtypeStruct((2, 5), bool)
        )
    jaxpr = jax.make_jaxpr(lambda *inputs: inputs[0](*inputs[1:]))(model, codes, condition)
    assert traced_flops(jaxpr.jaxpr) == sum(forward_flops(config, images=2).values())


def test_xla_counts_about_as_much_for_a_layer_of_usual_width():
    # XLA counts element by element too, and the body of a loop once: one layer.
    config = LlamaConfig(
        **(SIZES["B"] | {"layers": 1}), codebook_size=2048, num_classes=5, grid=(8, 8)
    )
    model = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    codes = jax.ShapeDtypeStruct((1, 8, 8), jnp.int32)
    condition = jax.ShapeDtypeStruct((1,), jnp.int32)
    lowered = jax.jit(lambda *inputs: inputs[0](*inputs[1:])).lower(model, codes, condition)
    ratio = lowered.compile().cost_analysis()["flops"] / sum(forward_flops(config).values())
    assert 0.98 < ratio < 1.02  # it leaves out what the last layer does for the condition's token


def test_training_is_six_flops_a_parameter_and_token_where_the_model_is_large():
    config = LlamaConfig(**SIZES["XL"], codebook_size=16384, num_classes=1000, grid=(16, 16))
    in_products = 774_802_176 - (16_385 + 1_001) * config.dim  # no tables of embeddings
    share = training_flops(config, images=3) / (6 * in_products * 256 * 3)
    assert 1.0 < share < 1.04  # the rest is attention and the condition's token
