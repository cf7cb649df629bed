"""Images to features and their statistics, once for all evaluations against them.

python -m maskgil_jax.features --data=folder:IMAGENET/train --image_size=256 --inception=DIR
    --output=train.npz

Then maskgil_jax.evaluate --reference=train.npz. One that was cut short goes on where it was when it
is started again.
"""

import json
import logging
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, compute, write the npz."""
    command.in_processes(compute)


def compute() -> None:
    """Features of what the flags name."""
    values = flags.FLAGS
    data, output = command.required("data"), command.required("output")
    if bool(values.inception) == bool(values.features):
        raise InputError(
            "one of --inception=DIR and --features=MODULE:FUNCTION is expected, "
            f"{'both' if values.features else 'none'} given"
        )
    from maskgil_jax.evaluation import evaluation, feature_sets, image_sets, protocols
    from maskgil_jax.evaluation.feature_networks import INCEPTION
    from maskgil_jax.runtime import processes, version
    from maskgil_jax.runtime.files import write_npz

    protocol = protocols.named(values.protocol)
    settings = evaluation.Settings(
        metrics=("fid", "sfid", "is") if values.inception else ("frechet",),
        protocol=values.protocol,
        inception=values.inception,
        network=values.features,
        batch_size=values.batch_size,
    )
    work = epath.Path(f"{output}.unfinished")
    chosen = evaluation.evaluation(settings, work)
    images = image_sets.open_images(data, values.image_size or None, protocol.crop, protocol.color)
    found = chosen.features_of(images, "features", statistics=False)
    if not processes.first():
        return
    arrays: dict[str, Any] = {"count": np.int64(found.count)}
    for name in evaluation.needed_by(chosen.metrics.values()):
        if values.keep:
            arrays[name] = found.features(name)
        if name in feature_sets.STATISTICS:
            mean, covariance = feature_sets.STATISTICS[name]
            arrays[mean], arrays[covariance] = found.gaussian(name)
    if values.keep and found.labels is not None:
        arrays["labels"] = found.labels
    network = values.features or INCEPTION
    about = found.about | {"features": chosen.features(), "code": version.of_code()}
    write_npz(output, **arrays, network=network, about=json.dumps(about))
    work.rmtree(missing_ok=True)
    log.info("wrote features of %d images to %s", found.count, output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("data", None, "F.npz, a folder, or a data source")
    flags.DEFINE_string("output", None, "npz to write")
    flags.DEFINE_integer(
        "image_size", 0, "pixels: side of the centre crop; 0: images are of one size as they are"
    )
    flags.DEFINE_string("protocol", "", "whose resize and crop are used, as maskgil_jax.evaluate")
    flags.DEFINE_string("inception", "", "Inception directory")
    flags.DEFINE_string(
        "features",
        "",
        "MODULE:FUNCTION instead, as maskgil_jax.evaluate (its module is imported, and so runs)",
    )
    flags.DEFINE_bool("keep", True, "the features too, which precision and recall need")
    flags.DEFINE_integer("batch_size", 32, "images that the network takes at once", lower_bound=1)
    command.define_process_flags()


if __name__ == "__main__":
    define_flags()
    command.run(main, goes_on=True)
