"""The metrics by name: what each needs, how it is computed, and what it is called."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from maskgil_jax.evaluation import feature_networks
from maskgil_jax.evaluation.feature_sets import FeatureSet
from maskgil_jax.evaluation.protocols import Protocol
from maskgil_jax.metrics import features, frechet, kernel, manifolds, reconstruction
from maskgil_jax.metrics.scores import inception_score
from maskgil_jax.runtime.errors import InputError

Values = Mapping[str, float]
# (reference [M, D], samples [N, D], k) -> two shares.
Overlap = Callable[[np.ndarray, np.ndarray, int], tuple[float, float]]


class Metric(NamedTuple):
    """A metric of two sets of images.

    Attributes:
      values: (samples, reference) -> numbers by name; ValueError where these sets cannot give them.
      description: how they are computed.
      features: names of those that it needs.
      paired: sample i belongs to image i of the reference, or to something else, so that halves of
        one set give nothing.
      covariance_of: name of the features of which it needs mean and covariance alone, or "".
      alone: it is of the samples alone, whatever the reference is.
    """

    values: Callable[[FeatureSet, FeatureSet], Values]
    description: str
    features: tuple[str, ...] = ()
    paired: bool = False
    covariance_of: str = ""
    alone: bool = False


INCEPTION_METRICS = ("fid", "rfid", "sfid", "is", "pr", "kid", "dc")
ANY_METRICS = ("frechet", "pr", "kid", "dc", "accuracy")
PAIR_METRICS = ("psnr", "ssim", "lpips")
ALONE = ("is", "clip", "codebook")  # that need no reference
KNOWN = tuple(dict.fromkeys((*INCEPTION_METRICS, *ANY_METRICS, *PAIR_METRICS, "clip", "codebook")))


@dataclasses.dataclass(frozen=True)
class Available:
    """What metrics can be made of.

    Attributes:
      inception: description of the Inception network, or "" where there is none.
      own: name of another network, which then takes the place of pixels, or "".
      logits: whether that gives logits too.
      lpips: whether there is an LPIPS network.
      clip: whether there is a CLIP.
    """

    inception: str = ""
    own: str = ""
    logits: bool = False
    lpips: bool = False
    clip: bool = False


def metrics_of(names: Sequence[str], protocol: Protocol, available: Available) -> dict[str, Metric]:
    """The metrics of these names.

    Args:
      names: of KNOWN.
      protocol: their settings.
      available: what they can be made of. "pr", "kid", "dc" are of Inception where there is one and
        no other network.

    Raises:
      InputError: an unknown name, or one whose network is not given.
    """
    inception = _of_inception(protocol, available.inception)
    if available.own:
        key, prefix, network = "features", short(available.own), available.own
    else:
        key, prefix, network = "pixels", "pixel", feature_networks.PIXELS
    any_features = _of_any(key, f"{prefix}_", protocol, network)
    if available.logits:
        any_features["is"] = _score(f"{prefix}_", protocol, network)
    of_images = {
        name: metric for name, metric in _OF_IMAGES.items() if name != "lpips" or available.lpips
    }
    table = any_features | of_images
    if available.clip:
        table["clip"] = _clip(protocol)
    if available.inception and not available.own:
        table |= inception
    for name in names:
        if name not in table:
            raise InputError(f"metric {name!r}{_why_not(name, available, any_features)}")
    return {name: table[name] for name in names}


def _why_not(name: str, available: Available, any_features: Iterable[str]) -> str:
    """Why there is no such metric, as the rest of a message."""
    if name == "lpips":
        return " needs lpips=DIR (from maskgil_jax.convert import --format=lpips)"
    if name == "clip":
        return " needs clip=DIR (from maskgil_jax.convert import --format=clip)"
    if name in INCEPTION_METRICS and available.own:
        return (
            f" is of Inception's features, but these are of {available.own}: expected some of "
            f"{', '.join(any_features)}"
        )
    if name in INCEPTION_METRICS:
        return (
            " needs inception=DIR (in a config evaluation.inception; made by maskgil_jax.convert "
            "import --format=fid-inception)"
        )
    return f", expected some of {', '.join(KNOWN)}"


def default_names(protocol: Protocol, available: Available) -> tuple[str, ...]:
    """Names of the metrics of a protocol, those of another network where there is no Inception."""
    if available.inception and not available.own:
        return protocol.metrics
    translated = (
        "frechet" if name in ("fid", "sfid", "rfid") else name for name in protocol.metrics
    )
    possible = {*ANY_METRICS, *PAIR_METRICS, "clip", *(("is",) if available.logits else ())}
    return tuple(dict.fromkeys(name for name in translated if name in possible))


def short(network: str) -> str:
    """What numbers of a network's features are called: FUNCTION of MODULE:FUNCTION, in a word."""
    return re.sub(r"\W+", "_", network.rpartition(":")[2]).strip("_").lower()


def _of_inception(protocol: Protocol, network: str) -> dict[str, Metric]:
    pool = f"pool_3, 2048; {network}"
    table = {
        "fid": _frechet("pool", "fid", pool),
        "rfid": _frechet("pool", "rfid", f"reconstructions against their originals; {pool}"),
        "sfid": _frechet("spatial", "sfid", f"mixed_6/conv, 17x17x7; {network}"),
        "is": _score("", protocol, f"1,008 logits without bias; {network}"),
        **_of_any("pool", "", protocol, pool),
    }
    table["rfid"] = table["rfid"]._replace(paired=True)
    return {name: table[name] for name in INCEPTION_METRICS}


