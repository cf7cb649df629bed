"""Pictures as data URIs, small enough for a page that is mailed."""

import base64
import io
from typing import NamedTuple

from etils import epath
from PIL import Image

from maskgil_jax.data.images import image_decoder
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import read_regular_file

WIDTH, HEIGHT = 1600, 4000  # pixels: shrunk to this width, then cut at this height
LARGE = 300_000  # bytes of a PNG, above which a JPEG is taken where that is smaller


class Inlined(NamedTuple):
    """A picture in a page.

    Attributes:
      uri: the picture, or "" where it cannot be shown.
      width: in pixels.
      note: what was done to it, or "".
    """

    uri: str
    width: int
    note: str


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a MIME type as a URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(path: epath.Path) -> Inlined:
    """A picture file, shrunk where it is large; InputError where it is broken."""
    try:
        content = _read(path)
        with Image.open(io.BytesIO(content), formats=image_decoder.FORMATS) as file:
            size, is_png = file.size, file.format == "PNG"
            image = _on_white(_reduced(file))
    except _TooLarge as error:
        return Inlined("", 0, f"too large to be shown: {error}")
    except (OSError, ValueError, SyntaxError, Unreadable) as error:  # of Pillow too, on damage
        raise InputError(f"{path} is broken: {error}; expected a PNG") from None
    notes = []
    if size[0] > WIDTH:
        height = max(1, round(image.height * WIDTH / image.width))
        image = image.resize((WIDTH, height), Image.Resampling.LANCZOS, reducing_gap=3)
        notes.append(f"shrunk from {size[0]:,} x {size[1]:,} pixels")
    if image.height > HEIGHT:
        notes.append(f"the upper {HEIGHT / image.height:.0%} of it")
        image = image.crop((0, 0, image.width, HEIGHT))
    if notes or not is_png:
        content = _encoded(image, "PNG")
    if len(content) > LARGE and len(jpeg := _encoded(image, "JPEG")) < len(content):
        return Inlined(data_uri(jpeg, "image/jpeg"), image.width, ", ".join([*notes, "as JPEG"]))
    return Inlined(data_uri(content, "image/png"), image.width, ", ".join(notes))


class _TooLarge(Exception):
    """A picture that would take too much memory."""


def _read(path: epath.Path) -> bytes:
    """The file of a picture that is small enough to be decoded."""
    content = path.read_bytes() if paths.is_remote(path) else read_regular_file(path)
    try:
        image_decoder.upright_size(content)
    except image_decoder.UnreadableImage as error:
        if error.kind == image_decoder.BOMB:
            raise _TooLarge(error) from None  # all else is for Pillow to say
    return content


def _reduced(image: Image.Image) -> Image.Image:
    """A large picture at a fraction of its size, which is still as wide as it will be shown."""
    if (factor := image.width // (2 * WIDTH)) < 2:
        return image
    return (image.convert("RGBA") if image.mode == "P" else image).reduce(factor)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image.convert("RGB")
    with_alpha = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(with_alpha)
    return canvas.convert("RGB")


def _encoded(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **({"quality": 88, "optimize": True} if kind == "JPEG" else {}))
    return content.getvalue()
