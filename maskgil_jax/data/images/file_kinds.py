"""The kind of a file that should have been an image, by its first bytes, for messages."""

import collections
import re
from collections.abc import Iterable

# Name of a kind, where its mark stands, and the mark.
MARKS = (
    ("a Git LFS pointer (run git lfs pull)", 0, b"version https://git-lfs"),
    ("gzip data", 0, b"\x1f\x8b"),
    ("bzip2 data", 0, b"BZh"),
    ("xz data", 0, b"\xfd7zXZ\0"),
    ("zstd data", 0, b"\x28\xb5\x2f\xfd"),
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c"),
    ("a RAR archive", 0, b"Rar!\x1a\x07"),
    ("a ZIP archive", 0, b"PK\x03\x04"),
    ("a tar archive", 257, b"ustar"),
    ("a PDF document", 0, b"%PDF-"),
    ("a PostScript program", 0, b"%!PS"),
    ("a Photoshop document", 0, b"8BPS"),
    ("a JPEG XL image", 0, b"\xff\x0a"),
    ("a JPEG XL image", 0, b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("a JPEG 2000 image", 0, b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("a JPEG 2000 image", 0, b"\xff\x4f\xff\x51"),
    ("a JPEG XR image", 0, b"II\xbc\x01"),
    ("an OpenEXR image", 0, b"v/1\x01"),
    ("a Radiance HDR image", 0, b"#?RADIANCE"),
    ("an icon", 0, b"\0\0\1\0"),
    ("a DDS texture", 0, b"DDS "),
    ("a Matroska or WebM video", 0, b"\x1a\x45\xdf\xa3"),
    ("an AVI video", 8, b"AVI "),
    ("WAV audio", 8, b"WAVE"),
    ("FLAC audio", 0, b"fLaC"),
    ("Ogg audio or video", 0, b"OggS"),
    ("MP3 audio", 0, b"ID3"),
    ("an AppleDouble file", 0, b"\0\5\x16\7"),
    ("a NumPy array", 0, b"\x93NUMPY"),
    ("an HDF5 file", 0, b"\x89HDF"),
    ("a Python pickle", 0, b"\x80\x04\x95"),
    ("a program", 0, b"\x7fELF"),
    ("a program", 0, b"MZ"),
)
# Of the files of ISO's base media format, the first that they claim to be compatible with.
BRANDS = (
    ("an AVIF image", (b"avif", b"avis")),
    ("a HEIC image", (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
    ("a Canon raw image", (b"crx ",)),
    ("a QuickTime video", (b"qt  ",)),
)
# Of text, the first tag that is not a comment or declaration.
MARKUP = re.compile(r"\A(?:\s|<\?.*?\?>|<!--.*?-->|<!doctype[^>]*>)*<([a-z:]+)", re.DOTALL)
HTML = ("html", "head", "body", "title", "meta", "script", "p", "h1", "div", "center")
HEAD = 4096  # bytes of a text that are looked at
MOST_NAMED = 10  # kinds in a message: reasons that name a member are each of its own kind


def kind_of(data: bytes) -> str:
    """What bytes are, with an article where it takes one, as in "an HTML page"; "" if unknown."""
    if not data:
        return "an empty file"
    if data[4:8] == b"ftyp":
        return _kind_of_media(data)
    for name, place, mark in MARKS:
        if data.startswith(mark, place):
            return name
    head = data[:HEAD]
    if not head.strip(b"\0"):
        return "zeros"
    return _kind_of_text(head)


def _kind_of_media(data: bytes) -> str:
    size = min(int.from_bytes(data[:4], "big"), HEAD)
    brands = [data[8:12], *(data[place : place + 4] for place in range(16, size, 4))]
    return next((kind for kind, known in BRANDS if {*known} & {*brands}), "an MP4 video")


def _kind_of_text(head: bytes) -> str:
    wide = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(head[:2], "")
    text = head.decode(wide or "utf-8", "replace").lstrip("\ufeff").lower()
    if sum(c == "\ufffd" or (c < " " and c not in "\t\n\r\f") for c in text) > len(text) / 20:
        return ""  # some letters may be of another encoding
    if match := MARKUP.match(text):
        name = match[1].rpartition(":")[2]
        if name == "svg":
            return "an SVG drawing"
        return "an HTML page" if name in HTML or "<!doctype html" in text else "an XML document"
    if text.lstrip()[:1] in ("{", "["):
        return "JSON"
    return "a text"


def counted(kinds: Iterable[str]) -> str:
    """How many there are of each kind, the most frequent first, as in "3 x a text, 1 x zeros".

    Kinds beyond the first MOST_NAMED are counted together.
    """
    counts = sorted(collections.Counter(kinds).items(), key=lambda item: (-item[1], item[0]))
    phrases = [f"{number:,} x {kind}" for kind, number in counts[:MOST_NAMED]]
    if rest := counts[MOST_NAMED:]:
        phrases.append(f"{sum(number for _, number in rest):,} of {len(rest):,} other kinds")
    return ", ".join(phrases)
