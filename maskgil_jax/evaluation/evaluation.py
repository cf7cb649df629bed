"""Two sets of images to the metrics between them, under the names of features and protocol."""

import time
from typing import Any

from etils import epath

from maskgil_jax.evaluation import feature_sets, image_sets, protocols, stored_features
from maskgil_jax.evaluation.evaluator import Evaluator, Settings, make_evaluator
from maskgil_jax.evaluation.feature_sets import FeatureSet
from maskgil_jax.evaluation.image_sets import ImageSet
from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError


def evaluate(
    samples: "str | ImageSet", reference: str, settings: Settings, work: epath.PathLike
) -> dict[str, Any]:
    """Compare samples with a reference: what maskgil_jax.evaluate writes.

    With several processes all of them call this, and the first gets the result.

    Args:
      samples: images, or a path as `open_side` takes it.
      reference: such a path; what is not an npz is cropped to the size of the samples. "": none,
        for metrics of the samples alone.
      settings: what is measured.
      work: directory for features, in which work that was cut short is resumed.

    Raises:
      InputError: nothing to compare, or not in this way.
    """
    began = time.monotonic()
    ours: FeatureSet | ImageSet = (
        open_side(samples, None, settings.protocol, settings.color)
        if isinstance(samples, str)
        else samples
    )
    theirs = open_side(reference, ours, settings.protocol, settings.color) if reference else None
    files = [side for side in (ours, theirs) if isinstance(side, FeatureSet)]
    evaluator = make_evaluator(settings, work, files, images=len(files) < 2)
    pairs = None if theirs is None else _checked_pairs(evaluator, ours, theirs)
    if not isinstance(ours, FeatureSet):
        evaluator.check_captions(ours)
    # A reference that cannot be compared with is refused before samples are generated.
    reference_features = None if theirs is None else evaluator.reference(theirs)
    if isinstance(ours, FeatureSet):
        sample_features = ours
    else:
        sample_features = evaluator.features_of(ours, "samples", pairs.second if pairs else None)
    if not processes.first():
        return {}
    seconds = round(time.monotonic() - began, 2)
    result = evaluator.result(sample_features, reference_features)
    if pairs:
        result["paired"] = pairs.pairing
    return result | {"seconds_of_features": seconds}


def _checked_pairs(
    evaluator: Evaluator, samples: "FeatureSet | ImageSet", reference: "FeatureSet | ImageSet"
) -> "image_sets.Pairs | None":
    """The pairs that metrics of pairs are of; None where there is no such metric.

    Raises:
      InputError: one side holds features, or the images of both are no pairs.
    """
    names = evaluator.of_pairs()
    if not names:
        return None
    if isinstance(samples, FeatureSet) or isinstance(reference, FeatureSet):
        path = (samples if isinstance(samples, FeatureSet) else reference).path
        raise InputError(f"metric {names[0]!r} is of pairs of images, but {path} holds features")
    return image_sets.Pairs(samples, reference)


def evaluator_against(
    reference: str, samples: ImageSet, settings: Settings, work: epath.PathLike
) -> tuple[Evaluator, FeatureSet]:
    """An evaluator of many sets against one reference, and the features of that.

    With several processes all of them call this.

    Args:
      reference: a path as `open_side` takes it.
      samples: one of the sets, of whose size the reference has to be.
      settings: what is measured.
      work: directory for features, in which work that was cut short is resumed.

    Raises:
      InputError: a reference or settings that do not fit.
    """
    side = open_side(reference, samples, settings.protocol, settings.color)
    files = [side] if isinstance(side, FeatureSet) else []
    evaluator = make_evaluator(settings, work, files)
    return evaluator, evaluator.reference(side)


def check(reference: str, settings: Settings) -> None:
    """Raise InputError where `evaluate` could not even begin; for jobs that end with it."""
    side = open_side(reference)
    files = [side] if isinstance(side, FeatureSet) else []
    stored = files[0].stored if files else stored_features.statistics_of(side.path)
    for name, gaussian in stored.items():
        feature_sets.factored(side.path, name, gaussian)
    metrics = make_evaluator(settings, "", files).metrics.values()
    covariances = {metric.covariance_of for metric in metrics if metric.covariance_of}
    if isinstance(side, FeatureSet) or not covariances - {*stored}:
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
    if stored_features.is_features(path):
        return stored_features.read_features(path)
    settings = protocols.named(protocol)
    color = color or settings.color
    if samples is None or isinstance(samples, FeatureSet):
        return image_sets.open_images(path, color=color)
    height, width = samples.size
    if height != width and not path.endswith(".npz"):
        raise InputError(
            f"samples of {height} x {width} pixels against {path}: expected squares, to which its "
            "images are cropped, or an npz"
        )
    images = image_sets.open_images(path, height, settings.crop, color)
    if images.size != samples.size:
        raise InputError(
            f"{path} holds images of {images.size[0]} x {images.size[1]} pixels, but the samples "
            f"are {height} x {width}: expected the same size"
        )
    return images
