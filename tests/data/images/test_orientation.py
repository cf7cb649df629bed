import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from maskgil_jax.data.images import buckets, image_decoder, orientation
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.image_records import Record
from tests.helpers.image_files import encoded, exif, halves, with_chunks, with_segment

WIDE = halves("white", "black")
WIDTH_AS_TEXT = struct.pack("<HHI", 0x100, 2, 4) + b"abc\0"
RATIONAL_OF_ZERO = struct.pack("<HHII", 0x11A, 5, 1, 0)  # points to the header: 0x2A4949 / 8
SUB_DIRECTORY = struct.pack("<HHII", 0x8769, 4, 1, 8)  # the first directory again


def jpeg_with(metadata):
    return with_segment(encoded(WIDE, "JPEG", quality=95), 0xE1, b"Exif\0\0" + metadata)


def png_with(metadata):
    return with_chunks(encoded(WIDE), [(b"eXIf", metadata)])


def png_with_late(metadata):
    return with_chunks(encoded(WIDE), after=[(b"eXIf", metadata)])


def png_with_raw_profile(metadata):
    text = b"\nexif\n%8d\n" % len(metadata) + metadata.hex().encode() + b"\n"
    packed = b"Raw profile type exif\0\0" + zlib.compress(text)
    return with_chunks(encoded(WIDE), [(b"zTXt", packed)])


def webp_with(metadata):
    return encoded(WIDE, "WEBP", lossless=True, exif=metadata)


FILES = (jpeg_with, png_with, png_with_late, png_with_raw_profile, webp_with)


def turned(value):
    """What Pillow makes of a file of which it likes the metadata."""
    tag = Image.Exif()
    tag[0x112] = value
    image = Image.open(io.BytesIO(encoded(WIDE, exif=tag)))
    return ImageOps.exif_transpose(image)


@pytest.mark.parametrize("value", range(11))
@pytest.mark.parametrize("file", FILES)
def test_each_orientation_is_applied_and_others_are_upright(file, value):
    data, expected = file(exif(value)), turned(value)
    image = image_decoder.decode(data)
    assert image.size == expected.size == image_decoder.upright_size(data)[::-1]
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(expected)).max()
    assert difference < (60 if file is jpeg_with else 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind, size", [(1, (16, 32)), (3, (16, 32)), (4, (16, 32)), (2, (32, 16))])
def test_the_value_may_be_of_any_type_of_integer(order, kind, size):
    assert image_decoder.decode(png_with(exif(6, kind, order))).size == size


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("entry", [WIDTH_AS_TEXT, RATIONAL_OF_ZERO, SUB_DIRECTORY])
def test_tags_that_cannot_be_rewritten_do_not_matter(file, entry):
    data = file(exif(6, entries=[entry]))
    assert image_decoder.decode(data).size == (16, 32) and image_decoder.upright_size(data) == (
        32,
        16,
    )


BROKEN = {
    "empty": b"",
    "noise": bytes(range(256)),
    "cut": exif(6)[:15],
    "cut in the tag": exif(6)[:19],
    "pointing behind its end": b"II*\0" + struct.pack("<I", 2**31),
    "of another order": b"XX*\0" + exif(6)[4:],
    "of many entries": b"II*\0" + struct.pack("<IH", 8, 65535),
    "pointing at itself": b"II*\0" + bytes(4) + exif(6)[8:],
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_refuse_no_image(file, name):
    data = file(BROKEN[name])
    assert image_decoder.decode(data).size == (32, 16) and image_decoder.upright_size(data) == (
        16,
        32,
    )


@pytest.mark.parametrize("value, size", [(b"6", (16, 32)), (b"9", (32, 16))])
def test_xmp_turns_where_exif_says_nothing(value, size):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="%s"/></x:xmpmeta>' % value
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)
    files = [with_chunks(encoded(WIDE), [(b"iTXt", t)]) for t in (text, packed)]
    segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    files.append(with_segment(encoded(WIDE, "JPEG"), 0xE1, segment))
    files.append(encoded(WIDE, "WEBP", xmp=xmp))
    assert [image_decoder.decode(data).size for data in files] == [size] * 4
    both = with_chunks(encoded(WIDE), [(b"iTXt", text), (b"eXIf", exif(1))])
    assert image_decoder.decode(both).size == (32, 16)  # EXIF counts first


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("value", [1, 3, 5, 6, 7, 8, 9])
def test_a_tiff_is_turned_too(compression, value):
    options = {"compression": compression} if compression else {}
    value = min(value, 8) if compression else value  # libtiff writes no others
    data = encoded(WIDE, "TIFF", tiffinfo={0x112: value}, **options)
    image = image_decoder.decode(data)
    assert image.size == turned(value).size == image_decoder.upright_size(data)[::-1]
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(turned(value))).max()
    assert difference < (60 if compression == "jpeg" else 1)


@pytest.mark.parametrize("file", [png_with, png_with_late, jpeg_with])
@pytest.mark.parametrize("value, tall", [(6, True), (8, True), (1, False), (3, False), (9, False)])
def test_a_turned_image_gets_the_bucket_of_its_upright_size(file, value, tall):
    class One:
        census = Census(1)

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Record(file(exif(value)), 0, "0")

    chosen = buckets.named("lumina", 256, 16)
    height, width = chosen.sizes[chosen.of_images(One())[0]]
    assert (height, width) == ((320, 160) if tall else (160, 320))


def test_only_the_tag_is_read():
    assert orientation.of_metadata(b"Exif\0\0Exif\0\0" + exif(6), b"") == 6
    assert orientation.of_metadata(exif(0), b'tiff:Orientation="6"') == 1
    assert orientation.of_metadata(b"", b"<tiff:Orientation>3</tiff:Orientation>") == 3
