"""The same images under every setting of a sweep, side by side: the paper's figure 8.

Each setting leaves its first images in a strip, one below the other, so that a sweep that goes on
need not draw them again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from maskgil_jax.generation import pictures
from maskgil_jax.runtime.errors import InputError

ROWS = 8  # images of each setting


def write_strip(path: epath.Path, images: np.ndarray) -> None:
    """Write uint8 [N, H, W, 3], one image below the other."""
    pictures.save(path, images.reshape(-1, *images.shape[2:]))


def read_strip(path: epath.Path, count: int) -> np.ndarray:
    """The images that `write_strip` wrote, uint8 [count, H, W, 3].

    Raises:
      InputError: the file is damaged, or of another number of images.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # as Pillow calls damage to a PNG
        raise InputError(f"{path}: {error}; remove it to draw its images again") from None
    if len(pixels) % count:
        raise InputError(f"{path} is {len(pixels)} pixels high, expected {count} images; remove it")
    return pixels.reshape(count, -1, *pixels.shape[1:])


def write(
    path: epath.Path,
    names: Sequence[str],
    strips: Sequence[epath.Path],
    rows: Sequence[Mapping[str, Any]],
    options: Sequence[str],
) -> None:
    """Write a panel: a row for each condition, a column for each setting, with its time above.

    Args:
      path: of the PNG.
      names: of the conditions.
      strips: of the settings.
      rows: of the sweep's table, one for each setting.
      options: those that vary.
    """
    images = np.stack([read_strip(strip, len(names)) for strip in strips], axis=1)
    picture = pictures.labelled_rows(
        images.reshape(-1, *images.shape[2:]),
        names,
        columns=len(strips),
        headings=[heading(row, options) for row in rows],
    )
    pictures.save(path, picture)


def heading(row: Mapping[str, Any], options: Sequence[str]) -> str:
    """A line for each option, and one with the seconds for an image."""
    given = [name for name in options if name in row]
    lines = [f"{name.replace('_', ' ')} {_short(row[name])}" for name in given]
    return "\n".join([*lines, f"{row['seconds_per_image']:.3g} s"])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else pictures.label(str(value))
