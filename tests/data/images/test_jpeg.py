import io

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data.images import image_decoder, jpeg
from tests.helpers.image_files import encoded, photo, with_segment

END = b"\xff\xd9"


def scan_of(data):
    """Where the codes of the pixels begin."""
    return data.index(b"\xff\xda") + 14


OPTIONS = [
    {"subsampling": s, "quality": q, "progressive": p, "restart_marker_blocks": r}
    for s in (0, 1, 2)
    for q in (30, 95)
    for p in (False, True)
    for r in (0, 3)
]


@pytest.mark.parametrize("options", OPTIONS)
def test_pixels_are_those_of_pillow(options):
    for mode, size in (("RGB", (97, 61)), ("L", (64, 64)), ("CMYK", (33, 20)), ("RGB", (8, 8))):
        data = encoded(photo(size).convert(mode), "JPEG", **options)
        with Image.open(io.BytesIO(data)) as file:
            expected = np.asarray(file.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(image_decoder.decode(data)), expected)


def test_a_jpeg_that_simplejpeg_does_not_know_is_left_to_pillow():
    data = encoded(photo((64, 64)).convert("CMYK"), "JPEG", subsampling=2)
    assert jpeg.decode(data, (64, 64)) is None
    assert image_decoder.decode(data).size == (64, 64)


def damaged():
    plain = encoded(photo(), "JPEG", quality=90)
    parted = encoded(photo(), "JPEG", quality=90, restart_marker_rows=1)
    progressive = encoded(photo(), "JPEG", quality=90, progressive=True)
    grey = encoded(photo().convert("L"), "JPEG", quality=90)
    middle = len(plain) // 2
    noise = np.random.default_rng(0).integers(0, 255, 2000, np.uint8).tobytes()  # no marker in it
    restart = parted.index(b"\xff\xd2")
    return {
        "half and an end": plain[:middle] + END,
        "a quarter and an end": plain[: len(plain) // 4] + END,
        "half of grey and an end": grey[: len(grey) // 2] + END,
        "half of progressive and an end": progressive[: len(progressive) // 2] + END,
        "without an end": plain[:-2],
        "cut": plain[:middle],
        "a hole of zeros": plain[:middle] + bytes(3000) + plain[middle + 3000 :],
        "a hole of noise": plain[:middle] + noise + plain[middle + 2000 :],
        "a hole that is left out": plain[:middle] + plain[middle + 3000 :],
        "a hole in one of its parts": parted[: restart - 200] + bytes(150) + parted[restart - 50 :],
        "a part that is left out": parted[:restart] + parted[parted.index(b"\xff\xd3") :],
        "markers in a hole": plain[:middle] + b"\xff\xd3" * 40 + plain[middle + 80 :],
        "another image in the middle": plain[:middle] + grey,
        "no pixels": plain[: scan_of(plain)] + END,
    }


@pytest.mark.parametrize("name", damaged())
def test_damage_is_noticed(name):
    with pytest.raises(image_decoder.UnreadableImage) as error:
        image_decoder.decode(damaged()[name])
    assert error.value.kind == "a damaged image" and str(error.value)


def test_most_holes_are_noticed():
    """As a stream of codes the zeros may be valid, and stand for as many blocks as they replace."""
    data, rng, noticed = encoded(photo(seed=1), "JPEG", quality=90), np.random.default_rng(0), 0
    for _ in range(100):
        start = int(rng.integers(scan_of(data), len(data) - 600))
        try:
            image_decoder.decode(data[:start] + bytes(512) + data[start + 512 :])
        except image_decoder.UnreadableImage:
            noticed += 1
    assert noticed >= 99


def harmless():
    plain = encoded(photo(), "JPEG", quality=90)
    progressive = encoded(photo(), "JPEG", quality=90, progressive=True)
    scan = plain.index(b"\xff\xda")
    parameters = scan_of(plain) - 3
    return {
        "bytes after the end": (plain, plain + b"junk" * 100),
        "another image after the end": (plain, plain + progressive),
        "a byte before the end": (plain, plain[:-2] + b"\x55" + END),
        "two bytes before the end": (plain, plain[:-2] + b"\x55\x11" + END),
        "zeros before the end": (plain, plain[:-2] + bytes(500) + END),
        "zeros before the end of a progressive one": (
            progressive,
            progressive[:-2] + bytes(500) + END,
        ),
        "fill bytes before a marker": (plain, plain[:scan] + b"\xff" * 9 + plain[scan:]),
        "junk in the header": (plain, plain[:scan] + b"junk" + plain[scan:]),
        "an unknown revision of JFIF": (plain, plain[:11] + b"\7\7" + plain[13:]),
        "parameters of a progressive scan": (
            plain,
            plain[:parameters] + b"\0\0\0" + plain[parameters + 3 :],
        ),
        "an unknown transform of Adobe": (
            plain,
            with_segment(plain, 0xEE, b"Adobe\0\x64\0\0\0\0\7"),
        ),
        "all of these": (
            plain,
            with_segment(plain[:11] + b"\7" + plain[12:-2], 0xEE, b"Adobe\0\x64\0\0\0\0\7")
            + b"\0\0"
            + END
            + b"junk",
        ),
        "a damaged thumbnail": (plain, with_segment(plain, 0xE1, b"Exif\0\0" + plain[:500] + END)),
        "a comment": (plain, with_segment(plain, 0xFE, b"\xff\xda\xff\xd9" * 9)),
    }


@pytest.mark.parametrize("name", harmless())
def test_what_does_no_harm_is_read(name):
    good, odd = harmless()[name]
    np.testing.assert_array_equal(
        np.asarray(image_decoder.decode(odd)), np.asarray(image_decoder.decode(good))
    )


def test_damage_behind_something_harmless_is_noticed():
    good = harmless()["all of these"][1]
    middle = len(good) // 2
    with pytest.raises(image_decoder.UnreadableImage):
        image_decoder.decode(good[:middle] + bytes(3000) + good[middle + 3000 :])


def test_zeros_that_are_codes_are_read():
    flat = Image.new("RGB", (2000, 2000), "white")
    flat.paste(photo((64, 64)), (0, 0))
    data = encoded(flat, "JPEG", quality=90, optimize=True)
    assert bytes(jpeg.LONGEST_ZEROS) in data[scan_of(data) :]
    assert image_decoder.decode(data).getpixel((1999, 1999)) == (255, 255, 255)


def test_tidying_changes_nothing_of_a_good_picture():
    for options in OPTIONS[:8]:
        data = encoded(photo((97, 61)), "JPEG", comment=b"hello", **options)
        tidy = jpeg.tidied(data)
        assert jpeg.tidied(tidy) == tidy and len(tidy) < len(data)
        np.testing.assert_array_equal(
            np.asarray(image_decoder.decode(tidy)), np.asarray(image_decoder.decode(data))
        )


def test_tidying_ends_on_any_bytes():
    rng = np.random.default_rng(0)
    data = encoded(photo((32, 32)), "JPEG")
    for length in range(0, len(data), 7):
        jpeg.tidied(data[:length])
        jpeg.tidied(data[:2] + rng.bytes(length))
        jpeg.tidied(data[:2] + b"\xff" * length)
