"""JPEG files, decoded so that damage is noticed.

libjpeg goes on after damage with a warning, and grey or wrong pixels from there on. Pillow does not
pass these warnings on; simplejpeg, which holds the same libjpeg-turbo and gives the same pixels,
does. Not noticed is damage that leaves a valid stream of codes, such as some holes and a
progressive file that ends after one of its first scans.
"""

import re

import numpy as np
import simplejpeg
from PIL import Image

START, END = b"\xff\xd8", b"\xff\xd9"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a header of the picture
SEQUENTIAL = (0xC0, 0xC1)
SCAN, TABLES, JFIF, ADOBE, COMMENT = 0xDA, (0xC4, 0xCC, 0xDB, 0xDD), 0xE0, 0xEE, 0xFE

# Some cameras write a byte or two too many. A picture out of step ends with more of them.
SURPLUS = re.compile(r"\b[12] extraneous bytes before marker 0xd9$")


def decode(data: bytes, size: tuple[int, int]) -> Image.Image | None:
    """The picture, of mode L, RGB or CMYK as Pillow would give it; None: of a kind left to Pillow.

    What simplejpeg cannot decode are unusual subsamplings, of which CMYK with colours at half the
    resolution is one. Damage to those is not noticed.

    Args:
      data: of the file.
      size: (width, height) that were found in its header and allowed.

    Raises:
      ValueError: it is damaged, by what libjpeg says.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if (width, height) != size:
        return None
    if space == "Gray":
        return Image.fromarray(_pixels(data, "GRAY")[..., 0])
    if space in ("CMYK", "YCCK"):  # written inverted, as Adobe does
        return Image.fromarray(255 - _pixels(data, "CMYK"), "CMYK")
    return Image.fromarray(_pixels(data, "RGB"))


def _pixels(data: bytes, space: str) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, space)
    except ValueError:
        pass
    tidy = tidied(data)
    try:
        return simplejpeg.decode_jpeg(tidy, space)
    except ValueError as error:
        if SURPLUS.search(str(error)):
            return simplejpeg.decode_jpeg(tidy, space, strict=False)
        raise


def tidied(data: bytes) -> bytes:
    """The same picture without what libjpeg warns of though it does no harm to it.

    That are bytes between the segments of the header, zeros before the end, revisions of JFIF,
    transforms of Adobe and parameters of scans that are not in the standards.
    """
    segments: list[bytearray] = []
    at, components, sequential = 2, 0, False
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = bytearray(data[at : at + size])
        if marker in FRAMES:
            components, sequential = segment[9], marker in SEQUENTIAL
        elif marker == JFIF and segment[4:9] == b"JFIF\0":
            segment[9] = 1
        elif marker == ADOBE and segment[4:9] == b"Adobe":
            pass
        elif marker not in (*TABLES, SCAN):
            # Not of the picture, or no marker at all.
            at += size if 0xE0 <= marker <= 0xEF or marker == COMMENT else 1
            continue
        segments.append(segment)
        at += size
        if marker == SCAN:
            if sequential:
                segment[-3:] = 0, 63, 0
            break
    for segment in segments:
        if segment[1] == ADOBE and segment[15]:
            segment[15] = components - 2  # as libjpeg takes it: YCbCr of three, YCCK of four
    end = data.find(END, at)
    scans = data[at:end].rstrip(b"\0") if end >= 0 else data[at:]
    stuffing = b"\0" if scans.endswith(b"\xff") else b""
    return b"".join([START, *segments, scans, stuffing, END if end >= 0 else b""])
