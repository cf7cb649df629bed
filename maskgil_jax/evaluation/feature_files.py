"""What maskgil_jax.features does: images to features and their statistics, in a file."""

import json
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.evaluation import feature_sets, image_sets, protocols
from maskgil_jax.evaluation.evaluator import Settings, make_evaluator, needed_by
from maskgil_jax.evaluation.feature_networks import INCEPTION
from maskgil_jax.evaluation.feature_sets import FeatureSet
from maskgil_jax.evaluation.options import FeaturesOptions
from maskgil_jax.runtime import processes, version
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import write_npz

log = logging.getLogger("maskgil_jax")


def write_features(options: FeaturesOptions) -> None:
    """Compute features, and write them with their statistics.

    Raises:
      InputError: options that name no network, or two; images that cannot be used.
    """
    if bool(options.inception) == bool(options.features):
        raise InputError(
            "one of inception=DIR and features=MODULE:FUNCTION is expected, "
            f"{'both' if options.features else 'none'} given"
        )
    protocol = protocols.named(options.protocol)
    settings = Settings(
        metrics=("fid", "sfid", "is") if options.inception else ("frechet",),
        protocol=options.protocol,
        inception=options.inception,
        network=options.features,
        batch_size=options.batch_size,
    )
    work = epath.Path(f"{options.output}.unfinished")
    evaluator = make_evaluator(settings, work)
    images = image_sets.open_images(
        options.data, options.image_size or None, protocol.crop, protocol.color
    )
    features = evaluator.features_of(images, "features", statistics=False)
    if not processes.first():
        return
    about = features.about | {"features": evaluator.features(), "code": version.of_code()}
    write_npz(
        options.output,
        **arrays_of(features, needed_by(evaluator.metrics.values()), options.keep),
        network=options.features or INCEPTION,
        about=json.dumps(about),
    )
    work.rmtree(missing_ok=True)
    log.info("wrote features of %d images to %s", features.count, options.output)


def arrays_of(features: FeatureSet, names: Iterable[str], keep: bool) -> dict[str, Any]:
    """Statistics of the features of these names and, with `keep`, the features and labels too."""
    arrays: dict[str, Any] = {"count": np.int64(features.count)}
    for name in names:
        if keep:
            arrays[name] = features.features(name)
        if name in feature_sets.STATISTICS:
            mean, covariance = feature_sets.STATISTICS[name]
            arrays[mean], arrays[covariance] = features.gaussian(name)
    if keep and features.labels is not None:
        arrays["labels"] = features.labels
    return arrays
