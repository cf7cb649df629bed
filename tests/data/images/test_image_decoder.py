import contextlib
import io
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data.images import cropping, image_decoder
from maskgil_jax.data.records.image_records import Record, opened_image, opened_pixels
from maskgil_jax.runtime.errors import Unreadable
from maskgil_jax.runtime.memory_budget import Budget

RED = (200, 30, 40)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "mode, kind",
    [
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("CMYK", "JPEG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("RGBA", "WEBP"),
        ("1", "PNG"),
        ("I;16", "PNG"),
    ],
)
def test_every_kind_of_image_becomes_rgb(mode, kind):
    image = Image.new("RGB", (20, 12), "white")
    image = Image.fromarray(np.full((12, 20), 65535, np.uint16)) if mode == "I;16" else image
    decoded = image_decoder.decode(encoded(image.convert(mode) if mode != "I;16" else image, kind))
    assert decoded.mode == "RGB" and decoded.size == (20, 12)
    assert np.asarray(decoded).min() > 250  # white stays white


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "mode, kind", [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")]
)
def test_pixels_are_those_of_the_image(mode, kind, turned):
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    options = {}
    if turned:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    data = encoded(Image.fromarray(noise).convert(mode), kind, **options)
    with image_decoder.opened(data) as image, image_decoder.opened_pixels(data) as pixels:
        assert pixels.shape == ((40, 24, 3) if turned else (24, 40, 3))
        np.testing.assert_array_equal(pixels, np.asarray(image))


def test_damaged_pixels_are_unreadable_and_named():
    data = encoded(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG"
    )
    with (
        pytest.raises(Unreadable, match="broken.jpg"),
        opened_pixels(Record(data[:-900], 0, "broken.jpg")),
    ):
        pass


def test_transparency_is_blended_on_white():
    image = Image.new("RGBA", (8, 8), (*RED, 0))
    assert np.asarray(image_decoder.decode(encoded(image))).min() == 255
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([*RED, 0, 0, 0])
    assert np.asarray(image_decoder.decode(encoded(palette, transparency=0))).min() == 255


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (20, 10), "white")
    image.paste(RED, (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    decoded = image_decoder.decode(encoded(image, exif=exif))
    assert decoded.size == (10, 20)
    assert decoded.getpixel((5, 2)) == RED and decoded.getpixel((5, 18)) == (255, 255, 255)


@pytest.mark.parametrize(
    "data", [b"", b"no image", encoded(Image.new("RGB", (64, 64)), "JPEG")[:200]]
)
def test_broken_bytes_are_unreadable(data):
    with pytest.raises(image_decoder.UnreadableImage):
        image_decoder.decode(data)


def jpeg_claiming(width, height):
    """A small JPEG file whose header tells of another size."""
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize("width, height", [(20000, 20000), (10000, 9000), (65500, 65500)])
def test_a_decompression_bomb_is_refused_by_its_header_without_a_warning(width, height, recwarn):
    message = f"a decompression bomb of {width} x {height} pixels, expected at most 89,478,485"
    with pytest.raises(image_decoder.UnreadableImage, match=message):
        image_decoder.decode(jpeg_claiming(width, height))
    assert not recwarn.list


def test_a_bomb_that_could_be_decoded_is_refused_too():
    with pytest.raises(
        image_decoder.UnreadableImage, match="a decompression bomb of 20000 x 20000"
    ):
        image_decoder.decode(encoded(Image.new("1", (20000, 20000))))


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (7, 300)])
def test_images_too_small_to_show_anything_are_unreadable(size):
    message = f"only {size[0]} x {size[1]} pixels, expected at least 8 a side"
    with pytest.raises(image_decoder.UnreadableImage, match=message):
        image_decoder.decode(encoded(Image.new("RGB", size)))
    assert image_decoder.decode(encoded(Image.new("RGB", (8, 8)))).size == (8, 8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind):
    first, second = Image.new("RGB", (16, 16), "white"), Image.new("RGB", (16, 16), "black")
    data = encoded(first, kind, save_all=True, append_images=[second] * 3, duration=10)
    assert np.asarray(image_decoder.decode(data)).min() > 250


