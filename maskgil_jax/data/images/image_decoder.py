"""Image files decoded to upright RGB images, or refused for a reason that names their kind."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from maskgil_jax.data.images import color as profiles
from maskgil_jax.data.images import file_kinds, jpeg, orientation, png
from maskgil_jax.runtime.errors import Unreadable
from maskgil_jax.runtime.memory_budget import Budget

# What a file may hold, whatever its name says; Pillow knows others that start foreign programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MOST_PIXELS = 89_478_485  # where Pillow starts to warn of decompression bombs: 256 MiB as RGB
SHORTEST_SIDE = 8  # of what is smaller, as the 1x1 that trackers count visits with, nothing is seen
LONGEST_STRIP = 50  # longer ones would fill the memory when their short side is scaled up
BOMB = "a decompression bomb"  # the kind of those with more than MOST_PIXELS
BYTES_PER_PIXEL = 16  # at most, while an image is decoded, of any format

# Pillow asks for the memory of large images in blocks of 16 MiB, which glibc keeps for each thread
# when they are freed. Those above 32 MiB it gives back.
Image.core.set_block_size(max(64 << 20, Image.core.get_block_size()))

# The one bound of a process on the memory of all threads that decode.
IN_FLIGHT = Budget(2 << 30)


class UnreadableImage(Unreadable):
    """The bytes are not an image that can be used."""


def decode(data: bytes, color: str = "srgb") -> Image.Image:
    """An upright RGB image.

    The orientation of EXIF or XMP is applied, and no other metadata has to be whole; transparency
    is blended on white; CMYK, palette, grey, 16-bit and bilevel images are converted; of an
    animation or of several pages the first is taken.

    Args:
      data: of the file.
      color: "srgb": pixels are converted from the space of their ICC profile; "ignore": they are
        taken as they are stored. Other descriptions of colours (gAMA, cHRM, cICP) are not read.

    Raises:
      UnreadableImage: broken, truncated or unknown data; an image of more than MOST_PIXELS, which
        is not decoded, or with a side below SHORTEST_SIDE, or longer than LONGEST_STRIP sides.
    """
    with opened(data, color) as image:
        return image


@contextlib.contextmanager
def opened(
    data: bytes, color: str = "srgb", at_least: tuple[int, int] | None = None
) -> Iterator[Image.Image]:
    """As `decode`; where other threads hold too much memory, it waits until they are done.

    A thread that holds one image in this way must not ask for a second.

    Args:
      data, color: as in `decode`.
      at_least: (height, width) that are enough, see jpeg.decode; None: the image is decoded whole.
    """
    with _bounded(data) as header:
        with _unreadable():
            image = _upright_rgb(data, header, color, at_least)
        yield image


@contextlib.contextmanager
def opened_pixels(
    data: bytes, color: str = "srgb", at_least: tuple[int, int] | None = None
) -> Iterator[np.ndarray]:
    """As `opened`, uint8 [height, width, 3]: most JPEG files get there without a copy by Pillow."""
    with _bounded(data) as header:
        with _unreadable():
            pixels = None
            if _is_plain_jpeg(header, color):
                pixels = jpeg.decode(data, header.file.size, at_least)
            if pixels is None:
                pixels = np.asarray(_upright_rgb(data, header, color, at_least))
        yield pixels


def upright_size(data: bytes) -> tuple[int, int]:
    """(height, width) that `decode` would give, read from the header.

    Raises:
      UnreadableImage: as in `decode`, where the header tells.
    """
    with _unreadable():
        header = _read_header(data)
        width, height = header.file.size
        swapped = header.orientation in orientation.SWAPS
        return (width, height) if swapped else (height, width)


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        raise UnreadableImage(str(error) or type(error).__name__, "a damaged image") from error


class _Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF as it is stored: Pillow would rotate it, and rewrite its metadata for that."""

    def _open(self) -> None:
        super()._open()
        self._size = self._tile_size

    def load_end(self) -> None:
        pass


