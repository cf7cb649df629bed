"""JPEG files, decoded so that damage is noticed.

libjpeg goes on after damage with a warning, and grey or wrong pixels from there on. Pillow does not
pass these warnings on; simplejpeg, which holds the same libjpeg-turbo and gives the same pixels,
does. Not noticed is damage that leaves a valid stream of as many codes, such as some single
wrong bytes, and a progressive file that ends after one of its first scans.
"""

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg

START, END = b"\xff\xd8", b"\xff\xd9"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a header of the picture
SEQUENTIAL = (0xC0, 0xC1)
TABLES = (0xC4, 0xCC, 0xDB, 0xDD)
SCAN, JFIF, ADOBE, COMMENT = 0xDA, 0xE0, 0xEE, 0xFE

HUFFMAN, END_OF_BLOCK = 0xC4, 0
LONGEST_ZEROS = 64  # bytes among the codes of pixels

# Some cameras write a byte or two too many. A picture out of step ends with more of them.
SURPLUS = re.compile(r"\b[12] extraneous bytes before marker 0xd9$")


Size = tuple[int, int]  # (height, width)


def decode(data: bytes, size: Size, at_least: Size | None = None) -> np.ndarray | None:
    """The pixels, as Pillow would give them; None: of a kind left to Pillow.

    They are uint8 [height, width] of gray, [height, width, 3] of RGB or [height, width, 4] of CMYK.

    What simplejpeg cannot decode are unusual subsamplings, of which CMYK with colours at half the
    resolution is one. Damage to those is not noticed.

    Args:
      data: of the file.
      size: (width, height) that were found in its header and allowed.
      at_least: (height, width) that are enough: the picture is decoded at a half, a quarter or an
        eighth of its size, where that has as much; None: at its size.

    Raises:
      ValueError: it is damaged, by what libjpeg says.
    """
    header = _header(data)
    if header is None:
        data = tidied(data)
        header = _header(data)
    if header is None or header[1::-1] != size:
        return None
    space, scale = header[2], _scale(header[:2], at_least)
    if space == "Gray":
        return _pixels(data, "GRAY", scale)[..., 0]
    if space in ("CMYK", "YCCK"):  # written inverted, as Adobe does
        return 255 - _pixels(data, "CMYK", scale)
    return _pixels(data, "RGB", scale)


def _header(data: bytes) -> tuple[int, int, str, str] | None:
    """Height, width, colour space and subsampling, or None where libjpeg does not like it."""
    try:
        return simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None


def _scale(size: Size, at_least: Size | None) -> dict[str, int]:
    """How simplejpeg is told to decode at a part of the size.

    Other eighths take longer, and their sides are rounded so much that they are no longer in place.
    """
    if at_least is None:
        return {}
    for factor in (8, 4, 2):
        height, width = (-(-side // factor) for side in size)
        if height >= at_least[0] and width >= at_least[1]:
            return dict(min_height=height, min_width=width, min_factor=factor)
    return {}


def _pixels(data: bytes, space: str, scale: dict[str, int]) -> np.ndarray:
    if _has_hole(data):
        raise ValueError("Corrupt JPEG data: zeros among the codes of its pixels")
    try:
        return simplejpeg.decode_jpeg(data, space, **scale)
    except ValueError:
        pass
    tidy = tidied(data)
    try:
        return simplejpeg.decode_jpeg(tidy, space, **scale)
    except ValueError as error:
        if SURPLUS.search(str(error)):
            return simplejpeg.decode_jpeg(tidy, space, strict=False, **scale)
        raise


def tidied(data: bytes) -> bytes:
    """The same picture without what libjpeg warns of though it does no harm to it.

    That are bytes between the segments of the header, zeros before the end, revisions of JFIF,
    transforms of Adobe and parameters of scans that are not in the standards.
    """
    segments, at = _segments(data)
    frames = [segment for segment in segments if segment[1] in FRAMES and len(segment) > 9]
    for segment in segments:
        marker = segment[1]
        if marker == JFIF:
            segment[9] = 1
        elif marker == ADOBE and segment[15] and frames:
            segment[15] = frames[0][9] - 2  # as libjpeg takes it: YCbCr of three, YCCK of four
        elif marker == SCAN and frames and frames[0][1] in SEQUENTIAL:
            segment[-3:] = 0, 63, 0
    end = data.find(END, at)
    scans = data[at:end].rstrip(b"\0") if end >= 0 else data[at:]
    stuffing = b"\0" if scans.endswith(b"\xff") else b""
    return b"".join([START, *segments, scans, stuffing, END if end >= 0 else b""])


def _segments(data: bytes) -> tuple[list[bytearray], int]:
    """Those before the first scan that the picture depends on, and where its codes begin."""
    segments: list[bytearray] = []
    at = len(START)
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = bytearray(data[at : at + size])
        if (
            marker in FRAMES
            or marker in TABLES
            or marker == SCAN
            or (marker == JFIF and segment[4:9] == b"JFIF\0" and size >= 16)
            or (marker == ADOBE and segment[4:9] == b"Adobe" and size >= 16)
        ):
            segments.append(segment)
        elif not (0xE0 <= marker <= 0xEF or marker == COMMENT):
            size = 1  # no marker of a segment
        at += size
        if marker == SCAN:
            return segments, at
    return segments, len(data)


def _has_hole(data: bytes) -> bool:
    """Whether there are zeros among the codes that cannot be codes, as lost blocks of a disk leave.

    Zeros are the code of the first symbol of each table. Unless that ends a block, as it does where
    tables were made for an image that is mostly flat, many of them are blocks of 63 ones, which
    decode without a warning.
    """
    if bytes(LONGEST_ZEROS) not in data:
        return False
    segments, at = _segments(data)
    hole = data.find(bytes(LONGEST_ZEROS), at)
    end = data.find(END, at)
    if hole < 0 or not data[hole : end if end >= 0 else len(data)].strip(b"\0"):
        return False
    sequential = any(segment[1] in SEQUENTIAL for segment in segments)
    return sequential and any(
        first != END_OF_BLOCK for segment in segments for first in _first_symbols(segment)
    )


def _first_symbols(segment: bytearray) -> Iterator[int]:
    """The symbols with the code 0 of the tables of coefficients that a segment holds."""
    at = 4
    while segment[1] == HUFFMAN and at + 17 < len(segment):
        if segment[at] >> 4:  # not of mean values
            yield segment[at + 17]
        at += 17 + sum(segment[at + 1 : at + 17])
