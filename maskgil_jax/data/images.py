"""From the bytes of an image file to a square uint8 array."""

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from maskgil_jax.errors import Unreadable

LONGEST_STRIP = 50  # longer ones would fill the memory when their short side is scaled up


class UnreadableImage(Unreadable):
    """The bytes are not an image that can be used."""


def decode(data: bytes) -> Image.Image:
    """An upright RGB image.

    EXIF orientation is applied; transparency is blended on white; CMYK, palette, grey, 16-bit and
    bilevel images are converted.

    Raises:
      UnreadableImage: broken, truncated or unknown data, or a decompression bomb.
    """
    try:
        file = Image.open(io.BytesIO(data))
        if max(file.size) > LONGEST_STRIP * min(file.size):
            raise UnreadableImage(f"a strip of {file.size[0]} x {file.size[1]} pixels")
        file.load()
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 and 32 bit integers, which convert() would clip
            values = np.asarray(image).astype(np.float64)
            image = Image.fromarray(np.uint8(np.clip(values / 257, 0, 255)))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    except UnidentifiedImageError:
        raise UnreadableImage(f"{len(data)} bytes that are not an image") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, MemoryError) as error:
        raise UnreadableImage(str(error) or type(error).__name__) from error


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """Scale the short side to `size` and cut the middle: uint8 [size, size, 3].

    Source: openai/guided-diffusion, image_datasets.py, `center_crop_arr` (the ADM crop).
    """
    array = _scale_short_side(image, size)
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


def random_crop(
    image: Image.Image, size: int, rng: np.random.Generator, smallest: float = 0.8
) -> np.ndarray:
    """Scale the short side to between `size` and size / smallest and cut anywhere.

    Source: the same file, `random_crop_arr`, with the defaults of LlamaGen.
    """
    array = _scale_short_side(image, int(rng.integers(size, math.ceil(size / smallest) + 1)))
    top = int(rng.integers(array.shape[0] - size + 1))
    left = int(rng.integers(array.shape[1] - size + 1))
    return array[top : top + size, left : left + size]


def ten_crop(image: Image.Image, size: int) -> np.ndarray:
    """Four corners and the centre of the ADM crop at 1.1 size, then their mirrors.

    Returns uint8 [10, size, size, 3]. Source: LlamaGen, extract_codes_c2i.py (torchvision TenCrop).
    """
    array = center_crop(image, int(size * 1.1))
    rest = array.shape[0] - size
    offsets = [(0, 0), (0, rest), (rest, 0), (rest, rest), (round(rest / 2), round(rest / 2))]
    crops = np.stack([array[y : y + size, x : x + size] for y, x in offsets])
    return np.concatenate([crops, crops[:, :, ::-1]])


def _scale_short_side(image: Image.Image, size: int) -> np.ndarray:
    while min(image.size) >= 2 * size:
        half = (image.size[0] // 2, image.size[1] // 2)
        image = image.resize(half, Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


# How the official codes save pixels: what they add to 127.5 (x + 1) before truncating it.
ROUNDINGS = {
    "half_up": 0.5,  # LlamaGen: 127.5 x + 128
    "truncate": 0.0,  # taming-transformers, Chameleon, Open-MAGVIT2; darker by half a level
}


def to_uint8(images: npt.ArrayLike, rounding: str = "half_up") -> np.ndarray:
    """Floats, nominally in [-1, 1], to uint8; `rounding` is a key of ROUNDINGS."""
    levels = 127.5 * np.asarray(images, np.float32) + np.float32(127.5 + ROUNDINGS[rounding])
    return np.clip(levels, 0, 255).astype(np.uint8)
