"""Sets of images to the metrics between them, each under the name of its features and protocol."""

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
)
from maskgil_jax.evaluation.feature_cache import Parts
from maskgil_jax.evaluation.feature_networks import FeatureNetwork
from maskgil_jax.evaluation.feature_sets import FeatureSet
from maskgil_jax.evaluation.image_sets import ImageSet
from maskgil_jax.evaluation.metric_table import Metric
from maskgil_jax.evaluation.protocols import Protocol
from maskgil_jax.runtime import processes, version
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and by which networks.

    Attributes:
      metrics: names of table.KNOWN; none: those of the protocol.
      protocol: key of protocols.PROTOCOLS.
      color: of images in files, key of color.COLORS; "": as the protocol says.
      is_order: of the Inception Score: "shuffled" as the protocol says, or "file".
      inception, lpips: directories of these networks, or "".
      network: MODULE:FUNCTION, a network of the user's that takes the place of others, or "".
      batch_size: images that a network takes at once.
    """

    metrics: Sequence[str] = ()
    protocol: str = ""
    color: str = ""
    is_order: str = "shuffled"
    inception: str = ""
    lpips: str = ""
    network: str = ""
    batch_size: int = 32


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How any number of sets of samples are measured, by networks that are compiled once.

    Attributes:
      name: of the protocol.
      protocol: its settings.
      metrics: by name.
      networks: that give the features which the metrics need.
      work: directory for features, in which work that was cut short is taken up again.
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
    ) -> FeatureSet:
        """Compute the features that the metrics need; with several processes all of them call this.

        What only serves a covariance is left out where the images' file holds that.

        Args:
          images: to compute them of.
          title: of progress bars.
          originals: image i is what image i of `images` is a reconstruction of; None: there are
            none, and no features of pairs are computed.
          statistics: whether those that came with the images count, instead of their own.

        Raises:
          InputError: images that cannot be read or used.
        """
        stored = feature_sets.stored_statistics(images.path) if statistics else {}
        needed = needed_by(metric for metric in self.metrics.values() if metric.of not in stored)
        alone = [network for network in self.networks if not network.of_pairs]
        parts = [Parts(images, alone, needed, self.work)]
        of_pairs = [network for network in self.networks if network.of_pairs]
        if originals and of_pairs:
            pairs = image_sets.Pairs(images, originals)
            parts.append(Parts(pairs, of_pairs, needed, self.work))
        for part, what in zip(parts, (title, f"{title} and their originals"), strict=False):
            part.compute(what)
        return feature_sets.of_parts(images, parts, stored)

    def reference(self, side: "FeatureSet | ImageSet") -> FeatureSet:
        """The features of what samples are compared with; as `features_of`.

        Raises:
          InputError: a reference that the protocol cannot mean.
        """
        if isinstance(side, FeatureSet):
            self.check_resize(side)
            return side
        stored = feature_sets.stored_statistics(side.path)
        protocols.check_statistics(self.name, side.path, stored)
        return self.features_of(side, "reference")

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
        halves = [reference.rows(part) for part in np.array_split(order, 2)]
        stored = () if reference.network else reference.stored
        found: dict[str, float] = {}
        missing = []
        for name, metric in self.metrics.items():
            there = all(feature in reference for feature in metric.features)
            if metric.paired or metric.of in stored or not there:
                continue
            try:
                found |= metric.values(*halves)
            except ValueError as error:
                missing.append(f"no {name} between halves of the reference: {error}")
        return found, missing

    def result(self, samples: FeatureSet, reference: FeatureSet) -> dict[str, Any]:
        """All that has to be known of a measurement, JSON-able.

        Raises:
          InputError: sets that cannot be compared, or not in this way.
        """
        began = time.monotonic()
        self.check_resize(samples)
        warnings = protocols.cautions(
            self.name,
            samples,
            reference,
            protocol=self.protocol,
            covariances={name: metric.of for name, metric in self.metrics.items() if metric.of},
            scored="is" in self.metrics,
        )
        values = self.values(samples, reference)
        floor, missing = self.real_to_real(reference)
        warnings += missing
        for warning in warnings:
            log.warning("warning: %s", warning)
        return {
            "protocol": self.told(),
            "samples": samples.about,
            "reference": reference.about,
            "features": self.features(samples, reference),
            "metrics": values,
            "real_to_real": floor,
            "warnings": warnings,
            "seed": samples.about.get("seed"),
            "code": version.of_code(),
            "seconds_of_metrics": round(time.monotonic() - began, 2),
        }

    def check_resize(self, found: FeatureSet) -> None:
        """Raise InputError for Inception's features of another resize than the protocol's."""
        told = feature_networks.inception_told(self.protocol.resize, self.protocol.stretch)
        made = found.about.get("of", {}).get("features", [told])
        if found.network == feature_networks.INCEPTION and made != [told]:
            raise InputError(
                f"protocol={self.name}: the features of {found.path} are of {', '.join(made)}: "
                f"expected {told} (maskgil_jax.features --protocol={self.name})"
            )

    def of_pairs(self) -> list[str]:
        """Names of the metrics of which image i of both sides has to be the same."""
        return [name for name, metric in self.metrics.items() if metric.paired and metric.features]

    def told(self) -> dict[str, Any]:
        """How it is measured, in words."""
        return {
            "name": self.name or "none",
            "note": self.protocol.note,
            "resize": self.protocol.resize if self._inception() else "none by maskgil_jax",
            **{name: metric.told for name, metric in self.metrics.items()},
            "real_to_real": "halves of the reference, shuffled by numpy's default_rng(0)",
        }

    def _inception(self) -> bool:
        return bool(needed_by(self.metrics.values()) & {*feature_networks.OF_INCEPTION})

    def features(self, *sets: FeatureSet) -> list[str]:
        """What the numbers are of, in words."""
        of_files = [found.network for found in sets if found.network]
        of_images = [network.about for network in self.networks if not network.of_pairs]
        return sorted({*of_files, *of_images})


def evaluation(
    settings: Settings, work: epath.PathLike, files: Sequence[FeatureSet] = (), images: bool = True
) -> Evaluation:
    """Choose the metrics and read the networks.

    Args:
      settings: what is wanted.
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
    metrics = metric_table.chosen(names, protocol, available)
    networks = _networks(settings, protocol, needed_by(metrics.values())) if images else []
    return Evaluation(settings.protocol, protocol, metrics, networks, epath.Path(work))


