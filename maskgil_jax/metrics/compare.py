"""Two sets of images and the metrics between them, each under the name of its features."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.data import sources
from maskgil_jax.errors import InputError
from maskgil_jax.metrics import features, reconstruction

FEATURES = "pixels, averaged to 8x8 RGB (no network: not comparable with FID)"
Labelled = tuple[np.ndarray, np.ndarray | None]


def compare(samples: str, reference: str, metrics: Sequence[str]) -> dict[str, Any]:
    """What maskgil_jax.evaluate writes: the metrics, and what was compared with what.

    Args:
      samples, reference: as read_images takes them.
      metrics: keys of METRICS.

    Raises:
      InputError: nothing to compare, or not in this way.
    """
    drawn = read_images(samples, size=None)
    real = read_images(reference, size=drawn[0].shape[1])
    return {
        "samples": {"path": samples, "count": len(drawn[0])},
        "reference": {"path": reference, "count": len(real[0])},
        **measure(drawn, real, metrics),
    }


def check(reference: str, metrics: Sequence[str]) -> None:
    """Raise InputError where `compare` could not even begin; for jobs that end with it."""
    check_names(metrics)
    if reference.endswith(".npz"):
        read_images(reference, size=None)
    else:
        _open(reference)


def check_names(metrics: Sequence[str]) -> None:
    """Raise InputError for a metric that is not in METRICS."""
    for name in metrics:
        if name in ("fid", "sfid", "is"):
            raise InputError(f"metric {name!r} needs the Inception network: not supported yet")
        if name not in METRICS:
            raise InputError(f"metric {name!r}, expected some of {', '.join(METRICS)}")


def measure(samples: Labelled, reference: Labelled, names: Sequence[str]) -> dict[str, Any]:
    """The named metrics, and the same between two halves of the reference as a yardstick.

    Args:
      samples, reference: uint8 [N, H, W, 3] and labels [N], by name where known, or None.
      names: keys of METRICS.

    Raises:
      InputError: an unknown metric, or one that the images cannot give.
    """
    check_names(names)
    order = np.random.default_rng(0).permutation(len(reference[0]))
    halves = [
        (reference[0][part], None if reference[1] is None else reference[1][part])
        for part in np.array_split(order, 2)
    ]
    unpaired = [name for name in names if name != "psnr"]
    return {
        "features": FEATURES,
        "metrics": _measure(samples, reference, names),
        "real_to_real": _measure(halves[0], halves[1], unpaired),
        "protocol": "reference images: ADM centre crop; real_to_real: halves of the reference",
    }


def _measure(samples: Labelled, reference: Labelled, names: Sequence[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in names:
        try:
            values |= METRICS[name](samples, reference)
        except ValueError as error:
            raise InputError(f"metric {name!r}: {error}") from None
    return values


def _frechet(samples: Labelled, reference: Labelled) -> dict[str, float]:
    real, drawn = (features.pixel_features(images) for images, _ in (reference, samples))
    return {"pixel_frechet_distance": features.frechet_distance(real, drawn)}


def _precision_recall(samples: Labelled, reference: Labelled) -> dict[str, float]:
    real, drawn = (features.pixel_features(images) for images, _ in (reference, samples))
    precision, recall = features.precision_recall(real, drawn)
    return {"pixel_precision": precision, "pixel_recall": recall}


def _accuracy(samples: Labelled, reference: Labelled) -> dict[str, float]:
    if samples[1] is None or reference[1] is None:
        raise ValueError("samples and reference need labels")
    if not set(samples[1].tolist()) <= set(reference[1].tolist()):
        unknown = sorted(set(samples[1].tolist()) - set(reference[1].tolist()))
        raise ValueError(f"the reference has no images of classes {unknown[:5]}")
    real, drawn = (features.pixel_features(images) for images, _ in (reference, samples))
    return {"class_accuracy": features.class_accuracy(real, reference[1], drawn, samples[1])}


def _psnr(samples: Labelled, reference: Labelled) -> dict[str, float]:
    return {"psnr": reconstruction.psnr(reference[0], samples[0])}


METRICS: dict[str, Callable[[Labelled, Labelled], dict[str, float]]] = {
    "frechet": _frechet,
    "pr": _precision_recall,
    "accuracy": _accuracy,
    "psnr": _psnr,
}


def read_images(path: str, size: int | None) -> Labelled:
    """Images and labels of an npz (`arr_0`, `labels`), a folder of PNGs or a data source.

    Args:
      path: F.npz, a folder (its samples.npz if it has one), or a source such as `embedded`.
      size: side of the ADM centre crop; None takes files as they are.

    Raises:
      InputError: nothing there, or not uint8 [N, H, W, 3].
    """
    if (epath.Path(path) / "samples.npz").exists():  # what maskgil_jax.sample wrote
        path = str(epath.Path(path) / "samples.npz")
    if path.endswith(".npz"):
        try:
            with epath.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as data:
                images, labels = data["arr_0"], data["labels"] if "labels" in data else None
                if "class_names" in data:
                    labels = data["class_names"][labels]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is not an npz with `arr_0`: {error}") from None
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InputError(
                f"{path}: arr_0 is {images.dtype} {images.shape}, expected uint8 [N, H, W, 3]"
            )
        return images, labels
    source = _open(path)
    images, labels = sources.center_crops(source, size, len(source))
    return images, np.array(source.class_names)[labels]


def _open(path: str) -> sources.Source:
    kind = path.partition(":")[0]
    return sources.open_source(path if kind in sources.SOURCES else f"folder:{path}")
