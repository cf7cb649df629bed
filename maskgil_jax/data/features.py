"""Features of captions or recordings that were computed beforehand, one file for each image.

The layout is LlamaGen's (dataset/t2i.py): NAME.npy holds the features of NAME.jpg.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from etils import epath

from maskgil_jax.errors import Unreadable
from maskgil_jax.runtime import npy


class PaddedFeatures(NamedTuple):
    """Features of one image.

    Attributes:
      features: float32 [T, C].
      mask: bool [T], false at padding, which comes first.
    """

    features: np.ndarray
    mask: np.ndarray


def read_file(path: epath.PathLike, tokens: int, width: int) -> PaddedFeatures:
    """Features padded on the left, or cut on the right, to a number of tokens.

    Args:
      path: .npy, floats [T, C] or [1, T, C], at least one token.
      tokens: that the model takes.
      width: C.

    Raises:
      Unreadable: no such file, or something else in it.
    """
    try:
        found = npy.read_file(path)
    except (OSError, ValueError) as error:
        raise Unreadable(f"features {path}: {error}") from None
    if found.ndim == 3 and len(found) == 1:
        found = found[0]
    if found.ndim != 2 or not found.size or not np.issubdtype(found.dtype, np.floating):
        raise Unreadable(
            f"features {path} are {found.dtype} {found.shape}, expected floats [T, {width}]"
        )
    if found.shape[1] != width:
        raise Unreadable(
            f"features {path} are {found.shape[1]} wide, expected {width} (the model's feature_dim)"
        )
    kept = found[:tokens].astype(np.float32)
    if not np.isfinite(kept).all():
        raise Unreadable(f"features {path} are not finite")
    return PaddedFeatures(*padded(kept, tokens))


def padded(values: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, ...] with zeros before it, or cut at its end, to [tokens, ...]; and where it is, bool."""
    padding = max(tokens - len(values), 0)
    widths = ((padding, 0), *((0, 0),) * (values.ndim - 1))
    return np.pad(values[:tokens], widths), np.arange(tokens) >= padding


class FeatureFiles:
    """Features by the name of an image, FOLDER/NAME.npy."""

    def __init__(self, folder: str, tokens: int, width: int):
        self._folder = epath.Path(folder).expanduser()
        self._tokens, self._width = tokens, width

    def __getitem__(self, image: str) -> PaddedFeatures:
        """Features of the image of this id: a path, of which folders and ending do not count.

        Raises:
          Unreadable: none there that fit.
        """
        path = self._folder / f"{pathlib.PurePath(image).stem}.npy"
        return read_file(path, self._tokens, self._width)
