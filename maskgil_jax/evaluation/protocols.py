"""How the field measures: published settings by name, and what has to be said of a measurement.

The same samples of LlamaGen-B give FID 5.46 or 6.13, by the reference alone: a number without its
protocol says nothing.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from maskgil_jax.evaluation.feature_sets import FeatureSet
from maskgil_jax.metrics.frechet import Gaussian
from maskgil_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings of the metrics.

    Attributes:
      note: which published numbers it reproduces, and what their reference is.
      metrics: the default ones.
      resize: to the network's input, key of models.inception.RESIZES.
      stretch: each image's range to 0 .. 255 first, of both sides.
      crop: of a reference that is not an npz, key of image_sets.CROPS.
      color: of files of images; the published programs ignore profiles.
      split_size: images a split of the Inception Score, or
      splits: how many splits.
      shuffle: seed of the order of the Inception Score; None: the order of the file.
      legacy_shuffle: that of numpy's RandomState.
      k: neighbour of precision and recall.
      density_k: of density and coverage.
      chunks: of both sides that precision, recall, density and coverage are means over.
      kid_subsets, kid_subset_size, kid_seed: of KID.
      caption_prefix: before each caption, of the CLIP score.
      samples: the published number of them; 0: any.
      statistics: whether the reference should come with statistics of its own ("expected"), must
        not ("refused"), or may ("allowed").
    """

    note: str
    metrics: tuple[str, ...]
    resize: str = "tf1_bilinear"
    stretch: bool = False
    crop: str = "adm"
    color: str = "ignore"
    split_size: int | None = 5000
    splits: int | None = None
    shuffle: int | None = 0
    legacy_shuffle: bool = False
    k: int = 3
    density_k: int = 5
    chunks: int = 1
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    kid_seed: int = 2020
    caption_prefix: str = ""
    samples: int = 50_000
    statistics: str = "allowed"

    def order(self, count: int) -> np.ndarray:
        """The order in which images are split for the Inception Score, int64 [count]."""
        if self.shuffle is None:
            return np.arange(count)
        if self.legacy_shuffle:
            return np.random.RandomState(self.shuffle).permutation(count)
        return np.random.default_rng(self.shuffle).permutation(count)


# What is compared with nothing published has the settings of OpenAI's evaluator.
PROTOCOLS = {
    "": Protocol(
        "none of the published ones: to be compared with runs of the same settings alone",
        ("frechet", "pr"),
        color="srgb",
        samples=0,
    ),
    "adm": Protocol(
        "guided-diffusion's evaluator with VIRTUAL_imagenet256_labeled.npz, whose statistics are "
        "of the training set and whose 10,000 images serve precision and recall. Reproduces "
        "ADM's own figures (FID 3.94 for ADM-G, ADM-U), LlamaGen's (5.46 for LlamaGen-B) and, it "
        "seems, the paper's Table 3 (5.64 for MaskGIL-B), whose protocol is unknown. The official "
        "program splits the Inception Score in the order of the file (is_order=file), and "
        "computes distances in float16, which moves its precision and recall by up to 0.01",
        ("fid", "sfid", "is", "pr"),
        statistics="expected",
    ),
    "torch-fidelity": Protocol(
        "torch-fidelity 0.4.0 with its defaults, between two sets of images. Reproduces "
        "taming-transformers' table (7.94 for f16-1024, against the validation set). Its precision "
        "and recall are of VGG16, and are not given here",
        ("fid", "is", "kid"),
        split_size=None,
        splits=10,
        shuffle=2020,
        legacy_shuffle=True,
        statistics="refused",
    ),
    "clean-fid": Protocol(
        "clean-fid 0.1.35 in its mode clean: each image resized by PIL's bicubic filter, "
        "antialiased, without rounding; the reference has to be too. LlamaGen's VQ-16 has rFID "
        "2.11 so, and 2.19 by the resize of adm. Its KID draws other subsets each time",
        ("fid", "kid"),
        resize="clean_bicubic",
        samples=0,
    ),
    "maskgil-released": Protocol(
        "MaskGIL's released code, which is that of Besnier's MaskGIT-pytorch: images of both sides "
        "stretched to their whole range, the 50,000 validation images as reference, in five parts "
        "each for precision, recall, density and coverage. Reproduces Besnier's table (6.80, 214, "
        ".82, .51, 1.25, .84); no figure of the paper is tied to it. Its Inception Score is of a "
        "random order that cannot be repeated",
        ("fid", "is", "pr", "dc"),
        stretch=True,
        crop="bilinear",
        split_size=None,
        splits=10,
        density_k=3,
        chunks=5,
        statistics="refused",
    ),
    "rfid-val": Protocol(
        "reconstructions against the validation images that they are of, in one order. Reproduces "
        "LlamaGen's tokenizer table (2.19 for VQ-16, which against the statistics of "
        "VIRTUAL_imagenet256_labeled.npz has 4.28), of which PSNR and SSIM are others: see "
        "ssim_llamagen",
        ("rfid", "psnr", "ssim"),
        statistics="refused",
    ),
    "coco-30k": Protocol(
        "zero-shot FID-30K of text to image at 256 pixels: 30,000 prompts, one caption each of as "
        "many images of COCO's val2014, against all 40,504 images of it (Imagen, arXiv "
        "2205.11487), their middle square scaled to 256 by Lanczos, and both by clean-fid's "
        "resize, as GigaGAN's evaluation/evaluation.py and LlamaGen's "
        "evaluations/t2i/evaluation.py, made of it, do (GigaGAN: FID 9.09, CLIP score 0.33 of "
        "ViT-B/32). Those give the mean cosine for the CLIP score, which here is times 100, with "
        "the same words before each caption. Which captions they drew is not known",
        ("fid", "clip"),
        resize="clean_bicubic",
        crop="lanczos",
        caption_prefix="A photo depicts ",
        samples=30_000,
    ),
}


