"""What maskgil_jax.features does: images to features and their statistics, in a file."""

import json
import logging
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.evaluation import evaluation, feature_sets, image_sets, protocols
from maskgil_jax.evaluation.feature_networks import INCEPTION
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
    settings = evaluation.Settings(
        metrics=("fid", "sfid", "is") if options.inception else ("frechet",),
        protocol=options.protocol,
        inception=options.inception,
        network=options.features,
        batch_size=options.batch_size,
    )
    work = epath.Path(f"{options.output}.unfinished")
    chosen = evaluation.evaluation(settings, work)
    images = image_sets.open_images(
        options.data, options.image_size or None, protocol.crop, protocol.color
    )
    features = chosen.features_of(images, "features", statistics=False)
    if not processes.first():
        return
    arrays: dict[str, Any] = {"count": np.int64(features.count)}
    for name in evaluation.needed_by(chosen.metrics.values()):
        if options.keep:
            arrays[name] = features.features(name)
        if name in feature_sets.STATISTICS:
            mean, covariance = feature_sets.STATISTICS[name]
            arrays[mean], arrays[covariance] = features.gaussian(name)
    if options.keep and features.labels is not None:
        arrays["labels"] = features.labels
    about = features.about | {"features": chosen.features(), "code": version.of_code()}
    network = options.features or INCEPTION
    write_npz(options.output, **arrays, network=network, about=json.dumps(about))
    work.rmtree(missing_ok=True)
    log.info("wrote features of %d images to %s", features.count, options.output)
