"""Random codes in the place of masks, which the one step of a one-step student reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import choosing
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.pretrained import generators
from maskgil_jax.runtime.errors import InputError
from tests.helpers import random_weights

CODES, MASK = 50, 50
SMALL = LlamaConfig(layers=1, dim=32, heads=2, codebook_size=CODES, num_classes=3, grid=(4, 4))


@pytest.fixture(scope="module")
def generator():
    return generators.make_generator(
        random_weights.network(lambda: Llama(SMALL, jax.random.key(0)))
    )


@pytest.mark.parametrize("share, expected", [(0.0, 0), (0.25, 3), (0.3, 4), (1.0, 12)])
def test_so_many_masks_of_each_image_give_way(share, expected):
    """Of twelve; codes that are known stay."""
    rng = np.random.default_rng(0)
    codes = rng.permuted(np.tile([MASK] * 12 + [1, 2, 3, 4], (20, 1)), axis=1)
    random = rng.integers(0, CODES, codes.shape)
    noise = rng.random(codes.shape)
    found = np.asarray(
        choosing.with_random_codes(jnp.array(codes), codes == MASK, share, noise, random)
    )
    np.testing.assert_array_equal((found != codes).sum(axis=1), expected)
    np.testing.assert_array_equal(found[codes != MASK], codes[codes != MASK])
    np.testing.assert_array_equal(found[found != codes], random[found != codes])
    if 0 < share < 1:
        assert len(np.unique(found != codes, axis=0)) > 10  # not the same places in all images


def test_images_differ_by_what_is_read_alone(generator):
    """With the likeliest code everywhere, one step from masks draws one image, whatever the key."""
    options = dict(steps=1, guidance=1.0, temperature=1e-6)
    labels = np.zeros(4, int)
    same = np.asarray(generator.sample(labels, 0, **options))
    assert (same == same[0]).all()
    found = np.asarray(generator.sample(labels, 0, random_start=0.5, **options))
    assert len(np.unique(found.reshape(4, -1), axis=0)) == 4
    alone = np.asarray(generator.sample(labels[2:3], 0, start=2, random_start=0.5, **options))
    np.testing.assert_array_equal(alone[0], found[2])


def test_codes_that_are_known_stay_and_are_read(generator):
    codes = np.full((2, 4, 4), MASK)
    codes[:, :2] = 7
    codes[1, 0] = 9
    drawn = np.asarray(
        generator.sample(np.zeros(2, int), 0, codes=codes, steps=1, random_start=0.5)
    )
    np.testing.assert_array_equal(drawn[codes != MASK], codes[codes != MASK])
    assert (drawn < CODES).all() and (drawn >= 0).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(random_start=1.5, steps=1), "random_start = 1.5, expected 0 to 1"),
        (dict(random_start=-0.1, steps=1), "expected 0 to 1"),
        (dict(random_start=0.4, steps=8), "steps = 8 with random_start = 0.4, expected 1"),
        (
            dict(random_start=0.4, steps=1, cache_ratio=0.5, guidance_ramp="constant"),
            "cache_ratio = 0.5 with random_start = 0.4, expected 0",
        ),
    ],
)
def test_more_than_one_whole_step_is_refused(generator, options, message):
    with pytest.raises(InputError, match=message):
        generator.sample(np.zeros(1, int), 0, **options)