def needed_by(metrics: Any) -> set[str]:
    """Names of the features that these metrics need."""
    return {name for metric in metrics for name in metric.features}


def _available(
    settings: Settings, protocol: Protocol, files: Sequence[FeatureSet], images: bool
) -> metric_table.Available:
    """What metrics can be made of: of a network of the files', or else of the settings'."""
    inception = ""
    if settings.inception:
        inception = feature_networks.inception_told(protocol.resize, protocol.stretch)
    names = {found.network for found in files}
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
    logits = bool(own) and any("logits" in found for found in files)
    return metric_table.Available(inception, own, logits, bool(settings.lpips))


def _networks(settings: Settings, protocol: Protocol, needed: set[str]) -> list[FeatureNetwork]:
    found = []
    if "pixels" in needed:
        found.append(feature_networks.pixels())
    if "features" in needed:
        found.append(feature_networks.of_function(settings.network))
    if needed & {*feature_networks.OF_INCEPTION}:
        found.append(
            feature_networks.inception(
                settings.inception, settings.batch_size, protocol.resize, protocol.stretch
            )
        )
    if needed & {*feature_networks.OF_PAIRS}:
        found.append(feature_networks.of_pairs(needed, settings.lpips, settings.batch_size))
    return found


def _values(
    metrics: Mapping[str, Metric], samples: FeatureSet, reference: FeatureSet
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            found |= metric.values(samples, reference)
        except InputError as error:
            raise InputError(f"metric {name!r}: {error}") from None
        except ValueError as error:
            sizes = " and ".join(f"{s.path} ({s.count} images)" for s in (samples, reference))
            raise InputError(f"metric {name!r} of {sizes}: {error}") from None
    return found


def against(
    reference: str, samples: ImageSet, settings: Settings, work: epath.PathLike
) -> tuple[Evaluation, FeatureSet]:
    """What measures images like `samples`, and the features of the reference, for many sets.

    With several processes all of them call this.

    Args:
      reference: a path as `open_side` takes it.
      samples: images, of whose size the reference has to be.
      settings: what is measured.
      work: directory for features, in which work that was cut short is taken up again.

    Raises:
      InputError: a reference or settings that do not fit.
    """
    real = open_side(reference, samples, settings.protocol, settings.color)
    chosen = evaluation(settings, work, [real] if isinstance(real, FeatureSet) else [])
    return chosen, chosen.reference(real)


def evaluate(
    samples: "str | ImageSet", reference: str, settings: Settings, work: epath.PathLike
) -> dict[str, Any]:
    """Compare samples with a reference: what maskgil_jax.evaluate writes.

    With several processes all of them call this, and the first gets the result.

    Args:
      samples: images, or a path as `open_side` takes it.
      reference: such a path; what is not an npz is cropped to the size of the samples.
      settings: what is measured.
      work: directory for features, in which work that was cut short is taken up again.

    Raises:
      InputError: nothing to compare, or not in this way.
    """
    began = time.monotonic()
    protocol, color = settings.protocol, settings.color
    drawn: FeatureSet | ImageSet
    drawn = open_side(samples, None, protocol, color) if isinstance(samples, str) else samples
    real = open_side(reference, drawn, protocol, color)
    files = [side for side in (drawn, real) if isinstance(side, FeatureSet)]
    chosen = evaluation(settings, work, files, images=len(files) < 2)
    pairs = chosen.of_pairs()
    originals, how = None, {}
    if pairs:
        if isinstance(drawn, FeatureSet) or isinstance(real, FeatureSet):
            raise InputError(
                f"metric {pairs[0]!r} is of pairs of images, but {files[0].path} holds features"
            )
        originals = real
        # Refuses what are no pairs before anything is computed.
        how = {"paired": image_sets.Pairs(drawn, real).paired}
    real = chosen.reference(real)  # what cannot be compared with is known before samples are drawn
    if not isinstance(drawn, FeatureSet):
        drawn = chosen.features_of(drawn, "samples", originals)
    if not processes.first():
        return {}
    seconds = round(time.monotonic() - began, 2)
    return chosen.result(drawn, real) | how | {"seconds_of_features": seconds}


def check(reference: str, settings: Settings) -> None:
    """Raise InputError where `evaluate` could not even begin; for jobs that end with it."""
    side = open_side(reference)
    files = [side] if isinstance(side, FeatureSet) else []
    stored = files[0].stored if files else feature_sets.stored_statistics(side.path)
    for name, gaussian in stored.items():
        feature_sets.factored(side.path, name, gaussian)
    chosen = evaluation(settings, "", files)
    of_covariances = {metric.of for metric in chosen.metrics.values() if metric.of}
    if isinstance(side, FeatureSet) or not of_covariances - {*stored}:
        return
    if len(side) < 2:
        raise InputError(f"{side.path} holds 1 image, and a covariance needs 2 or more")


def open_side(
    path: str, samples: "FeatureSet | ImageSet | None" = None, protocol: str = "", color: str = ""
) -> "FeatureSet | ImageSet":
    """Images or features of a path.

    Args:
      path: F.npz of images (`arr_0`) or of features; a folder; or a data source.
      samples: that it will be compared with, to whose size the images of a source are cropped.
      protocol: says how, key of protocols.PROTOCOLS.
      color: as in Settings.

    Raises:
      InputError: nothing there; images of another size than the samples in a file.
    """
    if feature_sets.is_features(path):
        return feature_sets.read_features(path)
    chosen = protocols.named(protocol)
    color = color or chosen.color
    if samples is None or isinstance(samples, FeatureSet):
        return image_sets.open_images(path, color=color)
    height, width = samples.size
    if height != width and not path.endswith(".npz"):
        raise InputError(
            f"samples of {height} x {width} pixels against {path}: expected squares, to which its "
            "images are cropped, or an npz"
        )
    images = image_sets.open_images(path, height, chosen.crop, color)
    if images.size != samples.size:
        raise InputError(
            f"{path} holds images of {images.size[0]} x {images.size[1]} pixels, but the samples "
            f"are {height} x {width}: expected the same size"
        )
    return images
