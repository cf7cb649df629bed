"""Small image files of unusual kinds, written by hand where Pillow does not write them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(size=(256, 256), seed=0):
    """Soft colours, as photos have them."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).resize(size)


def halves(left, right, size=(32, 16)):
    """An image that tells how it was turned."""
    image = Image.new("RGB", size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, depth, color_type, before=(), after=()):
    """A PNG of rows of packed samples, with chunks before and behind the pixels."""
    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type])
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    chunks = [(b"IHDR", header), *before, (b"IDAT", pixels), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*content) for content in chunks)


def with_chunks(data, before=(), after=()):
    """A PNG of Pillow's with more chunks."""
    place, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    first, last = (b"".join(chunk(*c) for c in chunks) for chunks in (before, after))
    return data[:place] + first + data[place:end] + last + data[end:]


def exif(value, kind=3, order="<", entries=()):
    """A TIFF structure with an orientation after other entries, each of 12 bytes."""
    form = {1: "B", 3: "H", 4: "I"}.get(kind, "I")
    own = struct.pack(f"{order}HHI{form}", 0x112, kind, 1, value).ljust(12, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, len(entries) + 1)
    return head + b"".join(entries) + own + bytes(4)


def with_segment(data, marker, content):
    """A JPEG with a segment after its first marker."""
    return (
        data[:2] + bytes([255, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]
    )


def icc(columns, gamma=2.2):
    """A minimal ICC profile of a matrix and a gamma.

    Args:
      columns: XYZ of red, green and blue, adapted to D50; or () for one of grey.
      gamma: of all channels.
    """

    def numbers(values):
        return b"".join(struct.pack(">i", round(x * 65536)) for x in values)

    white = (0.9642, 1.0, 0.8249)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {n: b"XYZ \0\0\0\0" + numbers(c) for n, c in zip(names, columns, strict=False)}
    tags |= {n: curve for n in ((b"rTRC", b"gTRC", b"bTRC") if columns else (b"kTRC",))}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + numbers(white)
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"P\0" + bytes(81)
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    space = b"RGB " if columns else b"GRAY"
    head = struct.pack(">I4sI", start + len(body), b"lcms", 0x02400000) + b"mntr" + space + b"XYZ "
    head = (head + bytes(12) + b"acsp" + bytes(28) + numbers(white)).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


def icc_of_inks():
    """An ICC profile of CMYK whose inks are grey: each halves the lightness, black takes it all."""
    corners = [
        (0 if black else round(255 / 2 ** (cyan + magenta + yellow)), 128, 128)
        for cyan in (0, 1)
        for magenta in (0, 1)
        for yellow in (0, 1)
        for black in (0, 1)
    ]
    identity = [round(65536 * value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)]
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *identity)
    table += bytes(range(256)) * 4 + bytes(sum(corners, ())) + bytes(range(256)) * 3
    table += b"\0" * (-len(table) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags, entries, body = {b"A2B0": table, b"wtpt": white}, b"", b""
    for name, data in tags.items():
        entries += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 132 + len(entries) + len(body)
    head = struct.pack(">I4sI", size, b"lcms", 0x02400000) + b"prtrCMYKLab "
    head = (head + bytes(12) + b"acsp" + bytes(28) + white[8:]).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + entries + body
