"""From the bytes of an image file to a square uint8 array."""

import contextlib
import io
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from maskgil_jax.errors import Unreadable

# What a file may hold, whatever its name says; Pillow knows others that start foreign programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 89_478_485  # where Pillow starts to warn of decompression bombs: 256 MiB as RGB
SHORTEST_SIDE = 8  # of what is smaller, as the 1x1 that trackers count visits with, nothing is seen
LONGEST_STRIP = 50  # longer ones would fill the memory when their short side is scaled up


class UnreadableImage(Unreadable):
    """The bytes are not an image that can be used."""


def decode(data: bytes) -> Image.Image:
    """An upright RGB image.

    EXIF orientation is applied; transparency is blended on white; CMYK, palette, grey, 16-bit and
    bilevel images are converted; of an animation the first frame is taken.

    Raises:
      UnreadableImage: broken, truncated or unknown data; an image of more than MOST_PIXELS, which
        is not decoded, or with a side below SHORTEST_SIDE, or longer than LONGEST_STRIP sides.
    """
    with _unreadable():
        return _upright_rgb(_open(data))


def upright_size(data: bytes) -> tuple[int, int]:
    """(height, width) that `decode` would give, read from the header.

    But for PNG files that are to be turned, which may say so behind their pixels.

    Raises:
      UnreadableImage: as in `decode`, where the header tells.
    """
    with _unreadable():
        file = _open(data)
        turned = file.format != "PNG" and file.getexif().get(ExifTags.Base.Orientation, 1) > 4
        width, height = file.size
        return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        raise UnreadableImage(str(error) or type(error).__name__) from error


def _open(data: bytes) -> Image.Image:
    """An image of which only the header is read.

    Image.open would print a warning about a large one before its size can be looked at.
    """
    Image.init()
    for name in FORMATS:
        opener, accepts = Image.OPEN[name]
        if accepts and accepts(data[:16]) is True:
            file = opener(io.BytesIO(data), "")
            _check_size(*file.size)
            return file
    raise UnreadableImage(f"{len(data)} bytes that are not an image")


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableImage(
            f"a decompression bomb of {width} x {height} pixels, expected at most {MOST_PIXELS:,}"
        )
    if max(width, height) > LONGEST_STRIP * min(width, height):
        raise UnreadableImage(f"a strip of {width} x {height} pixels")
    if min(width, height) < SHORTEST_SIDE:
        raise UnreadableImage(
            f"only {width} x {height} pixels, expected at least {SHORTEST_SIDE} a side"
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 and 32 bit integers, which convert() would clip
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.uint8(np.clip(values / 257, 0, 255)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def bucket_crop(
    image: Image.Image, height: int, width: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Scale until height x width is just covered and cut there: uint8 [height, width, 3].

    Args:
      image: RGB, of any size.
      height: of the cut, pixels.
      width: of the cut, pixels.
      rng: of the place of the cut; None: the middle.

    Source: scaled as `center_crop`; Lumina-mGPT cuts at random.
    """
    return _cut(_cover(image, height, width), height, width, rng)


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """Scale the short side to `size` and cut the middle: uint8 [size, size, 3].

    Source: openai/guided-diffusion, image_datasets.py, `center_crop_arr` (the ADM crop).
    """
    return bucket_crop(image, size, size)


def bilinear_crop(image: Image.Image, size: int) -> np.ndarray:
    """Scale the short side to `size` at once, bilinear, and cut the middle: uint8 [size, size, 3].

    Source: torchvision's Resize and CenterCrop, which Besnier's MaskGIT-pytorch measures with.
    """
    width, height = image.size
    shorter = min(width, height)
    scaled = (size * width // shorter, size * height // shorter)
    array = np.asarray(image.resize(scaled, Image.Resampling.BILINEAR))
    top, left = (round((side - size) / 2) for side in array.shape[:2])
    return array[top : top + size, left : left + size]


def random_crop(
    image: Image.Image,
    height: int,
    width: int,
    rng: np.random.Generator,
    smallest: float = 0.8,
) -> np.ndarray:
    """Scale until a frame of 1 to 1 / smallest times the size is covered, and cut anywhere.

    Source: the same file, `random_crop_arr` (of squares), with the defaults of LlamaGen.
    """
    side = int(rng.integers(height, math.ceil(height / smallest) + 1))
    covered = _cover(image, side, round(side * width / height))
    return _cut(covered, height, width, rng)


def random_views(
    image: Image.Image, height: int, width: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Random crops, half of them mirrored, as training draws them: uint8 [count, H, W, 3]."""
    crops = [random_crop(image, height, width, rng) for _ in range(count)]
    return np.stack([crop[:, ::-1] if rng.random() < 0.5 else crop for crop in crops])


def ten_crop(image: Image.Image, size: int) -> np.ndarray:
    """Four corners and the centre of the ADM crop at 1.1 size, then their mirrors.

    Returns uint8 [10, size, size, 3]. Source: LlamaGen, extract_codes_c2i.py (torchvision TenCrop).
    """
    array = center_crop(image, int(size * 1.1))
    rest = array.shape[0] - size
    offsets = [(0, 0), (0, rest), (rest, 0), (rest, rest), (round(rest / 2), round(rest / 2))]
    crops = np.stack([array[y : y + size, x : x + size] for y, x in offsets])
    return np.concatenate([crops, crops[:, :, ::-1]])


def _cover(image: Image.Image, height: int, width: int) -> np.ndarray:
    while image.size[0] >= 2 * width and image.size[1] >= 2 * height:
        half = (image.size[0] // 2, image.size[1] // 2)
        image = image.resize(half, Image.Resampling.BOX)
    scale = max(width / image.size[0], height / image.size[1])
    covering = (max(width, round(image.size[0] * scale)), max(height, round(image.size[1] * scale)))
    return np.asarray(image.resize(covering, Image.Resampling.BICUBIC))


def _cut(array: np.ndarray, height: int, width: int, rng: np.random.Generator | None) -> np.ndarray:
    rest = array.shape[0] - height, array.shape[1] - width
    top, left = (r // 2 if rng is None else int(rng.integers(r + 1)) for r in rest)
    return array[top : top + height, left : left + width]


# How the official codes save pixels: what they add to 127.5 (x + 1) before truncating it.
ROUNDINGS = {
    "half_up": 0.5,  # LlamaGen: 127.5 x + 128
    "truncate": 0.0,  # taming-transformers, Chameleon, Open-MAGVIT2; darker by half a level
}


def to_uint8(images: npt.ArrayLike, rounding: str = "half_up") -> np.ndarray:
    """Floats, nominally in [-1, 1], to uint8; `rounding` is a key of ROUNDINGS."""
    levels = 127.5 * np.asarray(images, np.float32) + np.float32(127.5 + ROUNDINGS[rounding])
    return np.clip(levels, 0, 255).astype(np.uint8)
