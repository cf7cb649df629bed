import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data import pipeline
from maskgil_jax.data.images import cropping, image_decoder
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError

RED = (200, 30, 40)


@pytest.mark.parametrize("size", [(1, 1), (300, 20), (20, 300), (64, 64), (257, 255)])
def test_crops_have_the_asked_size(size):
    image = Image.new("RGB", size, RED)
    rng = np.random.default_rng(0)
    for crop in (cropping.center_crop(image, 32), cropping.random_crop(image, 32, 32, rng)):
        assert crop.shape == (32, 32, 3) and crop.dtype == np.uint8 and (crop == RED).all()
    assert cropping.ten_crop(image, 32).shape == (10, 32, 32, 3)


@pytest.mark.parametrize("size", [(8, 8), (300, 20), (97, 301), (640, 480), (65, 31)])
def test_a_bucket_crop_covers_its_shape_and_cuts_only_one_way(size):
    gradient = np.linspace(0, 255, size[0])[None, :, None] + np.zeros((size[1], 1, 3))
    image = Image.fromarray(gradient.astype(np.uint8))
    crop = cropping.bucket_crop(image, 32, 64)
    assert crop.shape == (32, 64, 3) and crop.dtype == np.uint8
    if size[0] < 2 * size[1]:  # narrower than the bucket: both sides are still there
        assert crop[..., 0].min() < 20 and crop[..., 0].max() > 235
    assert abs(float(crop.mean()) - 127) < 12  # the middle is cut
    places = {
        cropping.bucket_crop(image, 32, 64, np.random.default_rng(s)).tobytes() for s in (1, 2)
    }
    assert len(places) == 1 + (size[0] > 2 * size[1])


def test_a_square_bucket_is_the_centre_crop():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (173, 90, 3), np.uint8))
    np.testing.assert_array_equal(
        cropping.bucket_crop(image, 32, 32), cropping.center_crop(image, 32)
    )


def test_random_views_are_crops_of_training_half_of_them_mirrored():
    image = Image.new("RGB", (64, 64), "white")
    image.paste(RED, (0, 0, 32, 64))
    views = cropping.random_views(image, 32, 32, 20, np.random.default_rng(0))
    assert views.shape == (20, 32, 32, 3) and views.dtype == np.uint8
    mirrored = (views[:, :, -1] == RED).all((1, 2))
    assert 5 <= mirrored.sum() <= 15
    again = cropping.random_views(image, 32, 32, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(views, again)
    assert len({view.tobytes() for view in views}) > 10


def test_the_centre_crop_keeps_the_middle():
    image = Image.new("RGB", (96, 32), "white")
    image.paste(RED, (32, 0, 64, 32))
    assert (cropping.center_crop(image, 32) == RED).all()


def test_ten_crops_are_five_and_their_mirrors():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (35, 35, 3), np.uint8))
    crops = cropping.ten_crop(image, 32)
    np.testing.assert_array_equal(crops[5:], crops[:5, :, ::-1])
    assert len({crop.tobytes() for crop in crops}) == 10


def test_a_random_crop_may_keep_the_whole_short_side():
    column = np.arange(32, dtype=np.uint8)[:, None, None]
    image = Image.fromarray(np.broadcast_to(column, (32, 64, 3)).copy())
    crop = cropping.random_crop(image, 32, 32, np.random.default_rng(1), smallest=1.0)
    np.testing.assert_array_equal(crop, np.broadcast_to(column, (32, 32, 3)))


def test_random_crops_differ_and_follow_the_generator():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    one, two = (cropping.random_crop(image, 32, 32, np.random.default_rng(s)) for s in (1, 2))
    assert (one != two).any()
    np.testing.assert_array_equal(
        one, cropping.random_crop(image, 32, 32, np.random.default_rng(1))
    )


def detailed(height, width):
    """Edges and texture as of a photo: discs of all sizes, and fine noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    array = np.full((height, width, 3), 128.0)
    for _ in range(60):
        inside = (y - rng.uniform(0, height)) ** 2 + (x - rng.uniform(0, width)) ** 2
        array[inside < rng.uniform(4, height / 4) ** 2] = rng.uniform(0, 255, 3)
    array += rng.normal(0, 4, array.shape)
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "size, decoded, at_least",
    [
        ((96, 96), (96, 96), 34),
        ((150, 200), (150, 200), 27),
        ((300, 410), (150, 205), 29),
        ((640, 500), (160, 125), 30),
    ],
)
def test_fast_crops_are_those_of_the_exact_way_but_for_the_filter(size, decoded, at_least):
    pytest.importorskip("cv2", reason="needs the extra [fast]")
    stream = io.BytesIO()
    detailed(*size).save(stream, "JPEG", quality=92)
    with image_decoder.opened(stream.getvalue(), at_least=(100, 100)) as image:
        assert image.size[::-1] == decoded
    record = image_records.Record(stream.getvalue(), 0, "x")
    crops = []
    for resize in ("exact", "fast"):
        load = pipeline.image_loader(
            [record], np.zeros(1, int), sizes=[(80, 80)], crop="random", flip=True, resize=resize
        )
        crops.append([load(0, np.random.default_rng(i))["image"] for i in range(4)])
    for exact, fast in zip(*crops, strict=True):
        error = np.mean((exact.astype(float) - fast) ** 2)
        assert exact.shape == fast.shape and 10 * np.log10(255**2 / error) > at_least


def test_exact_crops_are_decoded_whole():
    stream = io.BytesIO()
    detailed(300, 400).save(stream, "JPEG")
    whole = image_decoder.decode(stream.getvalue())
    load = pipeline.image_loader(
        [image_records.Record(stream.getvalue(), 0, "x")],
        np.zeros(1, int),
        sizes=[(64, 64)],
        crop="random",
        flip=False,
    )
    expected = cropping.random_crop(whole, 64, 64, np.random.default_rng(3))
    np.testing.assert_array_equal(load(0, np.random.default_rng(3))["image"], expected)


def test_a_way_of_resizing_that_is_not_there_is_named(monkeypatch):
    with pytest.raises(
        InputError, match="config.data.resize = 'best', expected one of exact, fast"
    ):
        cropping.check_resize("best")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="'fast' needs OpenCV"):
        cropping.check_resize("fast")


def test_a_mirrored_crop_is_the_crop_left_to_right():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)[1:, 2:]
    mirror = cropping.mirrored(pixels)
    np.testing.assert_array_equal(mirror, pixels[:, ::-1])
    assert mirror.flags.c_contiguous