def _of_any(key: str, prefix: str, protocol: Protocol, network: str) -> dict[str, Metric]:
    """The metrics that any features give, under the name of those."""
    chunks = f", means over {protocol.chunks} parts of both" if protocol.chunks > 1 else ""

    def overlap(measure: Overlap, k: int, *names: str) -> Metric:
        def values(samples: FeatureSet, reference: FeatureSet) -> Values:
            real = np.array_split(reference.features(key), protocol.chunks)
            generated = np.array_split(samples.features(key), protocol.chunks)
            shares = [measure(x, y, k) for x, y in zip(real, generated, strict=True)]
            means = np.mean(shares, axis=0)
            return {f"{prefix}{name}": float(x) for name, x in zip(names, means, strict=True)}

        return Metric(values, f"k = {k}{chunks}; {network}", (key,))

    def kid(samples: FeatureSet, reference: FeatureSet) -> Values:
        real, generated = reference.features(key), samples.features(key)
        size = min(protocol.kid_subset_size, len(real), len(generated))
        mean, deviation = kernel.kernel_distance(
            real, generated, protocol.kid_subsets, size, protocol.kid_seed
        )
        return {f"{prefix}kid": mean, f"{prefix}kid_deviation": deviation}

    def accuracy(samples: FeatureSet, reference: FeatureSet) -> Values:
        if samples.labels is None or reference.labels is None:
            raise ValueError("samples and reference need labels")
        if unknown := sorted({*samples.labels.tolist()} - {*reference.labels.tolist()}):
            raise ValueError(f"the reference has no images of classes {unknown[:5]}")
        real, generated = reference.features(key), samples.features(key)
        share = features.class_accuracy(real, reference.labels, generated, samples.labels)
        return {f"{prefix}class_accuracy": share}

    return {
        "frechet": _frechet(key, f"{prefix}frechet_distance", network),
        "pr": overlap(manifolds.precision_recall, protocol.k, "precision", "recall"),
        "kid": Metric(
            kid,
            f"unbiased, cubic kernel, {protocol.kid_subsets} subsets of {protocol.kid_subset_size} "
            f"(or all, where there are fewer), seed {protocol.kid_seed}; {network}",
            (key,),
        ),
        "dc": overlap(manifolds.density_coverage, protocol.density_k, "density", "coverage"),
        "accuracy": Metric(accuracy, f"5 nearest neighbours in the reference; {network}", (key,)),
    }


def _frechet(key: str, name: str, network: str) -> Metric:
    def values(samples: FeatureSet, reference: FeatureSet) -> Values:
        real, generated = reference.factored(key), samples.factored(key)
        if real.mean.shape != generated.mean.shape:
            raise ValueError(
                f"{len(generated.mean)} features against {len(real.mean)}, expected as many"
            )
        return {name: frechet.distance(real, generated)}

    return Metric(values, network, (key,), covariance_of=key)


def _score(prefix: str, protocol: Protocol, network: str) -> Metric:
    def values(samples: FeatureSet, reference: FeatureSet) -> Values:
        logits = samples.features("logits")[protocol.order(samples.count)]
        mean, deviation = inception_score(logits, protocol.split_size, protocol.splits)
        return {f"{prefix}inception_score": mean, f"{prefix}inception_score_deviation": deviation}

    split = f"splits of {protocol.split_size:,}" if protocol.split_size else ""
    split = split or f"{protocol.splits} splits"
    order = "in the order of the file"
    if protocol.shuffle is not None:
        kind = "RandomState" if protocol.legacy_shuffle else "default_rng"
        order = f"shuffled by numpy's {kind}({protocol.shuffle})"
    return Metric(values, f"{split}, {order}; {network}", ("logits",), alone=True)


def _clip(protocol: Protocol) -> Metric:
    prefix = protocol.caption_prefix
    before = f"{prefix!r} before each caption" if prefix else "captions as they are"
    return Metric(
        _mean_of("clip_score"),
        "mean of max(100 cos, 0) of an image and its caption, the first where it has several "
        f"(Hessel et al. 2021, with 100 for their 2.5; torchmetrics); {before}",
        ("clip_score",),
        paired=True,
        alone=True,
    )


def _mean_of(*names: str) -> Callable[[FeatureSet, FeatureSet], Values]:
    return lambda samples, reference: {
        name: float(samples.features(name).mean(dtype=np.float64)) for name in names
    }


def _codebook(samples: FeatureSet, reference: FeatureSet) -> Values:
    if samples.codes is None:
        raise ValueError("the samples have no codes; maskgil_jax.reconstruct writes some that do")
    usage, perplexity = reconstruction.codebook_usage(samples.codes, samples.codebook_size)
    return {"codebook_usage": usage, "codebook_perplexity": perplexity}


_OF_IMAGES = {
    "psnr": Metric(
        _mean_of("psnr"), "uint8, data range 255, mean over images", ("psnr",), paired=True
    ),
    "ssim": Metric(
        _mean_of("ssim", "ssim_llamagen"),
        "skimage, uniform 7x7 window, uint8, data range 255, mean over images; ssim_llamagen: data "
        "range 2 for images in [0, 1], as LlamaGen's script",
        ("ssim", "ssim_llamagen"),
        paired=True,
    ),
    "lpips": Metric(
        _mean_of("lpips_vgg"),
        "VGG16 with LPIPS heads, evaluation mode, images in [-1, 1], mean over images",
        ("lpips_vgg",),
        paired=True,
    ),
    "codebook": Metric(
        _codebook,
        "all codes of the samples: share of the codebook that occurs, exp of the entropy",
        paired=True,
        alone=True,
    ),
}
