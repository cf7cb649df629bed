import io
import threading

import numpy as np
import pytest
from PIL import Image, ImageCms

from maskgil_jax.data.images import color, image_decoder
from maskgil_jax.runtime.errors import InputError
from tests.helpers.image_files import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    encoded,
    icc,
    icc_of_inks,
    photo,
    with_chunks,
)

PATCH = Image.new("RGB", (16, 16), (200, 60, 60))


def srgb_of(values, columns, gamma):
    """By the definition: linear light, XYZ of D50, sRGB."""
    light = (np.array(values) / 255) ** gamma
    linear = np.clip(np.linalg.inv(np.array(SRGB).T) @ np.array(columns).T @ light, 0, 1)
    encoded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * encoded


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_display_p3_patch_is_what_browsers_show(kind):
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}.get(kind, {"quality": 100})
    data = encoded(PATCH, kind, icc_profile=icc(DISPLAY_P3), **options)
    found = image_decoder.decode(data).getpixel((8, 8))
    np.testing.assert_allclose(found, (219, 37, 49), atol=3)
    np.testing.assert_allclose(
        image_decoder.decode(data, "ignore").getpixel((8, 8)), (200, 60, 60), atol=3
    )


@pytest.mark.parametrize("columns, gamma", [(DISPLAY_P3, 2.2), (ADOBE_RGB, 2.2), (PROPHOTO, 1.8)])
def test_colours_are_converted_by_their_definition(columns, gamma):
    profile = icc(columns, gamma)
    for patch in ((200, 60, 60), (90, 140, 100), (128, 128, 128), (20, 30, 40), (255, 255, 255)):
        data = encoded(Image.new("RGB", (8, 8), patch), icc_profile=profile)
        found = image_decoder.decode(data).getpixel((0, 0))
        np.testing.assert_allclose(found, srgb_of(patch, columns, gamma), atol=2)


@pytest.mark.parametrize("color", ["srgb", "ignore"])
def test_pixels_of_a_jpeg_with_a_profile_are_those_of_the_image(color):
    data = encoded(PATCH, "JPEG", icc_profile=icc(DISPLAY_P3))
    whole = np.asarray(image_decoder.decode(data, color))
    with image_decoder.opened_pixels(data, color) as pixels:
        np.testing.assert_array_equal(pixels, whole)
    stored = np.asarray(Image.open(io.BytesIO(data)))
    assert (color == "ignore") == np.array_equal(whole, stored)


def test_a_profile_of_srgb_changes_no_pixel():
    image = photo((64, 64))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(image, icc_profile=profile)
    np.testing.assert_array_equal(np.asarray(image_decoder.decode(data)), np.asarray(image))
    assert color.transform(profile, "RGB") is None


@pytest.mark.parametrize("damage", ["noise", "cut", "empty", "of Lab", "huge"])
def test_a_broken_profile_is_ignored_and_said_once(damage, caplog):
    whole = icc(DISPLAY_P3)
    profile = {
        "noise": bytes(range(256)),
        "cut": whole[:200],
        "empty": b"\0",
        "of Lab": whole.replace(b"RGB ", b"Lab ", 1),
        "huge": whole + bytes(color.LARGEST_PROFILE),
    }[damage]
    color.transform.cache_clear()
    color._warn.cache_clear()
    for kind in ("TIFF", "PNG"):
        data = encoded(PATCH, kind, icc_profile=profile)
        assert [image_decoder.decode(data).getpixel((0, 0)) for _ in range(3)] == [
            (200, 60, 60)
        ] * 3
    assert len(caplog.records) == (damage != "of Lab")


def test_grey_goes_by_a_profile_of_grey_or_of_colours():
    grey = Image.new("L", (16, 16), 128)
    linear = encoded(grey, icc_profile=icc((), 1.0))
    np.testing.assert_allclose(image_decoder.decode(linear).getpixel((0, 0)), (188,) * 3, atol=1)
    photoshop = encoded(grey, "JPEG", icc_profile=icc(PROPHOTO, 1.8))
    expected = srgb_of((128,) * 3, PROPHOTO, 1.8)
    np.testing.assert_allclose(image_decoder.decode(photoshop).getpixel((0, 0)), expected, atol=2)
    wrong = encoded(PATCH, icc_profile=icc((), 1.0))  # of grey, in an image of colours
    assert image_decoder.decode(wrong).getpixel((0, 0)) == (200, 60, 60)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_what_is_transparent_is_converted_and_then_blended(mode):
    image = PATCH.convert("L" if mode == "LA" else "RGB")
    level = image.getpixel((0, 0))
    image.putalpha(128)
    image = image if mode != "P" else image.quantize(4)
    found = image_decoder.decode(encoded(image, icc_profile=icc(DISPLAY_P3))).getpixel((0, 0))
    solid = srgb_of((level,) * 3 if mode == "LA" else level, DISPLAY_P3, 2.2)
    np.testing.assert_allclose(found, 255 + (solid - 255) * 128 / 255, atol=3)


@pytest.mark.parametrize(
    "kind, options", [("JPEG", {"subsampling": 0}), ("JPEG", {}), ("TIFF", {})]
)
def test_a_cmyk_image_goes_through_its_profile(kind, options):
    profile = icc_of_inks()
    for inks, level in (((0, 0, 0, 0), 255), ((255, 0, 0, 0), 119), ((0, 0, 0, 255), 0)):
        image = Image.new("CMYK", (16, 16), inks)
        data = encoded(image, kind, icc_profile=profile, **options)
        np.testing.assert_allclose(
            image_decoder.decode(data).getpixel((8, 8)), (level,) * 3, atol=4
        )
        plain = np.asarray(image_decoder.decode(data, "ignore"))
        np.testing.assert_allclose(plain, np.asarray(image.convert("RGB")), atol=3)
    wrong = encoded(Image.new("CMYK", (16, 16)), kind, icc_profile=icc(DISPLAY_P3), **options)
    assert image_decoder.decode(wrong).getpixel((8, 8)) == (
        255,
        255,
        255,
    )  # of colours, not of inks


def test_other_descriptions_of_colour_are_not_read():
    data = with_chunks(encoded(PATCH), [(b"gAMA", (100_000).to_bytes(4, "big"))])
    assert image_decoder.decode(data).getpixel((0, 0)) == (200, 60, 60)


def test_threads_convert_alike():
    image = photo((300, 200))
    data = encoded(image, icc_profile=icc(ADOBE_RGB))
    expected, found = np.asarray(image_decoder.decode(data)), []
    color.transform.cache_clear()
    threads = [
        threading.Thread(target=lambda: found.append(image_decoder.decode(data))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for other in found:
        np.testing.assert_array_equal(np.asarray(other), expected)


def test_an_unknown_choice_is_refused():
    with pytest.raises(InputError, match="config.data.color = 'p3', expected one of srgb, ignore"):
        color.check_color("p3", "config.data.color")


def test_pixels_without_a_profile_are_those_that_are_stored():
    image = photo((40, 30))
    for choice in color.COLORS:
        found = image_decoder.decode(encoded(image), choice)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(image))
    assert Image.open(io.BytesIO(encoded(image))).info.get("icc_profile") is None