def named(name: str) -> Protocol:
    """The protocol of this name; InputError where there is none."""
    if name not in PROTOCOLS:
        known = ", ".join(filter(None, PROTOCOLS))
        raise InputError(f"protocol={name}: expected one of {known}")
    return PROTOCOLS[name]


def check_statistics(name: str, path: str, stored: Mapping[str, Gaussian]) -> None:
    """Raise InputError where statistics came with the images of a reference, and must not."""
    if PROTOCOLS[name].statistics == "refused" and stored:
        raise InputError(
            f"protocol={name}: {path} holds statistics (mu, sigma) of a set that is "
            "not its images: expected the images themselves (for VQ-16 this is the difference "
            "between 2.19 and 4.28)"
        )


def cautions(
    name: str,
    samples: FeatureSet,
    reference: FeatureSet,
    *,
    protocol: Protocol,
    covariances: Mapping[str, str],
    scored: bool,
) -> list[str]:
    """What a reader of the numbers has to know.

    Args:
      name: of the protocol.
      samples, reference: that are compared.
      protocol: its settings, as they are used.
      covariances: metrics of a covariance, and the features that it is of.
      scored: whether there is an Inception Score.

    Raises:
      InputError: the Inception Score of images that are sorted by class.
    """
    return [
        *_too_few_images(samples, reference, covariances),
        *_other_sample_count(name, samples, protocol),
        *_other_statistics(name, reference, protocol),
        *(_unknown_order(samples, protocol) if scored else ()),
    ]


def _too_few_images(
    samples: FeatureSet, reference: FeatureSet, covariances: Mapping[str, str]
) -> Iterator[str]:
    for metric, feature in covariances.items():
        width = len(samples.factored(feature).mean)
        counts = [samples.count] + ([] if feature in reference.stored else [reference.count])
        if (least := min(counts)) <= width:
            yield (
                f"{metric} of {least:,} images: a covariance of {width:,} features needs more, so "
                "that the number is too high, and to be compared at this count alone"
            )


def _other_sample_count(name: str, samples: FeatureSet, protocol: Protocol) -> Iterator[str]:
    if protocol.samples and samples.count != protocol.samples:
        yield (
            f"{samples.count:,} samples: the published numbers of {name} are of "
            f"{protocol.samples:,}, and these are comparable with none of them"
        )


def _other_statistics(name: str, reference: FeatureSet, protocol: Protocol) -> Iterator[str]:
    if protocol.statistics == "expected" and not reference.stored:
        yield (
            f"{reference.path} holds no statistics (mu, sigma): they were computed of its "
            f"{reference.count:,} images. The published numbers of {name} are against the training "
            "set's, stored in VIRTUAL_imagenet256_labeled.npz; validation images give others (6.13 "
            "instead of 5.46 for LlamaGen-B)"
        )
    if protocol.resize != "tf1_bilinear" and reference.stored and "of" not in reference.about:
        yield (
            f"{reference.path} does not say by which resize its statistics were made: {name} "
            f"expects {protocol.resize}"
        )


def _unknown_order(samples: FeatureSet, protocol: Protocol) -> Iterator[str]:
    """Of an Inception Score in the order of the file."""
    if protocol.shuffle is not None:
        return
    if samples.labels is None:
        yield (
            "Inception Score in the order of the file, whose classes are not known: splits of "
            "images sorted by class would score far too low"
        )
    elif sorted_by_class(samples.labels):
        raise InputError(
            f"is_order=file: {samples.path} is sorted by class, so that its splits would "
            "hold a few classes each and score far too low: expected is_order=shuffled"
        )


def sorted_by_class(labels: np.ndarray) -> bool:
    """Whether equal labels of more than one class lie together."""
    runs = 1 + int((labels[1:] != labels[:-1]).sum())
    classes = len(np.unique(labels))
    return 1 < classes < len(labels) and runs == classes
