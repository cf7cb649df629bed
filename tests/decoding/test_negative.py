"""Guidance away from a condition of the user's instead of the null condition."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.generation import samplers
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.runtime.errors import InputError
from tests.helpers.tiny_llama import causal, masked

OF_FEATURES = dict(num_classes=0, feature_dim=7, condition_tokens=2)
VALUES = np.random.default_rng(0).standard_normal((3, 2, 7)).astype(np.float32)
KINDS = {"masked": (masked, dict(steps=3)), "causal": (causal, {})}


@pytest.mark.parametrize("kind", KINDS)
def test_away_from_the_null_condition_is_the_default(kind):
    make, options = KINDS[kind]
    generator = make(**OF_FEATURES)
    null = generator.null_condition(3)
    given = generator.sample(VALUES, 0, negative=null, guidance=4.0, **options)
    np.testing.assert_array_equal(given, generator.sample(VALUES, 0, guidance=4.0, **options))
    other = generator.sample(VALUES, 0, negative=VALUES[::-1], guidance=4.0, **options)
    assert (np.asarray(given) != np.asarray(other)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_away_from_what_is_wanted_is_no_guidance(kind):
    make, options = KINDS[kind]
    generator = make()
    classes = np.array([0, 4, 2])
    guided = generator.sample(classes, 0, negative=classes, guidance=4.0, **options)
    plain = generator.sample(classes, 0, guidance=1.0, **options)
    np.testing.assert_array_equal(guided, plain)


def test_a_sampler_has_the_negative_condition_of_each_label():
    generator = masked(**OF_FEATURES)
    table = Features(jnp.asarray(VALUES), jnp.ones((3, 2), bool))
    away = samplers.rows_of(Features(table.features_BTC[::-1], table.mask_BT))
    rows = np.array([2, 1])
    sample = samplers.sampler(generator, 0, samplers.rows_of(table), away, steps=3)
    expected = generator.sample(VALUES[rows], 0, negative=VALUES[::-1][rows], steps=3)
    np.testing.assert_array_equal(sample(rows, 0), expected)


def test_as_many_are_expected_as_there_are_images():
    with pytest.raises(InputError, match="2 conditions for 3 images"):
        masked().sample(np.array([0, 1, 2]), 0, negative=np.array([0, 1]), steps=2)
