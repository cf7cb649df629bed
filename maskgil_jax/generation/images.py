"""Codes to images and back, batch by batch, one compiled shape."""

from collections.abc import Callable
from typing import Any

import numpy as np

from maskgil_jax.data.images.pixel_levels import to_uint8
from maskgil_jax.generation.parts import in_parts
from maskgil_jax.generation.samplers import Sampler
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime.batches import fixed_batches


def generate_images(
    sampler: Sampler, tokenizer: Tokenizer, labels: np.ndarray, batch_size: int
) -> np.ndarray:
    """An image for each label: uint8 [N, H, W, 3]. The batch size changes no image.

    Args:
      sampler: labels to codes, such as `samplers.sampler` makes of a generator.
      tokenizer: codes to images.
      labels: int [N].
      batch_size: images at once.
    """
    pixels = decoder(tokenizer)
    batches = [
        pixels(sampler(batch, start))[:count]
        for start, count, batch in fixed_batches(labels, batch_size)
    ]
    return np.concatenate(batches)


def decoder(tokenizer: Tokenizer, memory: float | None = None) -> Callable[[Any], np.ndarray]:
    """Codes [B, h, w] to their images, uint8 [B, H, W, 3], in parts where memory asks for it.

    Args:
      tokenizer: of the codes.
      memory: bytes of each device to stay within beside the weights; None: what is free there.

    Returns:
      It raises InputError where the tokenizer gives values that are not finite, or where not even
      one image fits.
    """
    decode = in_parts(lambda codes, _: to_uint8(np.asarray(tokenizer.decode(codes, memory))))
    return lambda codes: decode(codes, 0)


def reconstruct(
    tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 [N, H, W, 3]: uint8 [N, H, W, 3] and codes int32 [N, h, w]."""
    codes = encode(tokenizer, images, batch_size)
    pixels = decoder(tokenizer)
    batches = [pixels(batch)[:count] for _, count, batch in fixed_batches(codes, batch_size)]
    return np.concatenate(batches), codes


def encode(tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Codes of uint8 [N, H, W, 3]: int32 [N, h, w]."""
    batches = [
        np.asarray(tokenizer.encode(batch.astype(np.float32) / 127.5 - 1))[:count]
        for _, count, batch in fixed_batches(images, batch_size)
    ]
    return np.concatenate(batches)
