"""Samplers do no work that changes nothing: counted in what the compiler makes of them."""

import dataclasses

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import autoregressive, masked_loop, masked_plan
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig
from maskgil_jax.pretrained import generators
from tests.helpers import random_weights

B = 2
# One layer: XLA counts the body of a loop, as that over layers, once.
WIDE = LlamaConfig(
    layers=1, dim=256, heads=4, codebook_size=4096, num_classes=10, grid=(8, 8), ffn_multiple=256
)


@pytest.fixture(scope="module")
def network():
    return random_weights.network(lambda: Llama(WIDE, jax.random.key(0)))


def compiled(network, codes_Bhw, **options):
    """The sampler as it is compiled for these options, and its plan."""
    masked_B = np.asarray(codes_Bhw == WIDE.mask_id).sum(axis=(1, 2))
    plan, numbers = masked_plan.plan(masked_B, **options)
    lowered = masked_loop.sample_codes.lower(
        network, jnp.zeros(B, jnp.int32), codes_Bhw, numbers, jax.random.key(0), 0, plan=plan
    )
    return lowered.compile(), plan


def matrix_flops(plan):
    """Of all products of the network that the plan needs: head on masked tokens only."""
    D, F, V, T = WIDE.dim, WIDE.ffn_dim, WIDE.codebook_size, 65
    layer = 2 * T * D * (4 * D + 3 * F) + 4 * T * T * D
    return B * (plan.passes * layer + 2 * D * V * sum(plan.masked))


ALL_MASKED = jnp.full((B, 8, 8), WIDE.mask_id)
HALF_KNOWN = ALL_MASKED.at[:, :4].set(7)


@pytest.mark.parametrize(
    "codes, options",
    [
        (ALL_MASKED, dict(steps=4)),  # the ramp leaves the first step without guidance
        (ALL_MASKED, dict(steps=4, guidance=1.0)),
        (ALL_MASKED, dict(steps=3, guidance_ramp="constant")),
        (ALL_MASKED, dict(steps=4, rule="halton")),
        (ALL_MASKED, dict(steps=1)),
        (HALF_KNOWN, dict(steps=8)),
    ],
)
def test_the_head_runs_on_masked_tokens_and_the_null_pass_where_there_is_guidance(
    network, codes, options
):
    program, plan = compiled(network, codes, **options)
    ratio = program.cost_analysis()["flops"] / matrix_flops(plan)
    # Besides products: norms, softmax, draws; the last layer's output at the condition is not used.
    assert 0.99 < ratio < 1.1


def equations(jaxpr):
    """All equations, those of inner functions too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.parametrize("causal", [False, True])
def test_weights_are_cast_once(network, causal):
    config = dataclasses.replace(WIDE, dtype="bfloat16", layers=2, heads=2)
    if causal:
        config = dataclasses.replace(config, **PRESETS["llamagen"])
    network = random_weights.network(lambda: Llama(config, jax.random.key(0)))
    arguments = (network, jnp.zeros(B, jnp.int32))
    if causal:
        plan, numbers = autoregressive.plan(autoregressive.Options())
        traced = autoregressive.sample_codes.trace(
            *arguments, numbers, jax.random.key(0), 0, plan=plan, grid=config.grid, tokens=64
        )
    else:
        plan, numbers = masked_plan.plan(np.full(B, 64))
        traced = masked_loop.sample_codes.trace(
            *arguments, ALL_MASKED, numbers, jax.random.key(0), 0, plan=plan
        )
    cast = [
        equation.invars[0].aval.shape
        for equation in equations(traced.jaxpr.jaxpr)
        if equation.primitive.name == "convert_element_type"
        and equation.params["new_dtype"] == jnp.bfloat16
    ]
    blocks = network.blocks
    matrices = [blocks.qkv, blocks.out, blocks.gate_up, blocks.down, network.head]
    for shape in (matrix.shape for matrix in matrices):
        assert cast.count(shape) == 1 and not cast.count(shape[1:])


@pytest.mark.slow
def test_as_many_compilations_as_shapes(network):
    """Seeds, classes, known codes, places in the batch and scales are no shapes."""
    generator = generators.make_generator(network)
    masked_loop.sample_codes.clear_cache()
    for i in range(3):
        codes = np.full((B, 8, 8), WIDE.mask_id)
        codes[:, i] = i
        scales = dict(guidance=2.0 + i, temperature=1.0 + i, choice_temperature=float(i))
        generator.sample(np.full(B, i), i, codes=codes, start=i, steps=2, **scales)
    assert masked_loop.sample_codes._cache_size() == 1


@pytest.mark.slow
def test_scales_of_a_causal_model_are_no_shapes():
    config = dataclasses.replace(WIDE, **PRESETS["llamagen"])
    network = random_weights.network(lambda: Llama(config, jax.random.key(0)))
    generator = generators.make_generator(network)
    autoregressive.sample_codes.clear_cache()
    for i in range(3):
        scales = dict(guidance=2.0 + i, temperature=0.5 * i)
        generator.sample(np.full(B, i), i, start=i, tokens=4, **scales)
    assert autoregressive.sample_codes._cache_size() == 1
