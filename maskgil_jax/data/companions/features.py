"""Features of captions or recordings that were computed beforehand, one file for each image.

The layout is LlamaGen's (dataset/t2i.py): NAME.npy holds the features of NAME.jpg, and lies in a
folder like the image's, or in none.
"""

from typing import NamedTuple

import numpy as np
from etils import epath

from maskgil_jax.data.companions.pairing import Images, Naming
from maskgil_jax.data.records.file_names import original
from maskgil_jax.runtime import npy
from maskgil_jax.runtime.errors import Unreadable


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
        features = npy.read_file(path)
    except (OSError, ValueError, Unreadable) as error:
        raise Unreadable(f"features {path}: {error}") from None
    if features.ndim == 3 and len(features) == 1:
        features = features[0]
    if features.ndim != 2 or not features.size or not np.issubdtype(features.dtype, np.floating):
        raise Unreadable(
            f"features {path} are {features.dtype} {features.shape}, expected floats [T, {width}]"
        )
    if features.shape[1] != width:
        raise Unreadable(
            f"features {path} are {features.shape[1]} wide, expected {width} (the model's "
            "feature_dim)"
        )
    values = features[:tokens].astype(np.float32)
    if not np.isfinite(values).all():
        raise Unreadable(f"features {path} are not finite")
    return PaddedFeatures(*padded(values, tokens))


def padded(values: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, ...] with zeros before it, or cut at its end, to [tokens, ...]; and where it is, bool."""
    padding = max(tokens - len(values), 0)
    widths = ((padding, 0), *((0, 0),) * (values.ndim - 1))
    return np.pad(values[:tokens], widths), np.arange(tokens) >= padding


class FeatureFiles:
    """Features by the name of an image: FOLDER/NAME.npy, with NAME one of pairing.Naming.

    Args:
      folder: of the files, with folders in it like those of the images, or without any.
      tokens: that the model takes.
      width: C.
      images: that they go with; None: their names without folders tell them apart.

    Raises:
      InputError: a file that fits two images.
    """

    def __init__(self, folder: str, tokens: int, width: int, images: Images | None = None):
        self._folder = epath.Path(folder).expanduser()
        self._tokens, self._width = tokens, width
        self._naming = images.naming if images else Naming()
        if images:
            images.check_files(f"features (config.data.features) in {folder}", self._exists)

    def _path(self, name: str) -> epath.Path:
        return self._folder / f"{original(name)}.npy"

    def _exists(self, name: str) -> bool:
        return self._path(name).exists()

    def __getitem__(self, image: str) -> PaddedFeatures:
        """Features of the image of this id.

        Raises:
          Unreadable: none there that fit.
        """
        names = self._naming.of(image)
        if not (existing := next(filter(self._exists, names), None)):
            paths = " or ".join(f"{name}.npy" for name in names)
            raise Unreadable(f"features {self._folder}: there is no file {paths}")
        return read_file(self._path(existing), self._tokens, self._width)
