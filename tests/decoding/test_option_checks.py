"""Decoding options are refused before any work, wherever they are given."""

import numpy as np
import pytest

from maskgil_jax import config as defaults
from maskgil_jax.decoding import autoregressive, masked_plan
from maskgil_jax.generation import samplers
from maskgil_jax.pretrained import checked_decoding
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_models

MASKED = [
    (dict(guidance=1e39), r"guidance = 1e\+39, expected a finite number that float32 holds"),
    (dict(guidance=-np.inf), "guidance = -inf"),
    (dict(guidance=10**400), "guidance = 1000"),
    (dict(guidance=3.4e38, guidance_form="weight", guidance_ramp="constant"), None),
    (dict(guidance="3"), "guidance = '3', expected a number"),
    (dict(guidance=True), "guidance = True, expected a number"),
    (dict(temperature=0), "temperature = 0, expected a positive number"),
    (dict(temperature=1e-45), "temperature = 1e-45, expected a positive number"),
    (dict(temperature=-1.0), "temperature = -1.0"),
    (dict(temperature=np.nan), "temperature = nan"),
    (dict(temperature=1e39), r"temperature = 1e\+39"),
    (dict(temperature=1.5e-38, temperature_schedule="titok"), "temperature = .*e-39"),
    (dict(choice_temperature=1e39), "choice_temperature"),
    (dict(top_p=np.nan), "top_p = nan"),
    (dict(top_p=1.5), "top_p = 1.5"),
    (dict(top_k=-1), "top_k = -1"),
    (dict(top_k=2.5), "top_k = 2.5, expected a whole number"),
    (dict(steps=2.0), "steps = 2.0, expected a whole number"),
    (dict(steps=True), "steps = True, expected a whole number"),
    (dict(rule=3), "rule = 3, expected a text"),
]
CAUSAL = [
    (dict(guidance=1e39), "guidance"),
    (dict(temperature=1e-45), "temperature = 1e-45"),
    (dict(temperature=-0.1), "temperature = -0.1"),
    (dict(temperature=np.inf), "temperature = inf"),
    (dict(temperature=np.nan), "temperature = nan"),
    (dict(top_p=0.0), "top_p = 0.0"),
    (dict(top_k=1.0), "top_k = 1.0, expected a whole number"),
    (dict(steps=3), "steps"),
]


@pytest.mark.parametrize("options, message", MASKED)
def test_of_masked_decoding(options, message):
    options = dict(steps=2) | options
    if message is None:
        masked_plan.plan(6, **options)
        return
    with pytest.raises(ValueError, match=message):
        masked_plan.plan(6, **options)
    # Before the model is used at all.
    with pytest.raises(InputError, match=message):
        samplers.sampler(tiny_models.masked(), 0, **options)


@pytest.mark.parametrize("options, message", CAUSAL)
def test_token_by_token(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        autoregressive.Options(**options)
    with pytest.raises(InputError, match=message):
        samplers.sampler(tiny_models.causal(), 0, **options)


def test_numbers_of_numpy_and_whole_ones_are_taken():
    masked_plan.plan(6, steps=np.int64(3), guidance=np.float32(2), temperature=1, top_p=1)
    assert autoregressive.Options(temperature=0).temperature == 0


def test_of_both_parts_of_hybrid_decoding(caplog):
    pair = tiny_models.causal(), tiny_models.masked()
    common = dict(seed=0, prefix=4)
    samplers.hybrid_sampler(*pair, **common, prefix_options={}, steps=2)
    with pytest.raises(InputError, match="temperature = inf"):
        samplers.hybrid_sampler(*pair, **common, prefix_options=dict(temperature=np.inf))
    samplers.hybrid_sampler(*pair, **common, prefix_options={}, steps=3)
    assert "steps = 3, but 2 tokens are masked: they take 2 steps" in caplog.text
    with pytest.raises(InputError, match="steps = -1, expected 1 to 2"):
        samplers.hybrid_sampler(*pair, **common, prefix_options={}, steps=-1)


@pytest.mark.parametrize("made", [defaults.generator, defaults.causal_generator])
@pytest.mark.parametrize("field, value", [("guidance", 1e39), ("temperature", 1e-45)])
def test_of_a_config(made, field, value):
    config = made()
    config.samples[field] = value
    model = tiny_models.masked() if made is defaults.generator else tiny_models.causal()
    with pytest.raises(InputError, match=f"config.samples: {field} = {value}".replace("+", r"\+")):
        samplers.checked_options(config.samples, model.network.config)


def test_guidance_needs_a_null_condition_before_any_work():
    class Config:
        has_null_condition, num_classes = False, 4

    with pytest.raises(InputError, match="this model has no null condition"):
        checked_decoding.plan_of(Config, 6, dict(steps=2, guidance=2.0))
    checked_decoding.plan_of(Config, 6, dict(steps=2, guidance=2.0), needs_null=False)


def test_a_seed_of_any_length_is_one_message():
    with pytest.raises(InputError, match="seed = 1000.* expected a whole number of 64 bits"):
        tiny_models.masked().sample([0], 10**30, steps=2)
