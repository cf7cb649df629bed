"""Two sets of images and the metrics between them, each under the name of its features."""

import dataclasses
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from maskgil_jax.data import sources
from maskgil_jax.decoding.draw import fixed_batches
from maskgil_jax.errors import InputError
from maskgil_jax.metrics import features, frechet, manifolds, reconstruction, scores

log = logging.getLogger("maskgil_jax")

PIXELS = "pixels, averaged to 8x8 RGB (no network: not comparable with FID)"
INCEPTION = "Inception 2015-12-05, uint8 images, TensorFlow 1's bilinear resize to 299"


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images and what is known of them.

    Attributes:
      images: uint8 [N, H, W, 3].
      labels: [N], by name where known, or None.
      codes: int32 [N, h, w] that a tokenizer made them from, or None.
      codebook_size: of that tokenizer.
      protocol: how they were made, or "".
      features: [N, D] by name: "pixels", those of InceptionFeatures, or MODULE:FUNCTION.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    codes: np.ndarray | None = None
    codebook_size: int = 0
    protocol: str = ""
    features: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def part(self, order: np.ndarray) -> "ImageSet":
        """Images, labels and features of these rows."""
        return ImageSet(
            self.images[order],
            None if self.labels is None else self.labels[order],
            features={name: values[order] for name, values in self.features.items()},
        )

    def with_features(self, extract: "Extract") -> "ImageSet":
        """The same with its features."""
        return dataclasses.replace(self, features=extract(self.images))


Extract = Callable[[np.ndarray], dict[str, np.ndarray]]  # uint8 [N, H, W, 3] -> features


class Metric(NamedTuple):
    """A metric of two sets of images.

    Attributes:
      values: (samples, reference) -> numbers by name; ValueError where the images cannot give them.
      protocol: how they are computed.
      features: name of those that it needs in both sets, or "".
      paired: image i of one set belongs to image i of the other, so that halves of one set give
        nothing.
    """

    values: Callable[[ImageSet, ImageSet], dict[str, float]]
    protocol: str
    features: str = ""
    paired: bool = False


def compare(
    samples: str,
    reference: str,
    metrics: Sequence[str],
    lpips: str = "",
    inception: str = "",
    network: str = "",
) -> dict[str, Any]:
    """What maskgil_jax.evaluate writes: the metrics, and what was compared with what.

    The metrics that are not paired are given between two halves of the reference too, as a
    yardstick.

    Args:
      samples, reference: as read_images takes them.
      metrics: names that `chosen` knows.
      lpips: LPIPS directory, for "lpips".
      inception: Inception directory, for "fid", "rfid", "sfid", "is"; with it, "pr" is of Inception
        features too.
      network: as `chosen` takes it.

    Raises:
      InputError: nothing to compare, or not in this way.
    """
    table = chosen(metrics, lpips, inception, network)
    drawn = read_images(samples, size=None)
    real = read_images(reference, size=drawn.images.shape[1])
    extract = extractor(table, inception)
    try:
        drawn, real = (images.with_features(extract) for images in (drawn, real))
    except ValueError as error:
        raise InputError(f"samples {samples} or reference {reference}: {error}") from None
    return {
        "samples": {"path": samples, "count": len(drawn.images), "protocol": drawn.protocol},
        "reference": {"path": reference, "count": len(real.images), "protocol": real.protocol},
        "features": sorted({_described(name) for name in real.features}),
        "metrics": measure(drawn, real, table),
        "real_to_real": real_to_real(real, table),
        "protocol": {name: metric.protocol for name, metric in table.items()}
        | {"reference": "ADM centre crop", "real_to_real": "halves of the reference"},
    }


def real_to_real(real: ImageSet, table: dict[str, Metric]) -> dict[str, float]:
    """The metrics that are not paired between two random halves: what samples can reach."""
    order = np.random.default_rng(0).permutation(len(real.images))
    halves = [real.part(part) for part in np.array_split(order, 2)]
    unpaired = {name: metric for name, metric in table.items() if not metric.paired}
    return measure(halves[0], halves[1], unpaired)


def check(reference: str, metrics: Sequence[str], inception: str = "") -> None:
    """Raise InputError where `compare` could not even begin; for jobs that end with it."""
    extractor(chosen(metrics, inception=inception), inception)
    if reference.endswith(".npz"):
        read_images(reference, size=None)
    else:
        _open(reference)


