import numpy as np
import pytest

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import condition_match
from tests.helpers.tiny_llama import causal, masked

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("make, options", [(masked, dict(steps=8, temperature=0.3)), (causal, {})])
def test_images_sampled_of_a_class_are_likelier_under_it_and_others_are_not(make, options):
    generator, count = make(), 100
    classes = np.arange(count) % 5
    sampled = np.asarray(generator.sample(classes, 0, guidance=8.0, **options))
    noise = RNG.integers(0, 20, sampled.shape)
    own, none = (
        condition_match.condition_match(generator, codes, classes, masks=4, batch_size=64, seed=0)
        for codes in (sampled, noise)
    )
    assert own["interval"][0] > 0.5 and own["gain"] > 0
    assert none["interval"][0] < 0.5 < own["preferred"]
    low, high = own["interval"]
    assert 0 < low < own["preferred"] < high <= 1 and own["images"] < count
    with pytest.raises(InputError, match="conditions of 100 images are all the same"):
        condition_match.condition_match(
            generator, sampled, np.zeros(count, int), masks=1, batch_size=64, seed=0
        )
