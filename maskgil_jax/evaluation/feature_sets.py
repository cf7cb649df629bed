"""What metrics are computed from: features of a set of images, or statistics of them.

Letters: N images, n of a block, D features.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from maskgil_jax.data.images import file_kinds
from maskgil_jax.evaluation.feature_cache import CachedFeatures
from maskgil_jax.evaluation.image_sets import ImageSet
from maskgil_jax.metrics import frechet
from maskgil_jax.metrics.frechet import Gaussian, Moments
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

# Mean and covariance in a file, as OpenAI's evaluator names them, by the features that they are of.
STATISTICS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s"), "features": ("mu", "sigma")}

# Reads features [n, D], block by block in the order of the images.
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
        """Take them; `blocks` reads features by name."""
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
        return np.concatenate(list(self._blocks_of(name)))

    def gaussian(self, name: str) -> Gaussian:
        """Mean and covariance: those that came with the set, or else of its features.

        Raises:
          InputError: there are no features of this name, or too few for a covariance.
        """
        if name not in self._gaussians:
            blocks = self._blocks_of(name)
            self.check_count(2, "a covariance")
            moments = map(Moments.of, blocks)
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

    def _blocks_of(self, name: str) -> Iterator[np.ndarray]:
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


def of_cached(
    images: ImageSet,
    caches: Sequence[CachedFeatures],
    stored: Mapping[str, Gaussian] | None = None,
) -> FeatureSet:
    """The features of images that were computed.

    Args:
      images: of which they are.
      caches: of the features; the first holds those of the images one by one.
      stored: statistics that came with the images.
    """
    count, left_out = caches[0].count(), caches[0].left_out()
    about = images.about | {"count": count, "pixels_sha256": caches[0].sha256()}
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
        {name: cache.reader(name) for cache in caches for name in cache.names},
        labels=caches[0].labels(),
        stored=stored,
        codes=getattr(images, "codes", None),
        codebook_size=getattr(images, "codebook_size", 0),
    )
