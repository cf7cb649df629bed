"""Codes to images and back, batch by batch, one compiled shape."""

from collections.abc import Callable
from typing import Any

import numpy as np

from maskgil_jax.data.images.pixel_levels import to_uint8
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime.batches import fixed_batches

# (labels [B], index of the first) -> codes [B, h, w].
Sample = Callable[[np.ndarray, int], Any]


def draw_images(
    sample: Sample, tokenizer: Tokenizer, labels: np.ndarray, batch_size: int
) -> np.ndarray:
    """An image for each label or row: uint8 [N, H, W, 3]. The batch size changes no image.

    Args:
      sample: draws the codes; `sampler` makes one of a generator.
      tokenizer: turns them into images.
      labels: int [N].
      batch_size: images drawn at once.
    """
    parts = []
    for start, count, batch in fixed_batches(labels, batch_size):
        parts.append(pixels(tokenizer, sample(batch, start))[:count])
    return np.concatenate(parts)


def pixels(tokenizer: Tokenizer, codes: Any) -> np.ndarray:
    """The images of codes [B, h, w]: uint8 [B, H, W, 3].

    Raises:
      InputError: the tokenizer gives values that are not finite.
    """
    return to_uint8(np.asarray(tokenizer.decode(codes)))


def reconstruct(
    tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 [N, H, W, 3]: uint8 [N, H, W, 3] and codes int32 [N, h, w]."""
    codes = encode(tokenizer, images, batch_size)
    parts = [
        pixels(tokenizer, batch)[:count] for _, count, batch in fixed_batches(codes, batch_size)
    ]
    return np.concatenate(parts), codes


def encode(tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Codes of uint8 [N, H, W, 3]: int32 [N, h, w]."""
    parts = [
        np.asarray(tokenizer.encode(batch.astype(np.float32) / 127.5 - 1))[:count]
        for _, count, batch in fixed_batches(images, batch_size)
    ]
    return np.concatenate(parts)
