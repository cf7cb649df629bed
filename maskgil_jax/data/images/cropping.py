"""Crops of images at a size: centred, at random, ten at once."""

import math

import numpy as np
from PIL import Image


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
