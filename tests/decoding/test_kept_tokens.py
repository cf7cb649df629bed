"""Tokens of MaskGIL's own LLaMA, kept from step to step; of Lumina-DiMOO: test_prompted_masked.py.

What is kept is approximate where it is used, and changes nothing where all tokens run.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.token_models import kept_tokens
from maskgil_jax.models.token_models.bert import BertConfig
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.llama_config import PRESETS
from maskgil_jax.pretrained import checked_decoding
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_llama

CACHE = dict(guidance_ramp="constant", steps=3, cache_ratio=0.7, cache_warmup=0.0)
FEATURES = dict(num_classes=0, feature_dim=7, condition_tokens=3)


@pytest.mark.parametrize("kind", ["classes", "released", "features"])
def test_what_all_tokens_give_is_what_the_network_gives(kind):
    """Of a class at either end of the sequence, and of features that are padded."""
    made = dict(classes={}, released=PRESETS["maskgil_released"], features=FEATURES)[kind]
    network, (codes, condition) = tiny_llama.built(**made), tiny_llama.inputs()
    if kind == "features":
        values = np.random.default_rng(0).standard_normal((2, 3, 7))
        mask = jnp.array([[True, True, False], [True] * 3])
        condition = Features(jnp.asarray(values, jnp.float32), mask)
    kept = kept_tokens.everything(network, kept_tokens.of_images(network, codes, condition))
    found = kept_tokens.outputs_at(network, kept, condition, codes.shape[1:])
    expected = network.normed(network.backbone(codes, condition))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_step_after_which_nothing_changed_changes_nothing():
    network, (codes, condition) = tiny_llama.built(), tiny_llama.inputs()
    sequences = kept_tokens.of_images(network, codes, condition)
    kept = kept_tokens.everything(network, sequences)
    again = kept_tokens.renewed(network, sequences, kept, 0.3)
    for before, after in zip(kept, again, strict=True):
        np.testing.assert_allclose(after, before, atol=2e-5)


def test_codes_are_those_without_it_where_all_tokens_run():
    generator = tiny_llama.masked()
    plain = generator.sample(tiny_llama.LABELS, 0, guidance_ramp="constant", steps=3)
    kept = generator.sample(tiny_llama.LABELS, 0, **CACHE, cache_refresh=1)
    np.testing.assert_array_equal(kept, plain)
    cached = np.asarray(generator.sample(tiny_llama.LABELS, 0, **CACHE))
    assert 0 <= cached.min() and cached.max() < 20 and (cached != np.asarray(plain)).any()


def test_a_step_is_a_share_of_the_work():
    network = tiny_llama.built(grid=(16, 16), dim=64, layers=1, codebook_size=256)
    codes, condition = jnp.zeros((2, 16, 16), jnp.int32), jnp.zeros(2, jnp.int32)
    sequences = kept_tokens.of_images(network, codes, condition)
    kept = kept_tokens.nothing(network, 2, 257)

    def flops(step, *given):
        return jax.jit(step).lower(network, *given).compile().cost_analysis()["flops"]

    some = flops(functools.partial(kept_tokens.renewed, share=0.1), sequences, kept)
    assert 0.09 < some / flops(kept_tokens.everything, sequences) < 0.15


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(guidance_to=0.5), "guidance_to = 0.5 with cache_ratio = 0.7, expected 1.0"),
        (dict(guidance_ramp="linear"), "guidance_ramp = 'linear' with cache_ratio = 0.7"),
    ],
)
def test_steps_that_keep_other_sequences_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        tiny_llama.masked().check_options(CACHE | options)


def test_a_prefix_is_not_kept_twice():
    generator = tiny_llama.masked(causal_prefix=True)
    codes = np.full((3, 3, 4), 20)
    codes.reshape(3, 12)[:, :2] = 1
    with pytest.raises(InputError, match="prefix = 2 with cache_ratio = 0.7"):
        generator.sample(tiny_llama.LABELS, 0, codes=codes, prefix=2, **CACHE)


def test_other_models_keep_no_tokens():
    with pytest.raises(InputError, match="cache_ratio = 0.7, but this model keeps no tokens"):
        checked_decoding.plan_of(BertConfig(1, 32, 2, 64, 20, 5, (8, 8)), 64, CACHE)