# Instead of those that Pillow would take: its first one of JPEG looks for several images in a file.
OPENERS: dict[str, Callable[..., ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": _Tiff,
}


class _Header(NamedTuple):
    """What is known of an image before it is decoded.

    Attributes:
      file: to decode it.
      orientation: of EXIF, 1 to 8.
      profile: ICC, or b"".
      depth: bits of a sample, of PNG files; 0: not known.
    """

    file: ImageFile.ImageFile
    orientation: int
    profile: bytes
    depth: int


def _read_header(data: bytes) -> _Header:
    """What is known before decoding; Image.open would warn of large images before we see sizes."""
    Image.init()
    name = next((name for name in FORMATS if _accepts(name, data)), "")
    if not name:
        kind = file_kinds.kind_of(data)
        if not kind:
            raise UnreadableImage(f"{len(data)} bytes that are not an image", "no image")
        message = f"{kind} ({len(data)} bytes), not an image that is read here"
        raise UnreadableImage(message, kind)
    content = png.read_content(data) if name == "PNG" else None
    stream = io.BytesIO(content.picture if content else data)
    file = OPENERS.get(name, Image.OPEN[name][0])(stream, "")
    _check_size(*file.size)
    if content:
        return _Header(
            file, _orientation(content.exif, content.xmp), content.profile, content.depth
        )
    exif = data if name == "TIFF" else file.info.get("exif", b"")
    xmp = file.info.get("xmp") or b""
    return _Header(file, _orientation(exif, xmp), file.info.get("icc_profile") or b"", 0)


def _orientation(exif: bytes, xmp: bytes) -> int:
    return orientation.of_metadata(exif, xmp) if exif or xmp else 1


def _accepts(name: str, data: bytes) -> bool:
    _, accepts = Image.OPEN.get(name, (None, None))  # Pillow can be built without some
    if accepts is None or accepts(data[:16]) is not True:
        return False
    return (
        name != "AVIF" or file_kinds.kind_of(data) == "an AVIF image"
    )  # not HEIC, which begins alike


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableImage(
            f"a decompression bomb of {width} x {height} pixels, expected at most {MOST_PIXELS:,}",
            BOMB,
        )
    if max(width, height) > LONGEST_STRIP * min(width, height):
        raise UnreadableImage(f"a strip of {width} x {height} pixels", "a strip")
    if min(width, height) < SHORTEST_SIDE:
        raise UnreadableImage(
            f"only {width} x {height} pixels, expected at least {SHORTEST_SIDE} a side",
            f"an image below {SHORTEST_SIDE} pixels a side",
        )


@contextlib.contextmanager
def _bounded(data: bytes) -> Iterator[_Header]:
    """The header, while there is memory for the image."""
    with _unreadable():
        header = _read_header(data)
    width, height = header.file.size
    with IN_FLIGHT.taken(width * height * BYTES_PER_PIXEL):
        yield header


def _is_plain_jpeg(header: _Header, color: str) -> bool:
    """Whether this is a JPEG whose decoded pixels are the upright RGB image."""
    converted = color == "srgb" and header.profile
    is_rgb = header.file.format == "JPEG" and header.file.mode == "RGB"
    return is_rgb and header.orientation == 1 and not converted


def _upright_rgb(
    data: bytes, header: _Header, color: str, at_least: tuple[int, int] | None
) -> Image.Image:
    if at_least and header.orientation in orientation.SWAPS:
        at_least = at_least[::-1]
    image = _eight_bits(_decoded(data, header, at_least), header)
    if header.orientation != 1:
        image = image.transpose(orientation.TRANSPOSITIONS[header.orientation])
    if color == "srgb" and header.profile:
        image = profiles.to_srgb(image, header.profile)
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _decoded(data: bytes, header: _Header, at_least: tuple[int, int] | None) -> Image.Image:
    pixels = None
    if header.file.format == "JPEG":
        pixels = jpeg.decode(data, header.file.size, at_least)
    if pixels is None:
        header.file.load()
        return header.file
    return Image.fromarray(pixels, "CMYK" if pixels.shape[2:] == (4,) else None)


def _eight_bits(image: Image.Image, header: _Header) -> Image.Image:
    """The image as L, LA, RGB, RGBA or CMYK."""
    if image.mode.startswith(("I", "F")):
        return _from_16_bits(image)
    if image.mode in ("La", "RGBa"):  # multiplied by alpha already
        return image.convert(image.mode.upper())
    key = image.info.get("transparency")
    if key is not None and image.mode == "L" and header.depth in (2, 4):
        image.info["transparency"] = key * 255 // (2**header.depth - 1)  # as pixels are scaled
    elif key is not None and image.mode == "RGB" and header.depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)  # as Pillow cuts pixels
    if image.mode in ("L", "RGB") and key is not None:
        return image.convert(f"{image.mode}A")
    if image.mode in ("P", "PA", "1"):
        return image.convert("RGB" if key is None and image.mode != "PA" else "RGBA")
    return image if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    bits, white_is_zero = 16, False
    if isinstance(image, _Tiff):
        bits, white_is_zero = image.tag_v2.get(258, (1,))[0], image.tag_v2.get(262) == 0
    if not image.mode.startswith("I;16") or bits != 16 or white_is_zero:
        raise UnreadableImage(
            f"samples of {bits} bits, of mode {image.mode}: expected 16 bits, unsigned and from "
            "black to white",
            "an image of unusual samples",
        )
    values = np.asarray(image)
    levels = Image.fromarray((values // 257).astype(np.uint8))
    if (key := image.info.get("transparency")) is None:
        return levels
    return Image.merge("LA", (levels, Image.fromarray(np.uint8(255) * (values != key))))
