"""One network for both paradigms: what sees what, and what is kept of a causal prefix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.token_models import causal_prefix, kept_prefix, platforms
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig
from tests.helpers.tiny_llama import TINY, built

MASK = TINY.mask_id
OF_FEATURES = dict(num_classes=0, feature_dim=7, condition_tokens=3, condition_rope="identity")


@jax.jit
def outputs(network, codes_Bhw, condition, prefix_B):
    return network.backbone(codes_Bhw, condition, prefix_B=prefix_B)


@jax.jit
def outputs_of_masked(network, codes_Bhw, condition):
    return network.backbone(codes_Bhw, condition)


@pytest.fixture(scope="module", params=[pytest.param("raster", marks=pytest.mark.slow), "halton"])
def network(request):
    return built(causal_prefix=True, order=request.param)


def codes_of(network, prefix_B, seed=0):
    """Codes of images, about half of those behind the prefix masked: int [B, 12] in raster order.

    The last token in the order is visible, the one before it is not.
    """
    rng = np.random.default_rng(seed)
    codes_BL = rng.integers(0, 20, (len(prefix_B), 12))
    for codes_L, prefix in zip(codes_BL, prefix_B, strict=True):
        behind = network.order(3, 4)[prefix:]
        codes_L[behind[rng.random(len(behind)) < 0.5]] = MASK
        codes_L[behind[-2:-1]], codes_L[behind[-1:]] = MASK, 3
    return codes_BL


def features_of(batch):
    """Features of images, the first token of each padding."""
    values = np.random.default_rng(1).standard_normal((batch, 3, 7)).astype(np.float32)
    return Features(jnp.asarray(values), jnp.tile(jnp.array([False, True, True]), (batch, 1)))


@pytest.mark.parametrize("place", [0, 3, 11])
def test_a_token_of_the_prefix_depends_on_those_before_it_the_others_on_all(network, place):
    """Images of several splits in one batch: what changes where the token at `place` does."""
    prefix_B, places = np.array([5, 12, 0, 1]), network.order(3, 4)
    codes_BL = codes_of(network, prefix_B)
    changed_BL = codes_BL.copy()
    changed_BL[:, places[place]] = 11
    before, after = (
        np.asarray(outputs(network, x.reshape(4, 3, 4), jnp.arange(4), jnp.array(prefix_B)))
        for x in (codes_BL, changed_BL)
    )
    differs_BL = np.abs(before - after).max(axis=2)[:, places] > 1e-6
    for differs_L, prefix in zip(differs_BL, prefix_B, strict=True):
        expected = np.arange(12) > place  # of the prefix: those that come after
        expected[prefix:] = True
        np.testing.assert_array_equal(differs_L, expected)


def test_without_a_prefix_it_is_the_masked_model():
    network, masked = built(causal_prefix=True), built()
    codes = codes_of(network, np.zeros(3, int)).reshape(3, 3, 4)
    arguments = jnp.asarray(codes), jnp.array([1, 5, 0])
    expected = outputs_of_masked(masked, *arguments)
    np.testing.assert_array_equal(outputs_of_masked(network, *arguments), expected)
    none = outputs(network, *arguments, jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(none, expected, rtol=1e-6, atol=1e-6)


def test_a_whole_prefix_is_the_causal_model(network):
    codes = codes_of(network, np.array([12, 12])).reshape(2, 3, 4)
    arguments = jnp.asarray(codes), jnp.array([1, 5])
    expected = outputs_of_masked(network.as_causal(), *arguments)
    whole = outputs(network, *arguments, jnp.full(2, 12))
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param(OF_FEATURES, marks=pytest.mark.slow)],
    ids=["classes", "features"],
)
def test_what_is_kept_of_the_prefix_is_what_is_computed_with_the_rest(network, changes):
    network = built(causal_prefix=True, order=network.config.order, **changes)
    codes = codes_of(network, np.array([5, 5, 5])).reshape(3, 3, 4)
    condition = features_of(3) if changes else jnp.array([1, 5, 0])
    places = network.order(3, 4)

    @jax.jit
    def behind(network, codes_Bhw, condition):
        codes_Bn = codes_Bhw.reshape(3, 12)[:, places[:5]]
        kept = kept_prefix.keep(network, codes_Bn, condition, (3, 4))
        return kept_prefix.backbone_behind(network, kept, codes_Bhw, condition)

    found = behind(network, jnp.asarray(codes), condition)[:, places[5:]]
    expected = outputs(network, jnp.asarray(codes), condition, jnp.full(3, 5))[:, places[5:]]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_a_sequence_in_two_parts_sees_the_same(network, monkeypatch):
    """As TPUs run it, whose kernel has no mask and is not chosen."""
    prefix_B = np.array([5, 12, 0, 1])
    codes = jnp.asarray(codes_of(network, prefix_B).reshape(4, 3, 4))
    arguments = codes, jnp.arange(4), jnp.asarray(prefix_B)
    expected = outputs(network, *arguments)
    monkeypatch.setattr(platforms, "current", lambda: platforms.PLATFORMS["tpu"])
    found = jax.jit(lambda network, *given: network.backbone(*given[:2], prefix_B=given[2]))(
        network, *arguments
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_all_that_is_visible_at_two_splits():
    found = causal_prefix.visible(jnp.array([2, 0]), 1, jnp.arange(5), jnp.arange(5))
    rows = ["10000", "11000", "11100", "11111", "11111"]
    expected = np.array([[character == "1" for character in row] for row in rows])
    np.testing.assert_array_equal(found, [[expected], [np.ones((5, 5), bool)]])


@pytest.mark.parametrize("changes", [dict(condition_position="last"), dict(mask_logit=True)])
def test_what_a_causal_prefix_cannot_be_combined_with_is_named(changes):
    shape = dict(layers=1, dim=16, heads=2, codebook_size=16, num_classes=4, grid=(2, 3))
    with pytest.raises(ValueError, match="causal prefix has its condition first and predicts no"):
        LlamaConfig(**shape, **changes, causal_prefix=True)
    with pytest.raises(ValueError, match="order = 'halton' is of causal models, or a causal"):
        LlamaConfig(**shape, order="halton")
    assert "causal_prefix" not in {name for preset in PRESETS.values() for name in preset}
