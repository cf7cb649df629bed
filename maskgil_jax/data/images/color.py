"""Colours as a screen shows them: from the space of an image's ICC profile to sRGB."""

import functools
import io
import logging

import numpy as np
from PIL import Image, ImageCms

from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

# What is done with profiles, as config.data.color has it.
COLORS = ("srgb", "ignore")  # pixels are converted | taken as they are stored, as the field does

LARGEST_PROFILE = 4 << 20  # bytes; those of printing presses have up to 3 MB
# Levels that a profile moves colours by which is another writing of sRGB's.
ROUNDING = 1


def check_color(color: str, name: str) -> None:
    """Raise InputError, which calls it `name`, where this is not one of COLORS."""
    if color not in COLORS:
        raise InputError(f"{name} = {color!r}, expected one of {', '.join(COLORS)}")


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The image in sRGB, or as it is where its profile is of sRGB, broken or of other channels.

    Browsers do so too. What is converted is of the mode RGB then, or RGBA where it is transparent.

    Args:
      image: of mode L, LA, RGB, RGBA or CMYK; others are returned as they are.
      profile: ICC, b"" where there is none.
    """
    if not profile or image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    mode = image.mode.removesuffix("A")
    if mode == "L" and transform(profile, "L") is None:
        if transform(profile, "RGB") is None:
            return image
        image, mode = image.convert("RGBA" if image.mode == "LA" else "RGB"), "RGB"
    change = transform(profile, mode)
    if change is None:
        return image
    if image.mode not in ("LA", "RGBA"):
        return change.apply(image)
    alpha = image.getchannel("A")
    converted = change.apply(image.convert(mode))
    converted.putalpha(alpha)
    return converted


@functools.lru_cache(maxsize=32)
def transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's space to sRGB, perceptual, or None where there is nothing to change.

    Args:
      profile: ICC.
      mode: L, RGB or CMYK.
    """
    if len(profile) > LARGEST_PROFILE:
        _warn(f"more than {LARGEST_PROFILE:,} bytes")
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None
        change = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _warn(str(error))
        return None
    return None if mode != "CMYK" and _changes_nothing(change, mode) else change


@functools.cache
def _warn(reason: str) -> None:
    """Warn once for each reason: each image of a set may have a broken profile of its own."""
    log.warning("ICC profiles that are broken are taken as sRGB's: %s", reason)


def _changes_nothing(change: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether all of some thousand colours stay what they are, but for rounding."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    grid = levels if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    before = Image.fromarray(grid.reshape(len(levels), -1, *grid.shape[3:]))
    after = np.asarray(change.apply(before)).astype(int)
    return bool(np.abs(after - np.asarray(before.convert("RGB"))).max() <= ROUNDING)
