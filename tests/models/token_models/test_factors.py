"""Networks whose codes are numbers of several digits, each with a vocabulary of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import token_sampling
from maskgil_jax.models.token_models import factors
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import PRESETS
from maskgil_jax.pretrained import generators, presets
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_loss
from tests.helpers import tiny_llama

SIZES = (2, 5, 3)


def test_every_code_is_the_number_of_its_digits():
    codes = jnp.arange(30)
    digits = factors.digits(codes, SIZES)
    assert [int(digit.max()) for digit in digits] == [1, 4, 2]
    np.testing.assert_array_equal(factors.joined(digits, SIZES), codes)
    np.testing.assert_array_equal(digits[0][:4], [0, 1, 0, 1])  # the first counts the least


def test_one_vocabulary_is_that_of_the_codes():
    codes, logits = jnp.arange(30), jax.random.normal(jax.random.key(0), (4, 30))
    np.testing.assert_array_equal(factors.joined(factors.digits(codes, (30,)), (30,)), codes)
    np.testing.assert_array_equal(factors.joint(logits, (30,)), logits)


def test_the_probability_of_a_code_is_the_product_of_those_of_its_digits():
    logits = jax.random.normal(jax.random.key(0), (4, sum(SIZES)))
    joint = jax.nn.softmax(factors.joint(logits, SIZES))
    parts = [jax.nn.softmax(part) for part in factors.split(logits, SIZES)]
    digits = factors.digits(jnp.arange(30), SIZES)
    expected = np.prod([part[:, digit] for part, digit in zip(parts, digits, strict=True)], axis=0)
    np.testing.assert_allclose(joint, expected, rtol=1e-5)


def test_codes_are_drawn_with_their_probability():
    logits = 2 * jax.random.normal(jax.random.key(0), (sum(SIZES),))
    uniform = jax.random.uniform(jax.random.key(1), (200_000, 3))
    codes, log_p, logit = token_sampling.code(
        uniform, jnp.tile(logits, (len(uniform), 1)), SIZES, divisor=2.0
    )
    expected = jax.nn.softmax(factors.joint(logits, SIZES) / 2)
    np.testing.assert_allclose(np.bincount(codes, minlength=30) / 2e5, expected, atol=4e-3)
    np.testing.assert_allclose(log_p, np.log(expected)[codes], atol=1e-4)
    np.testing.assert_allclose(logit, factors.joint(logits, SIZES)[codes], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("switch", [{}, PRESETS["llamagen"]])
def test_the_loss_is_the_cross_entropy_over_all_codes(switch):
    model = tiny_llama.built(factors=(4, 5), **switch)
    rng = np.random.default_rng(0)
    codes = jnp.array(rng.integers(0, 20, (2, 3, 4)))
    masked = jnp.array(rng.random((2, 3, 4)) < 0.5) if not model.config.causal else codes >= 0
    examples = {
        "codes": codes,
        "masked": masked,
        "weight": masked.astype(jnp.float32),
        "condition": jnp.array([0, 5]),
    }
    loss, sums = generator_loss.weighted_loss(model, examples, None, label_smoothing=0.0, chunk=4)
    inputs = codes if model.config.causal else jnp.where(masked, model.config.mask_id, codes)
    logits = model(inputs, examples["condition"]).reshape(2, 3, 4, 20)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), codes[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(loss, -(log_p * masked).sum(), rtol=1e-5)
    assert sums["correct"] == ((logits.argmax(axis=-1) == codes) & masked).sum()


def test_a_causal_model_draws_the_likeliest_codes_of_its_own_logits():
    model = generators.make_generator(tiny_llama.built(factors=(4, 5), **PRESETS["llamagen"]))
    codes = model.sample([0, 4], 0, temperature=0.0, guidance=1.0)
    likeliest = model.logits(codes, [0, 4]).argmax(axis=-1)
    np.testing.assert_array_equal(codes.reshape(2, -1), likeliest)


def test_a_masked_model_draws_codes_by_its_probabilities():
    model = generators.make_generator(tiny_llama.built(factors=(4, 5)))
    codes = model.sample(np.zeros(4000, int), 0, steps=1, guidance=1.0)
    hidden = np.full((1, 3, 4), model.mask_id)
    p = jax.nn.softmax(model.logits(hidden, [0]))[0]
    for position, drawn in enumerate(np.asarray(codes).reshape(4000, 12).T):
        np.testing.assert_allclose(np.bincount(drawn, minlength=20) / 4000, p[position], atol=0.03)


def test_262144_codes_need_few_parameters():
    """SPEC: 201M for the head and as many for the table at B; 3.2M each with two digits."""
    config = dataclasses.replace(tiny_llama.TINY, dim=768, heads=12, codebook_size=2**18)
    config = dataclasses.replace(config, factors=(64, 4096))
    model = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    assert model.head.shape == (768, 4160) and model.code_embedding.shape == (4161, 768)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(factors=(4, 4)), r"factors = \(4, 4\), whose product is 16: expected 20"),
        (dict(factors=(1, 20)), r"factors = \(1, 20\)"),
        (dict(factors=(4, 5), joint_embedding=True), "joint_embedding = True"),
    ],
)
def test_digits_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_llama.TINY, **change)


def test_a_network_without_digits_refuses_them():
    from configs import bert_b

    config = bert_b.get_config()
    config.model.factors = (128, 128)
    with pytest.raises(
        InputError, match="config.model.factors = .128, 128., which preset besnier has not"
    ):
        presets.network_config(config.model, 16384, (16, 16), config.loss)
