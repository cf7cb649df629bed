"""What a model sees of a picture, and how what it draws comes back."""

import numpy as np
import pytest

from maskgil_jax.generation import frames
from maskgil_jax.runtime.errors import InputError

TRAINED, DOWNSAMPLE = (32, 32), 8


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def mask(height, width, box):
    left, top, right, bottom = box
    masked = np.zeros((height, width), bool)
    masked[top:bottom, left:right] = True
    return masked


def frame(height, width, box, any_grid=True, size=None):
    given = picture(height, width), mask(height, width, box)
    return frames.frame_of(*given, TRAINED, DOWNSAMPLE, any_grid, size)


def test_a_picture_of_about_the_size_of_training_is_seen_pixel_by_pixel():
    seen = frame(30, 45, (0, 0, 9, 8))
    assert seen.size == (32, 48) and not seen.scaled
    np.testing.assert_array_equal(frames.seen(seen)[:30, :45], seen.picture)
    expected = np.zeros((4, 6), bool)
    expected[0, :2] = True  # a token with any pixel of the mask
    np.testing.assert_array_equal(frames.masked_tokens(seen, DOWNSAMPLE), expected)


@pytest.mark.parametrize(
    "size, box, window",
    [
        ((400, 600), (100, 100, 140, 120), (80, 70, 160, 150)),  # twice as wide as what is redrawn
        ((400, 600), (0, 390, 10, 400), (0, 368, 32, 400)),  # at a corner, as large as in training
        ((400, 600), (50, 0, 550, 400), (0, 0, 600, 400)),  # all there is
    ],
)
def test_of_a_large_picture_a_window_is_seen(size, box, window):
    seen = frame(*size, box)
    assert seen.window == window and seen.scaled
    left, top, right, bottom = window
    proportion = (right - left) / (bottom - top)
    assert seen.size[0] * seen.size[1] == pytest.approx(32 * 32, rel=0.3)
    assert seen.size[1] / seen.size[0] == pytest.approx(proportion, rel=0.3)
    assert frames.seen(seen).shape == (*seen.size, 3)


def test_a_model_of_one_size_sees_that_size():
    assert frame(48, 40, (0, 0, 9, 9), any_grid=False).size == TRAINED
    assert frame(8, 12, (0, 0, 9, 9), any_grid=False).size == TRAINED
    assert frame(400, 600, (10, 10, 500, 30), size=(16, 24)).size == (16, 24)


@pytest.mark.parametrize("size", [(30, 45), (400, 600), (10, 12)])
def test_pixels_outside_the_mask_stay_exactly(size):
    seen = frame(*size, (2, 3, 9, 8))
    drawn = picture(*seen.size, seed=1)
    result = frames.pasted(seen, drawn, DOWNSAMPLE, "mask")
    np.testing.assert_array_equal(result[~seen.masked], seen.picture[~seen.masked])
    assert (result[seen.masked] != seen.picture[seen.masked]).any()


def test_pixels_of_tokens_or_none_are_kept():
    seen, drawn = frame(32, 32, (2, 3, 9, 8)), picture(32, 32, seed=1)
    result = frames.pasted(seen, drawn, DOWNSAMPLE, "tokens")
    assert (result[:8, :16] != seen.picture[:8, :16]).any(axis=-1).mean() > 0.9
    np.testing.assert_array_equal(result[8:], seen.picture[8:])
    np.testing.assert_array_equal(result[:, 16:], seen.picture[:, 16:])
    np.testing.assert_array_equal(frames.pasted(seen, drawn, DOWNSAMPLE, "none"), drawn)


def test_redrawn_tokens_take_the_colours_of_those_around_them():
    """As a tokenizer would change them: here the left half more than the right one."""
    before = picture(32, 32).astype(np.int64) // 4 + 90
    shift = np.array([30, -20, 5]) + np.where(np.arange(32) < 16, 10, -10)[None, :, None]
    redrawn = np.zeros((4, 4), bool)
    redrawn[1:3, 1:3] = True
    inside = redrawn.repeat(8, axis=0).repeat(8, axis=1)
    drawn = (before + shift).astype(np.uint8)
    result = frames.matched(drawn, before.astype(np.uint8), redrawn, 8)
    error = np.abs(result.astype(float) - before)
    assert error[inside].mean() < 6 < np.abs(shift).mean()
    np.testing.assert_array_equal(frames.matched(drawn, drawn * 0, redrawn | True, 8), drawn)


def test_an_empty_mask_changes_nothing_and_a_full_one_all():
    empty, full = frame(32, 32, (0, 0, 0, 0)), frame(32, 32, (0, 0, 32, 32))
    drawn = picture(32, 32, seed=1)
    assert not frames.masked_tokens(empty, DOWNSAMPLE).any()
    assert frames.masked_tokens(full, DOWNSAMPLE).all()
    np.testing.assert_array_equal(frames.pasted(full, drawn, DOWNSAMPLE, "mask"), drawn)


def test_a_canvas_is_redrawn_around_the_picture():
    given, nothing = picture(4, 6), np.zeros((4, 6), bool)
    whole, masked = frames.placed(given, nothing, (12, 8), None)
    assert whole.shape == (8, 12, 3)
    np.testing.assert_array_equal(whole[2:6, 3:9], given)
    np.testing.assert_array_equal(~masked, mask(8, 12, (3, 2, 9, 6)))
    _, masked = frames.placed(given, nothing, (12, 8), (0, 4))
    np.testing.assert_array_equal(~masked, mask(8, 12, (0, 4, 6, 8)))
    with pytest.raises(InputError, match="canvas=5x8, expected at least the 6x4 pixels"):
        frames.placed(given, nothing, (5, 8), None)
    with pytest.raises(InputError, match="place=7,0, expected 0,0 to 6,4"):
        frames.placed(given, nothing, (12, 8), (7, 0))
