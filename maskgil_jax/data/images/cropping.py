"""Crops of images at a size: centred, at random, ten at once."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from maskgil_jax.runtime.errors import InputError

# (picture, height, width) -> pixels. A picture is what the function below takes.
Cover = Callable[[Any, int, int], np.ndarray]


def exact_cover(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The image, scaled until it just covers height x width, as the official codes do."""
    while image.size[0] >= 2 * width and image.size[1] >= 2 * height:
        half = (image.size[0] // 2, image.size[1] // 2)
        image = image.resize(half, Image.Resampling.BOX)
    scale = max(width / image.size[0], height / image.size[1])
    covering = (max(width, round(image.size[0] * scale)), max(height, round(image.size[1] * scale)))
    return np.asarray(image.resize(covering, Image.Resampling.BICUBIC))


def fast_cover(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """As `exact_cover`, by OpenCV: bicubic, with no wider filter where the image gets smaller.

    It takes the pixels of an image, uint8 [H, W, 3].
    """
    import cv2

    cv2.setNumThreads(1)  # those that load images are enough
    while array.shape[0] >= 2 * height and array.shape[1] >= 2 * width:
        half = (array.shape[1] // 2, array.shape[0] // 2)
        array = cv2.resize(array, half, interpolation=cv2.INTER_AREA)
    scale = max(width / array.shape[1], height / array.shape[0])
    sides = max(width, round(array.shape[1] * scale)), max(height, round(array.shape[0] * scale))
    return cv2.resize(array, sides, interpolation=cv2.INTER_CUBIC)


# How images are scaled in training, by the name in config.data.resize.
RESIZES: dict[str, Cover] = {"exact": exact_cover, "fast": fast_cover}


def bucket_crop(
    picture: Image.Image | np.ndarray,
    height: int,
    width: int,
    rng: np.random.Generator | None = None,
    cover: Cover = exact_cover,
) -> np.ndarray:
    """Scale until height x width is just covered and cut there: uint8 [height, width, 3].

    Args:
      picture: RGB, of any size, as `cover` takes it.
      height: of the cut, pixels.
      width: of the cut, pixels.
      rng: of the place of the cut; None: the middle.
      cover: scales, see RESIZES.

    Source: scaled as `center_crop`; Lumina-mGPT cuts at random.
    """
    return _cut(cover(picture, height, width), height, width, rng)


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """Scale the short side to `size` and cut the middle: uint8 [size, size, 3].

    Source: openai/guided-diffusion, image_datasets.py, `center_crop_arr` (the ADM crop).
    """
    return bucket_crop(image, size, size)


def bilinear_crop(image: Image.Image, size: int) -> np.ndarray:
    """Scale the short side to `size` at once, bilinear, and cut the middle: uint8 [size, size, 3].

    Source: torchvision's Resize and CenterCrop, which Besnier's MaskGIT-pytorch measures with.
    """
    array = _scaled(image, size, Image.Resampling.BILINEAR)
    top, left = (round((side - size) / 2) for side in array.shape[:2])
    return array[top : top + size, left : left + size]


def bicubic_crop(image: Image.Image, size: int) -> np.ndarray:
    """Scale the short side to `size` at once, bicubic, and cut the middle: uint8 [size, size, 3].

    Source: transformers' CLIPImageProcessor, by PIL.
    """
    return _cut(_scaled(image, size, Image.Resampling.BICUBIC), size, size, None)


def lanczos_crop(image: Image.Image, size: int) -> np.ndarray:
    """Cut the largest square from the middle and scale it by Lanczos: uint8 [size, size, 3].

    Source: GigaGAN's evaluation/evaluation.py, which LlamaGen's evaluations/t2i/evaluation.py is
    made of.
    """
    side = min(image.size)
    left, top = (round((length - side) / 2) for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def random_crop(
    picture: Image.Image | np.ndarray,
    height: int,
    width: int,
    rng: np.random.Generator,
    smallest: float = 0.8,
    cover: Cover = exact_cover,
) -> np.ndarray:
    """Scale until a frame of 1 to 1 / smallest times the size is covered, and cut anywhere.

    `cover` scales the picture, which is as it takes it, see RESIZES.

    Source: the same file, `random_crop_arr` (of squares), with the defaults of LlamaGen.
    """
    side = int(rng.integers(height, math.ceil(height / smallest) + 1))
    covered = cover(picture, side, round(side * width / height))
    return _cut(covered, height, width, rng)


def largest_frame(height: int, width: int, smallest: float) -> tuple[int, int]:
    """(height, width) of the largest frame that `random_crop` covers."""
    side = math.ceil(height / smallest)
    return side, math.ceil(side * width / height)


def random_views(
    image: Image.Image, height: int, width: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Random crops, half of them mirrored, as training draws them: uint8 [count, H, W, 3]."""
    crops = [random_crop(image, height, width, rng) for _ in range(count)]
    return np.stack([mirrored(crop) if rng.random() < 0.5 else crop for crop in crops])


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """The same, left to right: [height, width, channels], contiguous.

    Colour by colour, as NumPy takes four times as long for runs of three bytes.
    """
    mirror = np.empty(pixels.shape, pixels.dtype)
    for channel in range(pixels.shape[-1]):
        mirror[..., channel] = pixels[:, ::-1, channel]
    return mirror


def ten_crop(image: Image.Image, size: int) -> np.ndarray:
    """Four corners and the centre of the ADM crop at 1.1 size, then their mirrors.

    Returns uint8 [10, size, size, 3]. Source: LlamaGen, extract_codes_c2i.py (torchvision TenCrop).
    """
    array = center_crop(image, int(size * 1.1))
    rest = array.shape[0] - size
    offsets = [(0, 0), (0, rest), (rest, 0), (rest, rest), (round(rest / 2), round(rest / 2))]
    crops = np.stack([array[y : y + size, x : x + size] for y, x in offsets])
    return np.concatenate([crops, crops[:, :, ::-1]])


def check_resize(resize: str) -> None:
    """Raise InputError unless this is a key of RESIZES, and its library is there."""
    if resize not in RESIZES:
        raise InputError(f"config.data.resize = {resize!r}, expected one of {', '.join(RESIZES)}")
    if resize == "fast" and importlib.util.find_spec("cv2") is None:
        raise InputError("config.data.resize = 'fast' needs OpenCV (extra [fast])")


def _scaled(image: Image.Image, size: int, method: Image.Resampling) -> np.ndarray:
    """The image, its short side scaled to `size` at once."""
    width, height = image.size
    shorter = min(width, height)
    scaled = (size * width // shorter, size * height // shorter)
    return np.asarray(image.resize(scaled, method))


def _cut(array: np.ndarray, height: int, width: int, rng: np.random.Generator | None) -> np.ndarray:
    rest = array.shape[0] - height, array.shape[1] - width
    top, left = (r // 2 if rng is None else int(rng.integers(r + 1)) for r in rest)
    return array[top : top + height, left : left + width]
