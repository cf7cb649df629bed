import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from maskgil_jax.data.images import image_decoder, png
from tests.helpers import image_files
from tests.helpers.image_files import encoded, with_chunks

RED = Image.new("RGB", (16, 16), (255, 0, 0))
LONG = b"x" * 2_000_000


def texts():
    packed = zlib.compress(LONG)
    return {
        "packed text": (b"zTXt", b"workflow\0\0" + packed),
        "text": (b"tEXt", b"workflow\0" + LONG),
        "international text": (b"iTXt", b"workflow\0\0\0en\0workflow\0" + LONG),
        "packed international text": (b"iTXt", b"workflow\0\1\0en\0workflow\0" + packed),
        "a profile": (b"iCCP", b"profile\0\0" + packed),
        "a profile that is not packed": (b"iCCP", b"profile\0\0" + LONG),
        "text that is not packed": (b"zTXt", b"workflow\0\0" + LONG),
        "metadata of ImageMagick": (b"zTXt", b"Raw profile type exif\0\0" + packed),
        "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
        "EXIF": (b"eXIf", LONG),
        "a chunk of a program's own": (b"prVt", LONG),
    }


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", texts())
def test_megabytes_beside_the_pixels_refuse_no_image(name, late):
    content = [texts()[name]]
    data = with_chunks(encoded(RED), () if late else content, content if late else ())
    assert np.unique(np.asarray(image_decoder.decode(data)).reshape(-1, 3), axis=0).tolist() == [
        [255, 0, 0]
    ]
    assert image_decoder.upright_size(data) == (16, 16)


def test_many_texts_refuse_no_image_either():
    info = PngImagePlugin.PngInfo()
    for number in range(100):
        info.add_text(f"text {number}", "x" * 900_000, zip=True)
    assert image_decoder.decode(encoded(RED, pnginfo=info)).getpixel((0, 0)) == (255, 0, 0)


def test_a_bomb_of_text_is_not_unpacked():
    packed = zlib.compress(bytes(1 << 26), 9)
    keywords = (b"Raw profile type exif\0\0", b"profile\0\0")
    for name, keyword in zip((b"zTXt", b"iCCP"), keywords, strict=True):
        found = png.read_content(with_chunks(encoded(RED), [(name, keyword + packed)]))
        assert not found.exif and not found.profile
    assert len(png._text(b"zTXt", b"\0" + packed)) == png.LARGEST_TEXT


def test_a_wrong_checksum_of_what_is_optional_refuses_no_image():
    data = with_chunks(encoded(RED), [(b"tEXt", b"a\0b"), (b"pHYs", bytes(9))])
    for name in (b"tEXt", b"pHYs"):
        place = data.index(name) + 4
        assert image_decoder.decode(data[:place] + b"?" + data[place + 1 :]).size == (16, 16)
    place = data.index(b"IDAT") + 6
    with pytest.raises(image_decoder.UnreadableImage):
        image_decoder.decode(data[:place] + b"?" + data[place + 1 :])


def test_of_a_cut_file_nothing_is_left_out():
    data = with_chunks(encoded(image_files.photo((64, 64))), [(b"tEXt", b"a\0" + bytes(99))])
    for end in range(0, len(data) - 12, 97):
        with pytest.raises(image_decoder.UnreadableImage):
            image_decoder.decode(data[:end])


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_that_is_transparent_is_white(depth):
    levels = np.arange(2**depth, dtype=np.uint32) if depth < 8 else np.array([0, 100, 200, 255])
    values = np.resize(levels << (8 if depth == 16 else 0), 16)  # a row of all levels
    bits = ((values[:, None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8)
    rows = [np.packbits(bits.ravel()).tobytes()] * 16
    key = int(values[1])
    plain, clear = (
        np.asarray(image_decoder.decode(image_files.png(rows, depth, 0, before)))[0, :, 0]
        for before in ((), [(b"tRNS", key.to_bytes(2, "big"))])
    )
    assert len(set(plain)) == len(set(values.tolist()))
    np.testing.assert_array_equal(clear, np.where(values == key, 255, plain))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_colour_that_is_transparent_is_white(depth):
    pixel, other = (b"\x00\x64\x00\x20\x00\x10", b"\x00\x64\x00\x20\x00\x11")
    if depth == 16:
        key, row = b"\x64\x11\x20\x22\x10\x33", b"\x64\x11\x20\x22\x10\x33\x64\x11\x20\x22\x11\x33"
    else:
        key, row = pixel, pixel[1::2] + other[1::2]
    data = image_files.png([row * 8] * 16, depth, 2, [(b"tRNS", key)])
    found = np.asarray(image_decoder.decode(data))
    assert (found[:, ::2] == 255).all() and (found[:, 1::2] == (100, 32, 17)).all()


def test_an_unusual_16_bit_tiff_is_refused_not_guessed():
    floats = Image.fromarray(np.full((16, 16), 0.5, np.float32))
    wide = Image.fromarray(np.full((16, 16), 70_000, np.int32))
    for image in (floats, wide):
        with pytest.raises(image_decoder.UnreadableImage, match="samples of 32 bits") as error:
            image_decoder.decode(encoded(image, "TIFF"))
        assert error.value.kind == "an image of unusual samples"
    grey = Image.fromarray(np.full((16, 16), 51_400, np.uint16))
    assert image_decoder.decode(encoded(grey, "TIFF")).getpixel((0, 0)) == (200, 200, 200)
