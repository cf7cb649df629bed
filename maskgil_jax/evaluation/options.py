"""How images are measured: options of `evaluate` and `features`, and those that others share."""

import dataclasses

from maskgil_jax.generation.options import Companions, Decoding
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generating:
    """What a generator generates to be measured; without a condition all classes in turn."""

    classes: tuple[str, ...] = option(
        "class ids, names of classes, or ranges such as 0-99; default: all, as many of each", ()
    )
    prompts: str = option(
        "file of prompts, one a line, or COCO's JSON file of captions, for a model of text", ""
    )
    speech: str = option(
        "folder of recordings, or of a sub-folder of them for each class, for a model of speech",
        "",
    )
    condition_features: str = option(
        "folder of .npy files, float [T, C], for a model of features made elsewhere", ""
    )
    batch_size: int = option("images generated at once, at most 256", 64, least=1)
    seed: int = option("of all images", 0)
    companions: Companions
    decoding: Decoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is measured, and by which networks."""

    metrics: tuple[str, ...] = option(
        "some of frechet, pr (precision and recall), kid, dc (density and coverage), accuracy, "
        "psnr, ssim, lpips, codebook; with --inception fid, rfid, sfid, is too; with --clip clip; "
        "default: the protocol's, or frechet and pr",
        (),
    )
    protocol: str = option(
        "how published numbers were measured: adm, torch-fidelity, clean-fid, maskgil-released, "
        "rfid-val or coco-30k; default: none of them, with the settings of adm",
        "",
    )
    is_order: str = option(
        "in which images are split for the Inception Score",
        "shuffled",
        choices=("shuffled", "file"),
    )
    inception: str = option("Inception directory, of which pr, kid and dc are then too", "")
    lpips: str = option("LPIPS directory, for the metric lpips", "")
    clip: str = option(
        "CLIP directory, for the metric clip: how near images are to their captions", ""
    )
    features: tuple[str, ...] = option(
        "MODULE:FUNCTION, uint8 [N, H, W, 3] -> floats [N, D]: a network of your own, which takes "
        "the place of pixels and Inception (the module is imported, and so its code runs); or "
        "F.npz,F.npz of samples and reference: what something else computed, as arrays `features` "
        "[N, D] and `network` (its name)",
        (),
    )
    feature_batch_size: int = option(
        "images that a network takes at once, at most 256", 32, least=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What maskgil_jax.evaluate measures."""

    samples: str = option("F.npz (images, or features), a folder, or a data source", "")
    reference: str = option("the same; none for metrics of the samples alone", "")
    output: str = option("JSON file to write")
    model: str = option("generator directory, which generates the samples", "")
    num: int = option("images that it generates", 50_000, least=2)
    generating: Generating
    measuring: Measuring
    processes: Processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """What maskgil_jax.features computes."""

    data: str = option("F.npz, a folder, or a data source")
    output: str = option("npz to write")
    image_size: int = option(
        "pixels: side of the centre crop; 0: images are of one size as they are", 0
    )
    protocol: str = option("whose resize and crop are used, as maskgil_jax.evaluate", "")
    inception: str = option("Inception directory", "")
    features: str = option(
        "MODULE:FUNCTION instead, as maskgil_jax.evaluate (its module is imported, and so runs)",
        "",
    )
    keep: bool = option("the features too, which precision and recall need", True)
    batch_size: int = option("images that the network takes at once", 32, least=1)
    processes: Processes
