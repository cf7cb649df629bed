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
    sampler: Sampler, tokenizer: Tokenizer, labels: np.ndarray, batch_size: int, devices: int = 1
) -> np.ndarray:
    """An image for each label: uint8 [N, H, W, 3]. The batch size changes no image.

    Args:
      sampler: labels to codes, such as `samplers.sampler` makes of a generator.
      tokenizer: codes to images.
      labels: int [N].
      batch_size: images at once.
      devices: that these are split over.
    """
    pixels = decoder(tokenizer, devices=devices)
    batches = [
        pixels(sampler(batch, start))[:count]
        for start, count, batch in fixed_batches(labels, batch_size)
    ]
    return np.concatenate(batches)


def decoder(
    tokenizer: Tokenizer, memory: float | None = None, devices: int = 1
) -> Callable[[Any], np.ndarray]:
    """Codes [B, h, w] to their images, uint8 [B, H, W, 3], in parts where memory asks for it.

    Args:
      tokenizer: of the codes.
      memory: bytes of each device to stay within beside the weights; None: what is free there.
      devices: that hold the tokenizer's weights each, and that a batch is split over.

    Returns:
      It raises InputError where the tokenizer gives values that are not finite, or where not even
      one image fits.
    """
    decode = in_parts(
        lambda codes, _: to_uint8(np.asarray(tokenizer.decode(codes, memory))), devices
    )
    return lambda codes: decode(codes, 0)


def reconstruct(
    tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 [N, H, W, 3]: uint8 [N, H, W, 3] and codes int32 [N, h, w]."""
    codes = encoder(tokenizer, batch_size)(images)
    pixels = decoder(tokenizer)
    batches = [pixels(batch)[:count] for _, count, batch in fixed_batches(codes, batch_size)]
    return np.concatenate(batches), codes


def encoder(
    tokenizer: Tokenizer, batch_size: int = 32, memory: float | None = None, devices: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """Images, uint8 [N, H, W, 3], to their codes, int32 [N, h, w]; in parts as `decoder`.

    Args:
      tokenizer: of the codes.
      batch_size: images that each device encodes at once, at most. Codes do not depend on the
        number of devices.
      memory, devices: as in `decoder`.
    """
    encode = in_parts(
        lambda some, _: np.asarray(tokenizer.encode(some.astype(np.float32) / 127.5 - 1, memory)),
        devices,
    )

    def codes(images: np.ndarray) -> np.ndarray:
        batches = fixed_batches(images, batch_size * devices)
        return np.concatenate([encode(batch, 0)[:count] for _, count, batch in batches])

    return codes
