"""What measures sets of images: the metrics, and the networks whose features they need."""

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.evaluation import (
    feature_networks,
    feature_sets,
    image_sets,
    metric_table,
    protocols,
    stored_features,
)
from maskgil_jax.evaluation.feature_cache import CachedFeatures
from maskgil_jax.evaluation.feature_networks import FeatureNetwork
from maskgil_jax.evaluation.feature_sets import FeatureSet
from maskgil_jax.evaluation.image_sets import ImageSet
from maskgil_jax.evaluation.metric_table import Metric
from maskgil_jax.evaluation.protocols import Protocol
from maskgil_jax.runtime import version
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and by which networks.

    Attributes:
      metrics: names of metric_table.KNOWN; none: those of the protocol.
      protocol: key of protocols.PROTOCOLS.
      color: of images in files, key of color.COLORS; "": as the protocol says.
      is_order: of the Inception Score: "shuffled" as the protocol says, or "file".
      inception, lpips, clip: directories of these networks, or "".
      network: MODULE:FUNCTION, a network of the user's that takes the place of others, or "".
      batch_size: images that a network takes at once.
    """

    metrics: Sequence[str] = ()
    protocol: str = ""
    color: str = ""
    is_order: str = "shuffled"
    inception: str = ""
    lpips: str = ""
    clip: str = ""
    network: str = ""
    batch_size: int = 32


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Measures any number of sets of samples, by networks that are compiled once.

    Attributes:
      name: of the protocol.
      protocol: its settings.
      metrics: by name.
      networks: that give the features which the metrics need.
      work: directory for features, in which work that was cut short is resumed.
    """

    name: str
    protocol: Protocol
    metrics: Mapping[str, Metric]
    networks: Sequence[FeatureNetwork]
    work: epath.Path

    def features_of(
        self,
        images: ImageSet,
        title: str,
        originals: ImageSet | None = None,
        statistics: bool = True,
        are_samples: bool = True,
    ) -> FeatureSet:
        """Compute the features that the metrics need; with several processes all of them call this.

        What only serves a covariance is left out where the images' file holds that.

        Args:
          images: to compute them of.
          title: of progress bars.
          originals: image i is what image i of `images` is a reconstruction of; None: there are
            none, and no features of pairs are computed.
          statistics: whether those that came with the images count, instead of their own.
          are_samples: whether features that are of samples alone are computed too.

        Raises:
          InputError: images that cannot be read or used.
        """
        if are_samples:
            self.check_captions(images)
        stored = stored_features.statistics_of(images.path) if statistics else {}
        needed = needed_by(
            metric
            for metric in self.metrics.values()
            if metric.covariance_of not in stored
            and (are_samples or not (metric.alone and metric.paired))
        )
        networks = [network for network in self.networks if needed & {*network.names}]
        of_pairs = [network for network in networks if network.of_pairs]
        of_images = [network for network in networks if not network.of_pairs]
        caches = [CachedFeatures(images, of_images, needed, self.work)]
        caches[0].compute(title)
        if originals and of_pairs:
            pairs = image_sets.Pairs(images, originals)
            caches.append(CachedFeatures(pairs, of_pairs, needed, self.work))
            caches[1].compute(f"{title} and their originals")
        return feature_sets.of_cached(images, caches, stored)

    def reference(self, side: "FeatureSet | ImageSet") -> FeatureSet:
        """The features of what samples are compared with; as `features_of`.

        Raises:
          InputError: a reference that the protocol cannot mean.
        """
        if isinstance(side, FeatureSet):
            self.check_resize(side)
            return side
        stored = stored_features.statistics_of(side.path)
        protocols.check_statistics(self.name, side.path, stored)
        return self.features_of(side, "reference", are_samples=False)

    def check_captions(self, images: ImageSet) -> None:
        """Raise InputError where a metric needs captions of samples, and there are none."""
        wanted = needed_by(self.metrics.values()) & {*feature_networks.OF_CAPTIONS}
        if wanted and not images.captioned:
            raise InputError(
                f"metric 'clip' is of images and their captions, but {images.path} has none: "
                "expected images of prompts, an npz with an array `captions` [N], or a data source "
                "with captions"
            )

    def values(self, samples: FeatureSet, reference: FeatureSet) -> dict[str, float]:
        """The metrics' numbers by name.

        Raises:
          InputError: these sets cannot give them.
        """
        return _values(self.metrics, samples, reference)

    def real_to_real(self, reference: FeatureSet) -> tuple[dict[str, float], list[str]]:
        """The metrics between two random halves of the reference: what samples can reach.

        Not of pairs, and not of statistics that came with images.

        Returns:
          Numbers by name, and why those that half of the reference cannot give are not among them.
        """
        order = np.random.default_rng(0).permutation(reference.count)
        halves = [reference.rows(half) for half in np.array_split(order, 2)]
        stored = () if reference.network else reference.stored
        values: dict[str, float] = {}
        missing = []
        for name, metric in self.metrics.items():
            computable = all(feature in reference for feature in metric.features)
            if metric.paired or metric.covariance_of in stored or not computable:
                continue
            try:
                values |= metric.values(*halves)
            except ValueError as error:
                missing.append(f"no {name} between halves of the reference: {error}")
        return values, missing

    def result(self, samples: FeatureSet, reference: FeatureSet | None) -> dict[str, Any]:
        """All that has to be known of a measurement, JSON-able; without a reference, of samples.

        Raises:
          InputError: sets that cannot be compared, or not in this way.
        """
        began = time.monotonic()
        self.check_resize(samples)
        warnings = protocols.cautions(
            self.name,
            samples,
            reference or samples,
            protocol=self.protocol,
            covariances={
                name: metric.covariance_of
                for name, metric in self.metrics.items()
                if metric.covariance_of
            },
            scored="is" in self.metrics,
        )
        values = self.values(samples, reference or samples)
        floor, missing = self.real_to_real(reference) if reference else ({}, [])
        warnings += missing
        for warning in warnings:
            log.warning("warning: %s", warning)
        return {
            "protocol": self.description(),
            "samples": samples.about,
            "reference": reference.about if reference else "none",
            "features": self.features(samples, *([reference] if reference else [])),
            "metrics": values,
            "real_to_real": floor,
            "warnings": warnings,
            "seed": samples.about.get("seed"),
            "code": version.of_code(),
            "seconds_of_metrics": round(time.monotonic() - began, 2),
        }

    def check_resize(self, features: FeatureSet) -> None:
        """Raise InputError for Inception's features of another resize than the protocol's."""
        ours = feature_networks.inception_description(self.protocol.resize, self.protocol.stretch)
        theirs = features.about.get("of", {}).get("features", [ours])
        if features.network == feature_networks.INCEPTION and theirs != [ours]:
            raise InputError(
                f"protocol={self.name}: the features of {features.path} are of "
                f"{', '.join(theirs)}: expected {ours} (maskgil_jax.features "
                f"--protocol={self.name})"
            )

    def of_pairs(self) -> list[str]:
        """Names of the metrics of which image i of both sides has to be the same."""
        return [
            name
            for name, metric in self.metrics.items()
            if metric.paired and metric.features and not metric.alone
        ]

    def description(self) -> dict[str, Any]:
        """How it is measured, in words."""
        return {
            "name": self.name or "none",
            "note": self.protocol.note,
            "resize": self.protocol.resize if self._inception() else "none by maskgil_jax",
            **{name: metric.description for name, metric in self.metrics.items()},
            "real_to_real": "halves of the reference, shuffled by numpy's default_rng(0)",
        }

    def _inception(self) -> bool:
        return bool(needed_by(self.metrics.values()) & {*feature_networks.OF_INCEPTION})

    def features(self, *sets: FeatureSet) -> list[str]:
        """What the numbers are of, in words."""
        of_files = [features.network for features in sets if features.network]
        of_images = [network.about for network in self.networks if not network.of_pairs]
        return sorted({*of_files, *of_images})