@pytest.mark.parametrize("channels, color_type", [(1, 0), (3, 2), (2, 4), (4, 6)])
def test_16_bit_png_keeps_its_range(channels, color_type):
    values = np.linspace(0, 65535, 16).astype(">u2")
    pixels = np.broadcast_to(values[:, None, None], (16, 16, channels)).copy()
    if channels in (2, 4):
        pixels[..., -1] = 65535  # opaque
    decoded = np.asarray(image_decoder.decode(png(pixels, color_type)))
    expected = np.broadcast_to(values[:, None, None] / 257, decoded.shape)
    np.testing.assert_allclose(decoded, expected, atol=1)


def png(pixels, color_type):
    """A file of 16 bits a sample, which Pillow does not write for every color type."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damaged_files_are_read_or_unreadable_but_nothing_else(kind):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    options = {} if kind in ("GIF", "BMP") else {"exif": exif}
    image = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
    whole = np.frombuffer(encoded(image, kind, **options), np.uint8)
    read = 0
    for _ in range(300):
        data = whole.copy()
        places = rng.integers(min(len(data), 300), size=rng.integers(1, 4))
        data[places] = rng.integers(256, size=len(places))
        try:
            read += image_decoder.decode(data.tobytes()).mode == "RGB"
        except image_decoder.UnreadableImage:
            pass
    assert 0 < read < 300


def test_programs_that_look_like_images_are_not_run():
    with pytest.raises(image_decoder.UnreadableImage, match="not an image"):
        image_decoder.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n")


def test_a_strip_that_would_fill_the_memory_is_unreadable():
    with pytest.raises(image_decoder.UnreadableImage, match="a strip of 5000 x 1 pixels"):
        image_decoder.decode(encoded(Image.new("RGB", (5000, 1))))


def test_threads_that_decode_hold_no_more_than_the_budget(monkeypatch):
    class Counted(Budget):
        now = most = 0

        @contextlib.contextmanager
        def taken(self, units):
            assert units == 64 * 48 * image_decoder.BYTES_PER_PIXEL
            with super().taken(units):
                self.now += units
                self.most = max(self.most, self.now)
                yield
                self.now -= units

    room = 3 * 64 * 48 * image_decoder.BYTES_PER_PIXEL
    monkeypatch.setattr(image_decoder, "IN_FLIGHT", Counted(room))
    data = encoded(Image.new("RGB", (64, 48), RED), "WEBP")
    record = Record(data, 0, "x.webp")

    def crop(_):
        with opened_image(record) as image:
            time.sleep(0.002)
            return cropping.center_crop(image, 16)

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(crop, range(64)))) == 64
    assert image_decoder.IN_FLIGHT.most == room and image_decoder.IN_FLIGHT.now == 0


def test_threads_that_decode_the_largest_images_take_little_memory():
    program = """
import io
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from maskgil_jax.data.images import cropping, image_decoder
stream = io.BytesIO()
Image.new("RGB", (16_000, 5_500), "red").save(stream, "JPEG")
def peak():  # of this program; getrusage has that of the process which started it too
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])
before = peak()
def crop(_):
    with image_decoder.opened(stream.getvalue()) as image:
        return cropping.center_crop(image, 256)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(crop, range(4)))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 0 < int(done.stdout) < 2_000_000, done.stderr  # KB; 2.4 GB without a bound


def test_an_error_of_the_reader_is_not_taken_for_one_of_the_image():
    record = Record(encoded(Image.new("RGB", (16, 16))), 0, "x.png")
    for error in (KeyError("x"), Unreadable("no caption")):
        with pytest.raises(type(error)) as found, opened_image(record):
            raise error
        assert found.value is error
