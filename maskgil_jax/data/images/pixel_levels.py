"""Pixels of networks, which are floats in [-1, 1], as the 256 levels of image files."""

import numpy as np
import numpy.typing as npt

# How the official codes save pixels: what they add to 127.5 (x + 1) before truncating it.
ROUNDINGS = {
    "half_up": 0.5,  # LlamaGen: 127.5 x + 128
    "truncate": 0.0,  # taming-transformers, Chameleon, Open-MAGVIT2; darker by half a level
}


def to_uint8(images: npt.ArrayLike, rounding: str = "half_up") -> np.ndarray:
    """Floats, nominally in [-1, 1], to uint8; `rounding` is a key of ROUNDINGS."""
    levels = 127.5 * np.asarray(images, np.float32) + np.float32(127.5 + ROUNDINGS[rounding])
    return np.clip(levels, 0, 255).astype(np.uint8)
