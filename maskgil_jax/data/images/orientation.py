"""The orientation of an image, read from its metadata, of which nothing else has to be intact."""

import re
import struct

from PIL import Image

# EXIF's values to what makes them upright; 1 and what the standard does not know are upright.
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPS = range(5, 9)  # those that exchange width and height

TAG = 0x112
FORMATS = {1: "B", 3: "H", 4: "I"}  # of a value, by the number of its type: byte, short, long
XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def of_metadata(exif: bytes, xmp: bytes) -> int:
    """The orientation, 1 to 8, of an image with this metadata; 1 where they do not tell.

    Args:
      exif: a TIFF structure, also with "Exif" before it; b"" where there is none.
      xmp: XML, which counts where EXIF has no such tag.
    """
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if place := place_of_tag(exif):
        value = struct.unpack_from(*place)[0] if place[0] else 1
    elif match := XMP.search(xmp):
        value = int(match[1])
    else:
        value = 1
    return value if value in TRANSPOSITIONS else 1


def place_of_tag(exif: bytes) -> tuple[str, bytes, int] | None:
    """Where the tag's value stands, as arguments of struct.unpack_from, or None without a tag.

    The format is "" where the value is of a type that orientations are not of. Only the first
    directory is read, and of it no entry but this one.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == TAG:
                form = FORMATS.get(kind, "")
                struct.unpack_from(f"{order}{form}", exif, entry + 8)
                return form and f"{order}{form}", exif, entry + 8
    except struct.error:  # cut, or pointing behind its end
        pass
    return None
