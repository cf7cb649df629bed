"""What metrics are computed from: features of a set of images, or statistics of them.

Letters: N images, n of a piece, D features.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from maskgil_jax.errors import InputError
from maskgil_jax.metrics import frechet, image_sets
from maskgil_jax.metrics.feature_networks import INCEPTION, OF_INCEPTION
from maskgil_jax.metrics.frechet import Gaussian, Moments
from maskgil_jax.metrics.image_sets import ImageSet
from maskgil_jax.metrics.parts import Parts
from maskgil_jax.runtime.files import check_object, parse_json

# Mean and covariance in a file, as OpenAI's evaluator names them, by the features that they are of.
STATISTICS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s"), "features": ("mu", "sigma")}

Blocks = Callable[[], Iterable[np.ndarray]]


class FeatureSet:
    """Features of a set of images.

    Attributes:
      path: how messages call it.
      about: JSON-able: what it is, for the results.
      count: images; 0 where a file of statistics does not say it.
      labels: names of their classes, str [N], or None.
      stored: statistics that came with it, by the name of their features.
      codes: int32 [N, h, w] that a tokenizer made the images from, or None.
      codebook_size: of that tokenizer.
      network: whose features they are, where they come from a file.
    """

    def __init__(
        self,
        path: str,
        about: dict[str, Any],
        count: int,
        blocks: Mapping[str, Blocks],
        *,
        labels: np.ndarray | None = None,
        stored: Mapping[str, Gaussian] | None = None,
        codes: np.ndarray | None = None,
        codebook_size: int = 0,
        network: str = "",
    ):
        """Take them; `blocks` gives features by name, pieces [n, D] in the order of the images."""
        self.path, self.about, self.count, self.labels = path, about, count, labels
        self.stored = dict(stored or {})
        self.codes, self.codebook_size, self.network = codes, codebook_size, network
        self._blocks = blocks
        self._gaussians = dict(self.stored)
        self._factored: dict[str, frechet.Factored] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._blocks

    def features(self, name: str) -> np.ndarray:
        """[N, D]; ValueError where there are none of this name."""
        return np.concatenate(list(self._pieces(name)))

    def gaussian(self, name: str) -> Gaussian:
        """Mean and covariance: those that came with the set, or else of its features.

        Raises:
          ValueError: there are no features of this name, or too few for a covariance.
        """
        if name not in self._gaussians:
            moments = map(Moments.of, self._pieces(name))
            self._gaussians[name] = sum(moments, start=next(moments)).gaussian()
        return self._gaussians[name]

    def factored(self, name: str) -> frechet.Factored:
        """`gaussian` as a distance needs it, computed once; of few images it is exact."""
        if name not in self._factored:
            few = name not in self.stored and 1 < self.count <= len(self.gaussian(name).mean)
            self._factored[name] = (
                frechet.factored_features(self.features(name))
                if few
                else frechet.factored_gaussian(self.path, self.gaussian(name))
            )
        return self._factored[name]

    def _pieces(self, name: str) -> Iterator[np.ndarray]:
        if name not in self._blocks:
            held = [*self._blocks, *(f"statistics of {n}" for n in self.stored)]
            raise ValueError(
                f"{self.path} has no features {name!r}, it holds {', '.join(held) or 'none'}"
            )
        return iter(self._blocks[name]())

    def rows(self, order: np.ndarray) -> "FeatureSet":
        """Some of the images, without what came with the whole set."""

        def of(name: str) -> Blocks:
            return lambda: [self.features(name)[order]]

        labels = None if self.labels is None else self.labels[order]
        blocks = {name: of(name) for name in self._blocks}
        return FeatureSet(self.path, self.about, len(order), blocks, labels=labels)


def of_parts(
    images: ImageSet, parts: Sequence[Parts], stored: Mapping[str, Gaussian] | None = None
) -> FeatureSet:
    """The features of images that were computed.

    Args:
      images: of which they are.
      parts: the features; the first are those of the images one by one.
      stored: statistics that came with the images.
    """
    count = parts[0].count()
    about = images.about | {"count": count, "pixels_sha256": parts[0].sha256()}
    if stored:
        about["statistics"] = "of the file, not of its images"
    return FeatureSet(
        images.path,
        about,
        count,
        {name: part.reader(name) for part in parts for name in part.kept},
        labels=parts[0].labels(),
        stored=stored,
        codes=getattr(images, "codes", None),
        codebook_size=getattr(images, "codebook_size", 0),
    )


def is_features(path: str) -> bool:
    """Whether a file is an npz of features or of statistics, and not of images."""
    if not path.endswith(".npz"):
        return False
    names = image_sets.names_of_arrays(path)
    return "arr_0" not in names and bool({*OF_INCEPTION, "features", "mu"} & {*names})


def read_features(path: str) -> FeatureSet:
    """Features that something else computed, or maskgil_jax.features.

    Args:
      path: npz with `network` (the name that numbers of them carry) and `features`, float [N, D],
        or for Inception's `pool`, `spatial`, `logits`; with `labels` [N] if they are known. Or of
        statistics alone: `mu`, `sigma` (`mu_s`, `sigma_s`), with `count`.

    Raises:
      InputError: something else, or values that are not finite.
    """
    found = image_sets.read_arrays(path)
    arrays = {name: found[name] for name in (*OF_INCEPTION, "features") if name in found}
    network = str(found.get("network", "" if "features" in arrays else INCEPTION))
    if not network:
        raise InputError(
            f"{path} has `features` but no `network`: expected the name of what computed them, "
            "which the numbers will carry"
        )
    rows = {len(values) if values.ndim else 0 for values in arrays.values()}
    for name, values in arrays.items():
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating) or len(rows) > 1:
            raise InputError(
                f"{path}: {name} is {values.dtype} {values.shape}, expected floats [N, D], one N"
            )
        if bad := int((~np.isfinite(values).all(axis=1)).sum()):
            raise InputError(f"{path}: {bad} of {len(values)} rows of {name} are not finite")
    count = rows.pop() if rows else int(found.get("count", 0))
    labels = found.get("labels") if arrays else None
    if labels is not None and labels.shape != (count,):
        raise InputError(f"{path}: labels {labels.shape} of {count} rows, expected one each")
    of = [name for name in STATISTICS if (name == "features") == (network != INCEPTION)]
    known = _parsed(found["about"], f"{path}: about") if "about" in found else {}
    about = {
        "path": path,
        "what": "features" if arrays else "mean and covariance alone",
        "count": count or "not said in the file",
        "network": network,
        "sha256": image_sets.sha256_of(path),
        **({"of": known} if known else {}),
    }
    return FeatureSet(
        path,
        about,
        count,
        {name: _once(values) for name, values in arrays.items()},
        labels=None if labels is None else labels.astype(str),
        stored=_statistics(path, found, of),
        network=network,
    )


def _parsed(about: np.ndarray, where: str) -> dict[str, Any]:
    """What maskgil_jax.features wrote of the features; InputError where it is something else."""
    known = parse_json(str(about).encode(errors="replace"), where)
    check_object(known, {"features": list} if "features" in known else {}, where)
    return known


def stored_statistics(path: str) -> dict[str, Gaussian]:
    """Statistics of Inception's features that came with the images of a file F.npz, if any did."""
    if not path.endswith(".npz"):
        return {}
    only = [name for pair in STATISTICS.values() for name in pair]
    return _statistics(path, image_sets.read_arrays(path, only), OF_INCEPTION)


def _statistics(
    path: str, found: Mapping[str, np.ndarray], of: Iterable[str]
) -> dict[str, Gaussian]:
    """Means and covariances among arrays; InputError where they are none."""
    gaussians = {}
    for name in of:
        mean, covariance = (found.get(array) for array in STATISTICS.get(name, ("", "")))
        if mean is None and covariance is None:
            continue
        if mean is None or covariance is None or covariance.shape != 2 * mean.shape:
            shapes = [getattr(array, "shape", "not there") for array in (mean, covariance)]
            raise InputError(
                f"{path}: {STATISTICS[name][0]} is {shapes[0]} and {STATISTICS[name][1]} is "
                f"{shapes[1]}, expected [D] and [D, D]"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise InputError(f"{path}: mean or covariance of {name} has values that are not finite")
        gaussians[name] = Gaussian(mean, covariance)
    return gaussians


def _once(values: np.ndarray) -> Blocks:
    return lambda: [values]
