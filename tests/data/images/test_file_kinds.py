import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data.images import file_kinds, image_decoder
from tests.helpers.image_files import encoded, photo


def box(brand, others=b""):
    size = (16 + len(others)).to_bytes(4, "big")
    return size + b"ftyp" + brand + bytes(4) + others + bytes(100)


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "a")
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return stream.getvalue()


def array():
    stream = io.BytesIO()
    np.save(stream, np.zeros(4))
    return stream.getvalue()


PNG = encoded(photo((16, 16)))
XML = b'<?xml version="1.0" encoding="UTF-8"?>\n'
KINDS = [
    (b"", "an empty file"),
    (bytes(5000), "zeros"),
    (box(b"heic"), "a HEIC image"),
    (box(b"mif1"), "a HEIC image"),
    (box(b"mif1", b"miafheic"), "a HEIC image"),
    (box(b"isom"), "an MP4 video"),
    (box(b"qt  "), "a QuickTime video"),
    (gzip.compress(PNG), "gzip data"),
    (bz2.compress(PNG), "bzip2 data"),
    (lzma.compress(PNG), "xz data"),
    (zipped(), "a ZIP archive"),
    (tarred(), "a tar archive"),
    (array(), "a NumPy array"),
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "a PDF document"),
    (b"8BPS\0\1" + bytes(20), "a Photoshop document"),
    (b"\xff\x0a" + bytes(range(30)), "a JPEG XL image"),
    (encoded(photo((16, 16)), "JPEG2000"), "a JPEG 2000 image"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript program"),
    (b"\0\5\x16\7\0\2\0\0" + bytes(50), "an AppleDouble file"),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a Git LFS pointer (run git lfs pull)",
    ),
    (b"<html><body>404 Not Found</body></html>", "an HTML page"),
    (b"\n\n<!DOCTYPE html>\n<!-- a page -->\n<html lang=en>", "an HTML page"),
    (b"\xef\xbb\xbf<!doctype HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'><HEAD>", "an HTML page"),
    ("\ufeff<html><body>not here".encode("utf-16-le"), "an HTML page"),
    (b"<center><h1>502 Bad Gateway</h1></center>", "an HTML page"),
    (XML + b"<Error><Code>AccessDenied</Code></Error>", "an XML document"),
    (XML + b"<!-- drawn --><svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    (b"<svg:svg xmlns:svg='http://www.w3.org/2000/svg'>", "an SVG drawing"),
    (b'{"error": "rate limited"}', "JSON"),
    (b'  [{"message": "not found"}]', "JSON"),
    (b"Too many requests", "a text"),
    ("Zu viele Anfragen für heute".encode("latin-1"), "a text"),
]


@pytest.mark.parametrize("data, kind", KINDS, ids=[f"{k}-{i}" for i, (_, k) in enumerate(KINDS)])
def test_what_is_no_image_is_named(data, kind):
    assert file_kinds.kind_of(data) == kind
    with pytest.raises(image_decoder.UnreadableImage) as error:
        image_decoder.decode(data)
    assert str(error.value) == f"{kind} ({len(data)} bytes), not an image that is read here"
    assert error.value.kind == kind
    with pytest.raises(image_decoder.UnreadableImage, match="not an image"):
        image_decoder.upright_size(data)


def test_bytes_of_no_known_kind_are_called_so():
    noise = np.random.default_rng(0).bytes(1000)
    with pytest.raises(image_decoder.UnreadableImage, match="1000 bytes that are not an image$"):
        image_decoder.decode(noise)


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "GIF", "AVIF", "WEBP", "PNG", "JPEG"])
def test_what_pillow_reads_is_read(kind):
    assert image_decoder.decode(encoded(Image.new("RGB", (20, 12), "white"), kind)).size == (20, 12)


def test_kinds_are_counted_the_most_frequent_first():
    assert file_kinds.counted([]) == ""
    assert file_kinds.counted(["JSON", "zeros", "JSON"]) == "2 x JSON, 1 x zeros"


def test_rare_kinds_are_counted_together():
    names = ["often"] * 3 + [f"kind {i:02}" for i in range(40)]
    told = file_kinds.counted(names)
    assert told.startswith("3 x often, 1 x kind 00, ") and told.endswith(", 31 of 31 other kinds")
