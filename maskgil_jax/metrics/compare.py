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


def measure(samples: Labelled, reference: Labelled, names: Sequence[str]) -> dict[str, Any]:
    """The named metrics, and the same between two halves of the reference as a yardstick.

    Args:
      samples, reference: uint8 [N, H, W, 3] and labels [N] or None.
      names: keys of METRICS.

    Raises:
      InputError: an unknown metric, or one that the images cannot give.
    """
    for name in names:
        if name in ("fid", "sfid", "is"):
            raise InputError(f"--metrics={name} needs the Inception network: not supported yet")
        if name not in METRICS:
            raise InputError(f"--metrics: {name!r}, expected some of {', '.join(METRICS)}")
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
            raise InputError(f"--metrics={name}: {error}") from None
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
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is not an npz with `arr_0`: {error}") from None
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InputError(
                f"{path}: arr_0 is {images.dtype} {images.shape}, expected uint8 [N, H, W, 3]"
            )
        return images, labels
    kind = path.partition(":")[0]
    source = sources.open_source(path if kind in sources.SOURCES else f"folder:{path}")
    return sources.center_crops(source, size, len(source))