def chosen(
    names: Sequence[str], lpips: str = "", inception: str = "", network: str = ""
) -> dict[str, Metric]:
    """The metrics of these names.

    Args:
      names: of METRICS, INCEPTION_METRICS, or "lpips".
      lpips, inception: directories of these networks.
      network: MODULE:FUNCTION, of another network's features: uint8 [N, H, W, 3] -> floats [N, D].
        Then "frechet", "pr" and "accuracy" are of those instead of pixels, and carry its name.

    Raises:
      InputError: an unknown name, or one whose network is not given.
    """
    table = {}
    own = {}
    if network:
        _function(network)  # found to be there before any work is done
        own = _of_features(network, network.partition(":")[2])
    for name in names:
        if name == "lpips":
            table[name] = _of_lpips(lpips)
        elif name in own:
            table[name] = own[name]
        elif name in INCEPTION_METRICS and inception:
            table[name] = INCEPTION_METRICS[name]
        elif name in METRICS:
            table[name] = METRICS[name]
        elif name in INCEPTION_METRICS:
            raise InputError(
                f"metric {name!r} needs --inception=DIR (in a config evaluation.inception; made "
                "by maskgil_jax.convert import --format=fid-inception)"
            )
        else:
            known = ", ".join({**METRICS, **INCEPTION_METRICS})
            raise InputError(f"metric {name!r}, expected some of {known}, lpips")
    return table


def extractor(table: dict[str, Metric], inception: str, batch_size: int = 32) -> Extract:
    """What gives the features that these metrics use; the network is read and compiled once.

    Args:
      table: of `chosen`.
      inception: Inception directory.
      batch_size: images at once.
    """
    needed = {metric.features for metric in table.values()} - {""}
    functions = {name: _function(name) for name in needed if ":" in name}
    if "pixels" in needed:
        functions["pixels"] = features.pixel_features
    of_inception = needed - functions.keys()
    inception_features = _inception_features(inception, batch_size) if of_inception else None

    def extract(images: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: np.asarray(function(images)) for name, function in functions.items()}
        for name, values in found.items():
            if values.ndim != 2 or len(values) != len(images):
                raise InputError(
                    f"features {name} are {values.shape} of {len(images)} images, expected [N, D]"
                )
        if inception_features:
            found |= inception_features(images)
        return {name: found[name] for name in needed}

    return extract