def make_evaluator(
    settings: Settings, work: epath.PathLike, files: Sequence[FeatureSet] = (), images: bool = True
) -> Evaluator:
    """Choose the metrics and read the networks.

    Args:
      settings: what is measured.
      work: directory for features.
      files: features, computed elsewhere, that will be compared.
      images: whether images will be too.

    Raises:
      InputError: metrics, networks and files that do not go together.
    """
    protocol = protocols.named(settings.protocol)
    if settings.is_order == "file":
        protocol = dataclasses.replace(protocol, shuffle=None)
    available = _available(settings, protocol, files, images)
    names = tuple(settings.metrics) or metric_table.default_names(protocol, available)
    metrics = metric_table.metrics_of(names, protocol, available)
    networks = _networks(settings, protocol, needed_by(metrics.values())) if images else []
    return Evaluator(settings.protocol, protocol, metrics, networks, epath.Path(work))


def needed_by(metrics: Any) -> set[str]:
    """Names of the features that these metrics need."""
    return {name for metric in metrics for name in metric.features}


def _available(
    settings: Settings, protocol: Protocol, files: Sequence[FeatureSet], images: bool
) -> metric_table.Available:
    """What metrics can be made of: of a network of the files', or else of the settings'."""
    inception = ""
    if settings.inception:
        inception = feature_networks.inception_description(protocol.resize, protocol.stretch)
    names = {features.network for features in files}
    if settings.network:
        names.add(settings.network)
    if len(names) > 1:
        raise InputError(
            f"features of {' and of '.join(sorted(names))}: expected those of one network on both "
            "sides"
        )
    (own,) = names or {""}
    if own == feature_networks.INCEPTION:
        own, inception = "", inception or f"{own}, computed elsewhere"
    if files and images and not (settings.network or settings.inception):
        flag = f"features={own} (MODULE:FUNCTION)" if own else "inception=DIR"
        raise InputError(
            f"{files[0].path} holds features of {files[0].network}, but the other side images: "
            f"expected features too, or {flag}, which computes them"
        )
    logits = bool(own) and any("logits" in features for features in files)
    return metric_table.Available(inception, own, logits, bool(settings.lpips), bool(settings.clip))


def _networks(settings: Settings, protocol: Protocol, needed: set[str]) -> list[FeatureNetwork]:
    networks = []
    if "pixels" in needed:
        networks.append(feature_networks.pixels())
    if "features" in needed:
        networks.append(feature_networks.of_function(settings.network))
    if needed & {*feature_networks.OF_INCEPTION}:
        networks.append(
            feature_networks.inception(
                settings.inception, settings.batch_size, protocol.resize, protocol.stretch
            )
        )
    if needed & {*feature_networks.OF_PAIRS}:
        networks.append(feature_networks.of_pairs(needed, settings.lpips, settings.batch_size))
    if needed & {*feature_networks.OF_CAPTIONS}:
        prefix = protocol.caption_prefix
        networks.append(feature_networks.of_captions(settings.clip, settings.batch_size, prefix))
    return networks


def _values(
    metrics: Mapping[str, Metric], samples: FeatureSet, reference: FeatureSet
) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            values |= metric.values(samples, reference)
        except InputError as error:
            raise InputError(f"metric {name!r}: {error}") from None
        except ValueError as error:
            sizes = " and ".join(f"{s.path} ({s.count} images)" for s in (samples, reference))
            raise InputError(f"metric {name!r} of {sizes}: {error}") from None
    return values
