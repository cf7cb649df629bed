"""PNG files taken apart: the chunks of the picture, and the metadata about it.

Decoders refuse files for their texts and profiles, which may be of any size, and broken. So
decoders get the picture alone.
"""

import zlib
from typing import NamedTuple

from maskgil_jax.data.images.color import LARGEST_PROFILE

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_TEXT = 1 << 20  # bytes that are looked at of a text with metadata in it


class Content(NamedTuple):
    """What a file holds.

    Attributes:
      picture: the same file without what is optional; transparency is not.
      depth: bits of a sample.
      exif: from its own chunk or ImageMagick's text, b"" where there is none.
      xmp: the same of XMP.
      profile: the ICC profile, b"" where there is none or it is broken.
    """

    picture: bytes
    depth: int
    exif: bytes
    xmp: bytes
    profile: bytes


def read_content(data: bytes) -> Content:
    """Take a file apart; what is cut or no chunk stays with the picture, as it is."""
    essential, exif, raw, xmp, profile = [SIGNATURE], b"", b"", b"", b""
    at = len(SIGNATURE)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            essential.append(data[at:])
            break
        if name == b"tRNS" or not name[0] & 0x20:  # a capital letter: without it there is no image
            essential.append(data[at:end])
        elif name == b"eXIf":
            exif = exif or data[at + 8 : end - 4]
        elif name == b"iCCP":
            profile = profile or _profile(data[at + 8 : end - 4])
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, text = data[at + 8 : end - 4].partition(b"\0")
            if keyword == b"XML:com.adobe.xmp":
                xmp = xmp or _text(name, text)
            elif keyword == b"Raw profile type exif":
                raw = raw or _from_hexadecimal(_text(name, text))
        if name == b"IEND":
            break
        at = end
    return Content(
        b"".join(essential), data[24] if len(data) > 24 else 0, exif or raw, xmp, profile
    )


def _profile(content: bytes) -> bytes:
    _, _, packed = content.partition(b"\0")
    profile = _inflated(packed[1:], LARGEST_PROFILE + 1)
    return profile if len(profile) <= LARGEST_PROFILE else b""


def _text(kind: bytes, content: bytes) -> bytes:
    """The text after the keyword of a chunk, or its beginning; b"" where it is broken."""
    if kind == b"tEXt":
        return content[:LARGEST_TEXT]
    if kind == b"zTXt":
        return _inflated(content[1:], LARGEST_TEXT)
    packed, rest = content[:1] == b"\1", content[2:]
    text = rest.split(b"\0", 2)[-1]  # after the language, and the keyword in it
    return _inflated(text, LARGEST_TEXT) if packed else text[:LARGEST_TEXT]


def _inflated(packed: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return b""


def _from_hexadecimal(text: bytes) -> bytes:
    """ImageMagick's profiles: an empty line, a name, a size, then lines of digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""
