"""Options of runs, comparisons, sweeps and studies: those of their commands."""

import dataclasses

from maskgil_jax import config as defaults
from maskgil_jax.evaluation.options import Generating, Measuring
from maskgil_jax.generation.options import Companions
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.config_files import Config
from maskgil_jax.runtime.options import option

CODES = defaults.codes()  # what the stage of this name does unless it is told otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What maskgil_jax.main runs."""

    config: Config = option("config file, such as configs/b.py, or the name of one, such as b")
    workdir: str = option(
        "directory for checkpoints, model, samples, metrics", unless="print_config"
    )
    print_config: bool = option("prints the config with all changes, and does nothing else", False)
    processes: Processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What maskgil_jax.inspect looks at."""

    data: str = option("source: folder:PATH, parquet:PATTERN, tar:PATTERN, arrayrecord:DIR, ...")
    output: str = option("PNG to write, of 32 examples as a training step would see them", "")
    num: int = option("images that are read, spread evenly over all; 0: all", 1000, least=0)
    image_size: int = option("pixels: side of the squares of the picture", 256, least=1)
    buckets: str = option("pixart or lumina, as in training; default: squares", "")
    crop: str = option("random, whole_side or center, as in training", "random")
    flip: bool = option("mirror half of the images, as in training", True)
    color: str = option(
        "srgb: converted from ICC profiles; ignore: pixels as they are stored", CODES.color
    )
    seed: int = option("of order and crops, as in training", 0, least=0)
    tokenizer: str = option(
        "of code shards, for their picture; default: the one that made them", ""
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """What maskgil_jax.tokenize encodes."""

    tokenizer: str = option("tokenizer directory")
    data: str = option("source of images: embedded, folder:PATH, parquet:PATTERN, tar:PATTERN, ...")
    output: str = option("directory for the shards")
    crops: str = option("center (1), flip (2), ten (10) or random (--views) per image", CODES.crops)
    encoder: str = option("text encoder directory: keeps the captions' token ids", CODES.encoder)
    features: bool = option("keeps the captions' features too", CODES.features)
    caption_tokens: int = option("kept of a caption", CODES.caption_tokens, least=1)
    recordings: bool = option("keeps the recordings that tars hold", CODES.recordings)
    views: int = option("of each image, for --crops=random", CODES.views, least=1)
    seed: int = option("of random crops", CODES.seed, least=0)
    color: str = option(
        "srgb: converted from ICC profiles; ignore: pixels as they are stored", CODES.color
    )
    image_size: int = option("pixels: side of the squares", CODES.image_size, least=1)
    buckets: str = option(
        "pixart or lumina: each image becomes the size of that list that fits it best; default: "
        "all become squares",
        CODES.buckets,
    )
    batch_size: int = option(
        "images encoded at once on each device; fewer, where its memory asks for it",
        CODES.batch_size,
        least=1,
    )
    memory: float = option(
        "GiB of a device to stay within beside the weights; 0: what is free there",
        CODES.memory,
        least=0,
    )
    shard_size: int = option("images per file", CODES.shard_size, least=1)
    bad_image_limit: float = option(
        "largest share of unreadable images; unless 0, one is allowed", CODES.bad_image_limit
    )
    processes: Processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """What maskgil_jax.reconstruct compares."""

    tokenizers: tuple[str, ...] = option("tokenizer directories, as in --tokenizers=A,B")
    data: str = option("source of the images, such as folder:PATH")
    output: str = option("directory for reconstructions, tables and pictures")
    image_size: int = option("pixels, side of the ADM centre crop", 256, least=1)
    count: int = option("images", 1000, least=1)
    batch_size: int = option(
        "images at once on each device; fewer, where its memory asks for it", 8, least=1
    )
    memory: float = option(
        "GiB of a device to stay within beside the weights; 0: what is free there", 0.0, least=0
    )
    rounding: str = option(
        "of pixels to uint8: LlamaGen's, or that of taming-transformers and Open-MAGVIT2",
        "half_up",
        choices=("half_up", "truncate"),
    )
    lpips: str = option("LPIPS directory, for that column", "")
    inception: str = option("Inception directory, for the column rFID", "")
    processes: Processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What maskgil_jax.compare measures."""

    models: tuple[str, ...] = option("generator directories, all of one tokenizer")
    tokenizer: str = option("tokenizer directory; default: the generators' own", "")
    codes: str = option("code shards that none of them was trained on")
    reference: str = option("F.npz, a folder of images, or a data source")
    output: str = option("directory for table and pictures")
    prefixes: tuple[int, ...] = option(
        "also draws so many tokens one by one and the rest masked: by a model that was trained on "
        "both, and by each masked one with the first causal one of --models",
        (),
    )
    num: int = option("images generated, and codes of the likelihood", 1000, least=2)
    batch_size: int = option("images at once", 64, least=1)
    seed: int = option("of images and masks", 0)
    measuring: Measuring


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchOptions:
    """What maskgil_jax.condition_match measures."""

    model: str = option("generator directory")
    codes: str = option("code shards that it was not trained on")
    encoder: str = option("encoder directory; default: the generator's own", "")
    speech: str = option(
        "folder of recordings, of a generator of speech; or inside: those that the codes hold", ""
    )
    output: str = option("F.json to write", "")
    num: int = option("images, at most", 1000, least=2)
    masks: int = option("drawn for each image", 8, least=1)
    batch_size: int = option("images at once", 64, least=1)
    seed: int = option("of pairs, masks and captions", 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What maskgil_jax.sweep varies and measures."""

    model: str = option("generator directory, which generates the samples")
    vary: tuple[str, ...] = option(
        "NAME=VALUE,VALUE of a decoding flag, as in --vary=guidance=1,2; several multiply",
        repeated=True,
    )
    also: tuple[str, ...] = option(
        "further settings, as in --also='rule=moment;steps=2,4': those of an --also multiply, and "
        "what it does not name is as without --vary",
        (),
        repeated=True,
    )
    reference: str = option("F.npz, a folder of images, or a data source")
    output: str = option("directory for table and plots")
    num: int = option("images that it generates", 1000, least=2)
    generating: Generating
    measuring: Measuring
    processes: Processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """The family of runs that maskgil_jax.scaling trains."""

    config: Config = option("config file of a generator of code shards")
    workdir: str = option("directory for the runs, one in SIZE-STEPS each")
    sizes: tuple[str, ...] = option("LAYERSxWIDTH of each size, as 2x64,4x128", ())
    steps: tuple[str, ...] = option("each size is trained for each of these, as 200,400,800", ())
    codes: str = option("code shards that none of them is trained on")
    output: str = option("directory for tables and plot")
    plans: tuple[str, ...] = option("F.json of maskgil_jax.plan, to which the law is extended", ())
    num: int = option("images that the loss is of, at most", 1000, least=1)
    batch_size: int = option("images at once", 64, least=1)
    seed: int = option("of masks and of the intervals", 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The study that maskgil_jax.study does."""

    config: Config = option("config file of a study, such as configs/studies/norms.py")
    workdir: str = option("directory for what is measured, tables, figures and the page")
    runs: str = option(
        "directory for the runs, which studies may share; default: runs in the work directory", ""
    )
    dry_run: bool = option("says what there is to do, and does nothing", False)
    only: str = option("name of the one cell to do, as a dry run gives it", "")
    processes: Processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What maskgil_jax.demo shows, and where."""

    model: str = option("generator directory")
    host: str = option("address to listen on; 0.0.0.0 lets other machines in", "127.0.0.1")
    port: int = option("to listen on; 0: any that is free from 7860 on", 7860, least=0)
    batch_size: int = option("images drawn at once, of all who wait", 16, least=1)
    companions: Companions
