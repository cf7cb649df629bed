"""One network that draws masked, token by token, and as a hybrid of both, from one directory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import masked_loop
from maskgil_jax.generation import placing, samplers
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError
from tests.helpers.tiny_llama import causal, masked

LABELS = np.array([0, 4, 2, 1, 3, 3, 0, 2])
HYBRID = dict(method="hybrid", prefix=5, steps=2, guidance=1.5, guidance_ramp="constant")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """As it is read from a directory; in Halton's order."""
    directory = tmp_path_factory.mktemp("model")
    masked(causal_prefix=True, order="halton").save(directory)
    return loading.load_generator(directory)


@pytest.fixture(scope="module")
def drawn(model):
    """Hybrid draws of all labels: int [8, 12] in the model's order."""
    return in_order(model, samplers.from_options(model, HYBRID, 7)(LABELS, 0))


def in_order(model, codes):
    return np.asarray(codes).reshape(-1, 12)[:, model.network.order(3, 4)]


def test_token_by_token_it_draws_what_its_logits_say(model):
    options = dict(method="autoregressive", temperature=0.0, guidance=1.0)
    codes = samplers.from_options(model, options, 0)(LABELS[:2], 0)
    logits = model.as_causal().logits(codes, LABELS[:2])
    np.testing.assert_array_equal(logits.argmax(axis=-1).reshape(2, 3, 4), codes)


def test_masked_decoding_is_that_of_a_masked_model():
    both, alone = masked(causal_prefix=True), masked()
    for method in ("masked", None):
        given = dict(steps=3) | ({"method": method} if method else {})
        codes = samplers.from_options(both, given, 3)(LABELS[:3], 0)
        expected = samplers.from_options(alone, dict(steps=3), 3)(LABELS[:3], 0)
        np.testing.assert_array_equal(codes, expected)


def test_the_prefix_is_drawn_token_by_token_and_stays(model, drawn):
    options = dict(method="autoregressive")
    codes = in_order(model, samplers.from_options(model, options, 7)(LABELS, 0))
    np.testing.assert_array_equal(drawn[:, :5], codes[:, :5])
    assert (drawn[:, 5:] < 20).all() and (drawn[:, 5:] != codes[:, 5:]).any()


def test_kept_keys_draw_what_recomputed_ones_do(model, drawn, monkeypatch):
    def recomputed(network, codes_Bhw, conditions, prefix):
        return lambda codes_Bhw, conditions: network.backbone(
            codes_Bhw, conditions, prefix_B=jnp.full(len(codes_Bhw), prefix)
        )

    monkeypatch.setattr(masked_loop, "backbone_behind", recomputed)
    masked_loop.sample_codes.clear_cache()
    codes = samplers.from_options(model, HYBRID, 7)(LABELS, 0)
    masked_loop.sample_codes.clear_cache()
    np.testing.assert_array_equal(in_order(model, codes), drawn)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_an_image_does_not_depend_on_its_batch(model, drawn, batch):
    sample = samplers.from_options(model, HYBRID, 7)
    codes = [sample(LABELS[i : i + batch], i) for i in (0, 3)]
    expected = [drawn[i : i + batch] for i in (0, 3)]
    np.testing.assert_array_equal(in_order(model, np.concatenate(codes)), np.concatenate(expected))


@pytest.mark.slow
def test_images_are_the_same_on_8_devices(model, drawn):
    from maskgil_jax.runtime import sharding

    conditions = placing.split_over_devices(samplers.by_class)
    with jax.set_mesh(sharding.local_mesh()):
        sample = samplers.from_options(placing.over_devices(model), HYBRID, 7, conditions)
        codes = sample(LABELS, 0)
    assert len(codes.sharding.device_set) == 8
    np.testing.assert_array_equal(in_order(model, codes), drawn)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [0, 12])
def test_no_prefix_and_a_whole_one_are_the_two_ways(model, prefix):
    hybrid = HYBRID | dict(prefix=prefix, prefix_guidance=1.5)
    alone = {name: hybrid[name] for name in ("steps", "guidance", "guidance_ramp")}
    if prefix:
        alone = dict(method="autoregressive", guidance=1.5)
    expected = samplers.from_options(model, alone, 7)(LABELS[:2], 0)
    np.testing.assert_array_equal(samplers.from_options(model, hybrid, 7)(LABELS[:2], 0), expected)


@pytest.mark.slow
def test_it_draws_the_prefix_of_another_model(model, tmp_path):
    model.save(tmp_path / "both")
    rest = masked()
    given = dict(method="hybrid", prefix=5, prefix_model=str(tmp_path / "both"), steps=2)
    codes = in_order(model, samplers.from_options(rest, given, 7)(LABELS[:2], 0))
    first = in_order(model, model.as_causal().sample(LABELS[:2], 7, tokens=5))
    np.testing.assert_array_equal(codes[:, :5], first[:, :5])


def test_what_it_was_not_trained_to_do_is_refused(model):
    codes = np.full((1, 3, 4), model.mask_id)
    with pytest.raises(InputError, match="prefix = 2, but some of these tokens are masked"):
        model.sample([1], 0, codes=codes, prefix=2)
    with pytest.raises(InputError, match="prefix = 13, expected 0 to 12"):
        model.sample([1], 0, codes=codes, prefix=13)
    with pytest.raises(InputError, match="not trained token by token too: expected a causal model"):
        masked().sample([1], 0, codes=codes * 0, prefix=2)
    with pytest.raises(InputError, match="prefix=13, expected 0 to 12: an image has 3 x 4 tokens"):
        samplers.from_options(model, HYBRID | dict(prefix=13), 0)
    with pytest.raises(InputError, match="method=autoregressive needs a causal model, but it is"):
        samplers.from_options(masked(), dict(method="autoregressive"), 0)
    with pytest.raises(InputError, match="prefix_model=DIR, unless the model was trained token by"):
        samplers.from_options(masked(), dict(method="hybrid", prefix=2), 0)
    with pytest.raises(InputError, match="method=masked needs a masked model, but it is causal"):
        samplers.from_options(causal(), dict(method="masked"), 0)
