"""A prefix token by token, the rest masked; the command is tested in test_commands.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.generation import samplers
from maskgil_jax.generation.options import Decoding
from maskgil_jax.models.token_models import orders
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.runtime.errors import InputError
from tests.helpers.tiny_llama import LABELS, causal, masked


@pytest.mark.parametrize("order", ["raster", "halton"])
def test_the_prefix_is_in_the_order_of_its_model_and_stays(order):
    first, rest = causal(order=order), masked()
    sample = samplers.hybrid_sampler(first, rest, 0, prefix=5, prefix_options={}, steps=3)
    codes = np.asarray(sample(LABELS, 0)).reshape(3, 12)
    prefix = np.asarray(first.sample(LABELS, 0, tokens=5)).reshape(3, 12)
    places = orders.ORDERS[order](3, 4)[:5]
    np.testing.assert_array_equal(np.flatnonzero(prefix[0] < 20), np.sort(places))
    np.testing.assert_array_equal(codes[:, places], prefix[:, places])
    assert (codes < 20).all()
    rows = {"raster": 2, "halton": 3}[order]  # of three: the spread prefix reaches all of them
    assert len(np.unique(places // 4)) == rows


@pytest.mark.parametrize("prefix", [0, 12])
def test_no_prefix_and_a_whole_one_are_the_two_models(prefix):
    first, rest = causal(), masked()
    sample = samplers.hybrid_sampler(first, rest, 3, prefix=prefix, prefix_options={}, steps=3)
    alone = rest.sample(LABELS, 3, steps=3) if prefix == 0 else first.sample(LABELS, 3)
    np.testing.assert_array_equal(sample(LABELS, 0), alone)


def test_models_of_features_share_theirs():
    of_features = dict(num_classes=0, feature_dim=7, condition_tokens=2)
    first, rest = causal(**of_features), masked(**of_features)
    values = np.random.default_rng(0).standard_normal((2, 2, 7)).astype(np.float32)
    table = Features(jnp.asarray(values), jnp.ones((2, 2), bool))
    computed = []

    def conditions(labels):
        computed.append(labels)
        return samplers.rows_of(table)(labels)

    sample = samplers.hybrid_sampler(
        first, rest, 0, prefix=5, prefix_options={}, conditions=conditions, steps=3
    )
    rows = np.array([1, 1, 0])
    known = first.sample(values[rows], 0, tokens=5)
    np.testing.assert_array_equal(
        sample(rows, 0), rest.sample(values[rows], 0, codes=known, steps=3)
    )
    assert len(computed) == 1  # for both: an encoder of text is the larger network


@pytest.mark.parametrize("change", [dict(codebook_size=21), dict(num_classes=6), dict(grid=(4, 3))])
def test_models_that_do_not_fit_are_named(change):
    with pytest.raises(InputError, match=next(iter(change))):
        samplers.hybrid_sampler(causal(**change), masked(), 0, prefix=1, prefix_options={})


@pytest.mark.parametrize("change", [dict(condition_tokens=3), dict(feature_dim=8)])
def test_models_of_other_features_are_named(change):
    of_features = dict(num_classes=0, feature_dim=7, condition_tokens=2)
    first, rest = causal(**of_features | change), masked(**of_features)
    with pytest.raises(InputError, match=f"do not fit: .'{next(iter(change))}'"):
        samplers.hybrid_sampler(first, rest, 0, prefix=1, prefix_options={})


def test_models_of_other_encoders_are_named():
    first, rest = causal(), masked()
    first.encoder = {"path": "a", "fingerprint": "1"}
    with pytest.raises(InputError, match="do not fit: {'encoder'"):
        samplers.hybrid_sampler(first, rest, 0, prefix=1, prefix_options={})
    rest.encoder = {"path": "b", "fingerprint": "1"}
    samplers.hybrid_sampler(first, rest, 0, prefix=1, prefix_options={})


def test_options_of_the_prefix_are_of_the_model_that_samples_it(tmp_path):
    first, rest = causal(), masked()
    first.save(tmp_path / "first")
    decoding = Decoding(
        method="hybrid",
        steps=3,
        prefix=5,
        prefix_model=str(tmp_path / "first"),
        prefix_guidance=1.5,
        prefix_guidance_interval=2,
        prefix_temperature=0.5,
        prefix_top_k=3,
    )
    codes = samplers.from_options(rest, decoding.given(), 0)(LABELS, 0)
    options = dict(guidance=1.5, guidance_interval=2, temperature=0.5, top_k=3)
    expected = samplers.hybrid_sampler(first, rest, 0, prefix=5, prefix_options=options, steps=3)
    np.testing.assert_array_equal(codes, expected(LABELS, 0))
    for name in ("prefix_guidance", "prefix_temperature", "prefix_top_k"):
        with pytest.raises(InputError, match=f"{name}=1 is an option of method=hybrid, not of"):
            samplers.from_options(rest, {name: 1}, 0)
