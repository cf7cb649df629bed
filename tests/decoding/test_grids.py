"""Samples of other grids than the one that the model was trained on."""

import numpy as np
import pytest

from maskgil_jax.generation import requests, samplers
from maskgil_jax.models.token_models.llama_config import PRESETS
from maskgil_jax.runtime.errors import InputError
from tests.helpers.tiny_llama import LABELS, causal, masked


@pytest.mark.parametrize(
    "made, options",
    [(masked, dict(steps=3)), (causal, {}), (lambda **c: causal(order="halton", **c), {})],
    ids=["masked", "causal", "halton"],
)
def test_they_are_those_of_the_same_weights_made_for_that_grid(made, options):
    grid = (2, 5)
    codes = made().sample(LABELS, 0, grid=grid, **options)
    assert codes.shape == (3, *grid) and int(codes.max()) < 20
    np.testing.assert_array_equal(codes, made(grid=grid).sample(LABELS, 0, **options))


def test_hybrid_samples_have_any_grid_too():
    first, rest = causal(), masked(grid=(5, 5))
    drawn = samplers.hybrid_sampler(
        first, rest, 0, prefix=5, prefix_options={}, grid=(2, 6), steps=3
    )(LABELS, 0)
    codes = first.sample(LABELS, 0, tokens=5, grid=(2, 6))
    np.testing.assert_array_equal(drawn, rest.sample(LABELS, 0, codes=codes, steps=3))


def test_a_model_with_positions_of_one_grid_is_refused():
    released = masked(**PRESETS["maskgil_released"])
    assert released.sample(LABELS, 0, grid=(3, 4), steps=2).shape == (3, 3, 4)
    with pytest.raises(InputError, match=r"grid = \(2, 6\), .* has positions for \(3, 4\) only"):
        released.sample(LABELS, 0, grid=(2, 6), steps=2)


def test_a_grid_that_the_known_codes_do_not_have_is_refused():
    with pytest.raises(InputError, match=r"images of \(3, 4\) tokens .* and grid = \(2, 6\)"):
        masked().sample(LABELS, 0, codes=np.full((3, 3, 4), 20), grid=(2, 6))
    with pytest.raises(InputError, match=r"grid = \(0, 6\)"):
        masked().sample(LABELS, 0, grid=(0, 6))


def test_a_size_is_width_and_height_in_pixels():
    assert requests.grid_of("512x256", 16) == (16, 32)
    for text in ("512", "512x", "0x256", "axb", "1x2x3"):
        with pytest.raises(InputError, match=f"size={text}, expected WIDTHxHEIGHT in pixels"):
            requests.grid_of(text, 16)
    with pytest.raises(InputError, match="size=500x256, expected multiples of 16"):
        requests.grid_of("500x256", 16)