def _function(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """What MODULE:FUNCTION names."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--features={name}: {error}; expected MODULE:FUNCTION, which turns uint8 [N, H, W, 3] "
            "into floats [N, D]"
        ) from None


def _described(name: str) -> str:
    return PIXELS if name == "pixels" else name if ":" in name else INCEPTION


def _inception_features(inception: str, batch_size: int) -> Extract:
    import jax
    import tqdm

    from maskgil_jax import api

    network = api.load_auxiliary(inception, "inception")
    compute = jax.jit(lambda network, images: network(images))

    def of_inception(images: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        with tqdm.tqdm(total=len(images), unit="image", desc="Inception") as bar:
            for _, count, batch in fixed_batches(images, min(batch_size, len(images))):
                found = compute(network, batch)
                parts.append([np.asarray(values)[:count] for values in found])
                bar.update(count)
        columns = map(np.concatenate, zip(*parts, strict=True))
        return dict(zip(found._fields, columns, strict=True))

    return of_inception


def measure(samples: ImageSet, reference: ImageSet, table: dict[str, Metric]) -> dict[str, float]:
    """Numbers by name; InputError where the images, which have their features, cannot give them."""
    values: dict[str, float] = {}
    for name, metric in table.items():
        try:
            values |= metric.values(samples, reference)
        except ValueError as error:
            raise InputError(f"metric {name!r}: {error}") from None
    return values


def _frechet(key: str, name: str) -> Callable[[ImageSet, ImageSet], dict[str, float]]:
    def values(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
        real, drawn = reference.features[key], samples.features[key]
        count = min(len(real), len(drawn))
        if count <= real.shape[1]:
            log.warning(
                "%s of %d images: a covariance of %d features needs more, so that the number is "
                "too high and comparable at this count only",
                name,
                count,
                real.shape[1],
            )
        return {name: frechet.frechet_distance(real, drawn)}

    return values


def _rfid(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
    if samples.images.shape != reference.images.shape:
        raise ValueError(
            f"originals {reference.images.shape} and reconstructions {samples.images.shape}, "
            "expected the same shape"
        )
    return _frechet("pool", "rfid")(samples, reference)


def _precision_recall(key: str, prefix: str) -> Callable[[ImageSet, ImageSet], dict[str, float]]:
    def values(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
        found = manifolds.precision_recall(reference.features[key], samples.features[key])
        return dict(zip((f"{prefix}precision", f"{prefix}recall"), found, strict=True))

    return values


def _inception_score(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
    # Samples are often sorted by class, which would make each split look poor.
    order = np.random.default_rng(0).permutation(len(samples.images))
    mean, deviation = scores.inception_score(samples.features["logits"][order])
    return {"inception_score": mean, "inception_score_deviation": deviation}


def _accuracy(key: str, name: str) -> Callable[[ImageSet, ImageSet], dict[str, float]]:
    def values(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
        if samples.labels is None or reference.labels is None:
            raise ValueError("samples and reference need labels")
        if not set(samples.labels.tolist()) <= set(reference.labels.tolist()):
            unknown = sorted(set(samples.labels.tolist()) - set(reference.labels.tolist()))
            raise ValueError(f"the reference has no images of classes {unknown[:5]}")
        real, drawn = reference.features[key], samples.features[key]
        return {name: features.class_accuracy(real, reference.labels, drawn, samples.labels)}

    return values


def _of_features(key: str, prefix: str) -> dict[str, Metric]:
    """The metrics that any features give, under the name of those."""
    told = _described(key)
    return {
        "frechet": Metric(_frechet(key, f"{prefix}_frechet_distance"), told, key),
        "pr": Metric(_precision_recall(key, f"{prefix}_"), f"k = 3; {told}", key),
        "accuracy": Metric(
            _accuracy(key, f"{prefix}_class_accuracy"),
            f"5 nearest neighbours in the reference; {told}",
            key,
        ),
    }


def _psnr(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
    return {"psnr": reconstruction.psnr(reference.images, samples.images)}


def _ssim(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
    return {
        "ssim": reconstruction.ssim(reference.images, samples.images),
        "ssim_llamagen": reconstruction.ssim(reference.images, samples.images, data_range=510),
    }


def _codebook(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
    if samples.codes is None:
        raise ValueError("the samples have no codes; maskgil_jax.reconstruct writes some that do")
    usage, perplexity = reconstruction.codebook_usage(samples.codes, samples.codebook_size)
    return {"codebook_usage": usage, "codebook_perplexity": perplexity}


def _of_lpips(directory: str) -> Metric:
    if not directory:
        raise InputError(
            "metric 'lpips' needs --lpips=DIR (from maskgil_jax.convert import --format=lpips)"
        )
    import jax

    from maskgil_jax import api

    network = api.load_auxiliary(directory, "lpips")
    distance = jax.jit(lambda network, x, y: network(x / 127.5 - 1, y / 127.5 - 1))

    def values(samples: ImageSet, reference: ImageSet) -> dict[str, float]:
        x, y = reference.images, samples.images
        if x.shape != y.shape or min(x.shape[1:3]) < 16:
            raise ValueError(
                f"originals {x.shape} and reconstructions {y.shape}, expected the same shape and "
                "sides of 16 or more"
            )
        parts = [distance(network, x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)]
        return {"lpips_vgg": float(np.concatenate(parts).mean(dtype=np.float64))}

    return Metric(
        values,
        "VGG16 with LPIPS heads, evaluation mode, images in [-1, 1], mean over images",
        paired=True,
    )


METRICS = {
    **_of_features("pixels", "pixel"),
    "psnr": Metric(_psnr, "uint8, data range 255, mean over images", paired=True),
    "ssim": Metric(
        _ssim,
        "skimage, uniform 7x7 window, uint8, data range 255, mean over images; ssim_llamagen: data "
        "range 2 for images in [0, 1], as LlamaGen's script",
        paired=True,
    ),
    "codebook": Metric(
        _codebook,
        "all codes of the samples: share of the codebook that occurs, exp of the entropy",
        paired=True,
    ),
}
INCEPTION_METRICS = {
    "fid": Metric(_frechet("pool", "fid"), f"pool_3, 2048; {INCEPTION}", "pool"),
    "rfid": Metric(
        _rfid,
        f"FID of reconstructions against the originals themselves; pool_3, 2048; {INCEPTION}",
        "pool",
        paired=True,
    ),
    "sfid": Metric(_frechet("spatial", "sfid"), f"mixed_6/conv, 17x17x7; {INCEPTION}", "spatial"),
    "is": Metric(
        _inception_score,
        f"1,008 logits without bias, shuffled with seed 0, splits of 5,000; {INCEPTION}",
        "logits",
    ),
    "pr": Metric(_precision_recall("pool", ""), f"k = 3; pool_3, 2048; {INCEPTION}", "pool"),
}


def read_images(path: str, size: int | None) -> ImageSet:
    """Images of an npz, a folder of PNGs or a data source.

    Args:
      path: F.npz (`arr_0`; of ImageSet's other fields, those that it has), a folder (its
        samples.npz if it has one), or a source such as `embedded`.
      size: side of the ADM centre crop; None takes files as they are.

    Raises:
      InputError: nothing there, or not uint8 [N, H, W, 3].
    """
    if (epath.Path(path) / "samples.npz").exists():  # what maskgil_jax.sample wrote
        path = str(epath.Path(path) / "samples.npz")
    if path.endswith(".npz"):
        try:
            with epath.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as data:
                images, known = data["arr_0"], {key: data[key] for key in data if key != "arr_0"}
            labels = known.get("labels")
            if "class_names" in known:
                labels = known["class_names"][labels]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is not an npz with `arr_0`: {error}") from None
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InputError(
                f"{path}: arr_0 is {images.dtype} {images.shape}, expected uint8 [N, H, W, 3]"
            )
        return ImageSet(
            images,
            labels,
            known.get("codes"),
            int(known.get("codebook_size", 0)),
            str(known.get("protocol", "")),
        )
    source = _open(path)
    images, labels = sources.center_crops(source, size, len(source))
    return ImageSet(images, np.array(source.class_names)[labels])


def _open(path: str) -> sources.Source:
    kind = path.partition(":")[0]
    return sources.open_source(path if kind in sources.SOURCES else f"folder:{path}")
