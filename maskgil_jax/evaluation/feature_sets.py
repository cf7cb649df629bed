"""What metrics are computed from: features of a set of images, or statistics of them.

Letters: N images, n of a piece, D features.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from maskgil_jax.data.images import file_kinds
from maskgil_jax.evaluation import annotations, image_sets
from maskgil_jax.evaluation.feature_cache import Parts
from maskgil_jax.evaluation.feature_networks import INCEPTION, OF_INCEPTION
from maskgil_jax.evaluation.image_sets import ImageSet
from maskgil_jax.metrics import frechet
from maskgil_jax.metrics.frechet import Gaussian, Moments
from maskgil_jax.runtime import npz
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import check_object, parse_json

log = logging.getLogger("maskgil_jax")

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
        """[N, D]; InputError where there are none of this name."""
        return np.concatenate(list(self._pieces(name)))

    def gaussian(self, name: str) -> Gaussian:
        """Mean and covariance: those that came with the set, or else of its features.

        Raises:
          InputError: there are no features of this name, or too few for a covariance.
        """
        if name not in self._gaussians:
            pieces = self._pieces(name)
            self.check_count(2, "a covariance")
            moments = map(Moments.of, pieces)
            self._gaussians[name] = sum(moments, start=next(moments)).gaussian()
        return self._gaussians[name]

    def check_count(self, least: int, what: str) -> None:
        """Raise InputError where there are fewer images than something needs."""
        if self.count < least:
            images = "1 image" if self.count == 1 else f"{self.count} images"
            raise InputError(
                f"{self.path} holds {images} that can be read, and {what} needs {least} or more"
            )

    def factored(self, name: str) -> frechet.Factored:
        """`gaussian` as a distance needs it, computed once; of few images it is exact.

        Raises:
          InputError: as `gaussian`.
        """
        if name not in self._factored:
            few = name not in self.stored and 1 < self.count <= len(self.gaussian(name).mean)
            self._factored[name] = (
                frechet.factored_features(self.features(name))
                if few
                else factored(self.path, name, self.gaussian(name))
            )
        return self._factored[name]

    def _pieces(self, name: str) -> Iterator[np.ndarray]:
        if name not in self._blocks:
            held = [*self._blocks, *(f"statistics of {n}" for n in self.stored)]
            raise InputError(
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


def factored(path: str, name: str, gaussian: Gaussian) -> frechet.Factored:
    """A Gaussian of the features `name` as a distance needs it; InputError where it is none."""
    try:
        return frechet.factored_gaussian(f"{path}: {STATISTICS.get(name, ('', name))[1]}", gaussian)
    except ValueError as error:
        raise InputError(str(error)) from None


def of_parts(
    images: ImageSet, parts: Sequence[Parts], stored: Mapping[str, Gaussian] | None = None
) -> FeatureSet:
    """The features of images that were computed.

    Args:
      images: of which they are.
      parts: the features; the first are those of the images one by one.
      stored: statistics that came with the images.
    """
    count, left_out = parts[0].count(), parts[0].left_out()
    about = images.about | {"count": count, "pixels_sha256": parts[0].sha256()}
    if left_out:
        by_kind = file_kinds.counted(image.kind for image in left_out)
        log.warning("%s: left out, since they cannot be read: %s", images.path, by_kind)
        about |= {"unreadable": len(left_out), "unreadable_by_kind": by_kind}
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
    names = npz.names_of_arrays(path)
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
    found = npz.read_arrays(path)
    arrays = {name: found[name] for name in (*OF_INCEPTION, "features") if name in found}
    default = "" if "features" in arrays else INCEPTION
    network = annotations.text(path, "network", found.get("network", np.array(default)))
    if not network:
        raise InputError(
            f"{path} has `features` but no `network`: expected the name of what computed them, "
            "which the numbers will carry"
        )
    rows = {len(values) if values.ndim else 0 for values in arrays.values()}
    for name, values in arrays.items():
        if values.ndim != 2 or values.dtype.kind != "f" or len(rows) > 1 or 0 in values.shape:
            raise InputError(
                f"{path}: {name} is {values.dtype} {values.shape}, expected floats [N, D], one N"
            )
        if bad := int((~np.isfinite(values).all(axis=1)).sum()):
            raise InputError(f"{path}: {bad} of {len(values)} rows of {name} are not finite")
    count = rows.pop() if rows else 0
    if "count" in found:
        said = annotations.number(path, "count", found["count"], least=2)
        if arrays and said != count:
            raise InputError(f"{path}: count = {said}, but there are {count} rows of features")
        count = said
    of = [name for name in STATISTICS if (name == "features") == (network != INCEPTION)]
    known = (
        _about(path, annotations.text(path, "about", found["about"])) if "about" in found else {}
    )
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
        labels=annotations.labels_of(path, found, count) if arrays else None,
        stored=_statistics(path, found, of),
        network=network,
    )


def _about(path: str, text: str) -> dict[str, Any]:
    """What maskgil_jax.features says of its file; InputError where it is something else."""
    where = f"{path}: about"
    known = parse_json(text.encode(errors="replace"), where)
    check_object(known, {}, where)
    made = known.get("features", [])
    if not isinstance(made, list) or not all(isinstance(name, str) for name in made):
        raise InputError(f"{where}: field 'features' is no list of texts")
    return known


def stored_statistics(path: str) -> dict[str, Gaussian]:
    """Statistics of Inception's features that came with the images of a file F.npz, if any did."""
    if not path.endswith(".npz"):
        return {}
    only = [name for pair in STATISTICS.values() for name in pair]
    return _statistics(path, npz.read_arrays(path, only), OF_INCEPTION)


def _statistics(
    path: str, found: Mapping[str, np.ndarray], of: Iterable[str]
) -> dict[str, Gaussian]:
    """Means and covariances among arrays; InputError where they are none."""
    gaussians = {}
    for name in of:
        arrays = STATISTICS.get(name, ("", ""))
        mean, covariance = (found.get(array) for array in arrays)
        if mean is None and covariance is None:
            continue
        if mean is None or covariance is None:
            missing, held = arrays if mean is None else arrays[::-1]
            raise InputError(f"{path} holds {held} but no {missing}: expected [D] and [D, D]")
        gaussians[name] = Gaussian(mean, covariance)
        try:
            frechet.check_gaussian(gaussians[name], *arrays)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    return gaussians


def _once(values: np.ndarray) -> Blocks:
    return lambda: [values]
