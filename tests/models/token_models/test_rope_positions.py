"""Positions of larger grids, extended or interpolated: the grids of the smaller model stay."""

import dataclasses

import numpy as np
import pytest

from maskgil_jax.data.images import buckets
from maskgil_jax.models.token_models import rope
from tests.helpers.tiny_llama import TINY, built, inputs

INTERPOLATED = dict(rope_positions="interpolated", rope_grid=(32, 32))
KEPT = buckets.named("lumina", 512, 16).grids(16)
LARGER = buckets.named("lumina", 1024, 16).grids(16)


def test_both_ways_turn_all_grids_of_512_pixels_as_the_model_of_512_does():
    """Bit by bit: a model of 1024 pixels that has not been trained yet is the model of 512."""
    small = built(grid=(32, 32))
    for grid in KEPT:
        expected = small.rotations(*grid)
        for positions in (dict(), INTERPOLATED):
            large = built(grid=(64, 64), **positions)
            np.testing.assert_array_equal(large.rotations(*grid), expected)


def test_both_ways_give_the_logits_of_the_smaller_model_on_its_grids():
    for grid in ((3, 4), (2, 6)):
        expected = built()(*inputs(grid=grid))
        for positions in (dict(), dict(rope_positions="interpolated", rope_grid=(3, 4))):
            found = built(grid=(6, 8), **positions)(*inputs(grid=grid))
            np.testing.assert_array_equal(found, expected)


def test_interpolated_positions_are_those_of_the_smaller_grid_in_finer_steps():
    small = built(grid=(32, 32)).rotations(32, 32)[1:].reshape(32, 32, -1)
    large = built(grid=(64, 64), **INTERPOLATED).rotations(64, 64)[1:].reshape(64, 64, -1)
    np.testing.assert_array_equal(large[::2, ::2], small)
    extended = built(grid=(64, 64)).rotations(64, 64)[1:].reshape(64, 64, -1)
    np.testing.assert_array_equal(extended[:32, :32], small)
    assert np.abs(extended - large).max() > 0.5


def test_interpolated_positions_of_every_size_lie_where_the_smaller_model_knows_them():
    """Sides of 512 pixels have at most 64 tokens; those of 1024 have up to 128."""
    assert {rope.interpolation_step(grid, (32, 32)) for grid in KEPT} == {1.0}
    for grid in LARGER:
        step = rope.interpolation_step(grid, (32, 32))
        assert 0.5 <= step < 0.52 and max(grid) * step <= max(map(max, KEPT)) + 1


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(rope_positions="scaled"), "rope_positions = 'scaled', expected one of"),
        (dict(rope_positions="interpolated"), r"rope_grid = \(\) with rope_positions = 'interp"),
        (dict(INTERPOLATED, rope_grid=(32,)), r"rope_grid = \(32,\) .* expected the"),
        (dict(INTERPOLATED, rope_grid=(0, 32)), r"rope_grid = \(0, 32\) .* expected the"),
        (dict(rope_grid=(32, 32)), "with rope_positions = 'extended': expected ()"),
        (dict(INTERPOLATED, rope="1d"), "needs rope = '2d'"),
    ],
)
def test_positions_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)
