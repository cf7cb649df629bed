"""Stage 1: train an image tokenizer and its discriminator."""

import logging
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.data import pipeline, sources
from maskgil_jax.data.images import buckets
from maskgil_jax.data.order import pools_of
from maskgil_jax.data.records import image_records
from maskgil_jax.generation import pictures
from maskgil_jax.generation.images import reconstruct
from maskgil_jax.models.perceptual.discriminator import DiscriminatorConfig, make
from maskgil_jax.models.perceptual.lpips import LPIPS
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.loading import Auxiliary, Tokenizer, load_auxiliary, load_tokenizer
from maskgil_jax.runtime import processes, trees
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import loop, objectives, tokenizer_objective, tokenizer_step, traced_once
from maskgil_jax.training.common_checks import check_common
from maskgil_jax.training.dataset import Dataset
from maskgil_jax.training.train_state import TrainState

log = logging.getLogger("maskgil_jax")


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Train as `config` says; WORKDIR/model is the tokenizer, WORKDIR/discriminator the other.

    Where no term of the loss needs the discriminator, it is neither trained nor saved.

    Raises:
      InputError: what the config names does not fit together, which is noticed before training
        starts; and as loop.open_run and loop.train.
    """
    mesh, networks = check(config)
    lpips = load_lpips(config)
    start_from = load_start(config, *networks)
    source = open_source(config)
    dataset = dataset_of(source, config, networks[0].downsample)
    originals, _ = sources.center_crops(
        source,
        config.data.image_size,
        config.samples.count,
        config.data.color,
        config.data.source,
    )
    judged = tokenizer_objective.is_judged(config.loss)
    if not judged:
        log.info("no discriminator: config.loss.adversarial_weight and feature_weight are 0")
    settings = traced_once.settings(config)
    init = traced_once.partial(tokenizer_step.init, settings, *networks)
    step = traced_once.partial(tokenizer_step.step, config=settings)

    def describe(state: TrainState) -> dict[str, Any]:
        return Tokenizer(averaged(state)).description

    opened = loop.open_run(init, start_from, dataset, config, workdir, mesh, describe)
    with opened as (run, state):
        steps = loop.train(run, state, step, lpips)
        for number, state in steps:
            run.writer.pictures(number, reconstruction_pictures(averaged(state), originals))
    Tokenizer(averaged(state)).save(workdir / "model")
    if judged:
        Auxiliary(state.model["discriminator"]).save(workdir / "discriminator")


def open_source(config: ConfigDict) -> image_records.Source:
    """The images that are trained on.

    Raises:
      InputError: there is no such source, or too many of its images cannot be read.
    """
    source = sources.open_source(config.data.source)
    source.census.announce(config.data.source)
    source.census.check_limit(
        config.data.source, config.data.bad_image_limit, "config.data.bad_image_limit"
    )
    return source


def dataset_of(source: image_records.Source, config: ConfigDict, downsample: int) -> Dataset:
    """The images of a source as squares; `downsample` is the tokenizer's."""
    squares = buckets.named("", config.data.image_size, downsample)
    numbers = squares.of_images(source)
    load = pipeline.image_loader(
        source,
        numbers,
        sizes=squares.sizes,
        crop=config.data.crop,
        flip=config.data.flip,
        color=config.data.color,
        resize=config.data.resize,
    )
    return Dataset(
        load,
        pools_of([numbers], blocks=[image_records.blocks_of(source)]),
        squares.grids(downsample),
        lambda index: image_records.name_of(source[index], config.data.color),
    )


def reconstruction_pictures(weights: VQTokenizer, originals: np.ndarray) -> dict[str, np.ndarray]:
    """A picture of originals and their reconstructions: {name: uint8 [H, W, 3]}.

    All processes call this; the first one reconstructs, the others get {}.
    """
    tokenizer = Tokenizer(processes.local(weights))
    if not processes.first():
        return {}
    try:
        reconstructions, _ = reconstruct(tokenizer, originals, batch_size=len(originals))
    except InputError as error:  # training may still recover
        log.warning("no reconstructions to show: %s", error)
        return {}
    return {"reconstructions": pictures.pairs(originals, reconstructions)}


def averaged(state: TrainState) -> VQTokenizer:
    """The weights to keep: the averaged ones where there are any."""
    return state.model["tokenizer"] if state.ema is None else state.ema


def check(config: ConfigDict) -> tuple[jax.sharding.Mesh, tuple[VQConfig, DiscriminatorConfig]]:
    """What `config` describes, without a look at images or weights.

    Raises:
      InputError: fields that do not fit together, or this machine.
    """
    mesh = check_common(config)
    networks = tokenizer_config(config), discriminator_config(config)
    check_loss(config)
    check_lpips(config)
    return mesh, networks


def tokenizer_config(config: ConfigDict) -> VQConfig:
    """The network that `config` describes.

    Raises:
      InputError: numbers that no network has.
    """
    try:
        network = VQConfig(**config.model)
    except ValueError as error:
        raise InputError(f"config.model: {error}") from None
    if config.data.image_size % network.downsample:
        raise InputError(
            f"config.data.image_size = {config.data.image_size}, expected a multiple of "
            f"{network.downsample} (the tokenizer's downsampling)"
        )
    return network


def discriminator_config(config: ConfigDict) -> DiscriminatorConfig:
    """The discriminator that `config` describes.

    Raises:
      InputError: numbers that no network has.
    """
    try:
        return DiscriminatorConfig(**config.discriminator, image_size=config.data.image_size)
    except ValueError as error:
        raise InputError(f"config.discriminator: {error}") from None


def check_loss(config: ConfigDict) -> None:
    """Raise InputError where config.loss or config.codebook names what does not exist."""
    for name, known in (
        ("reconstruction", objectives.PIXEL_LOSSES),
        ("adversarial", objectives.GENERATOR_LOSSES),
        ("discriminator", objectives.DISCRIMINATOR_LOSSES),
    ):
        if config.loss[name] not in known:
            raise InputError(
                f"config.loss.{name} = {config.loss[name]!r}, expected one of {sorted(known)}"
            )
    if config.codebook.restart_every and config.model.quantizer == "lookup_free":
        raise InputError(
            f"config.codebook.restart_every = {config.codebook.restart_every}: a lookup-free "
            "quantizer has no codebook to restart, expected 0"
        )


def load_lpips(config: ConfigDict) -> LPIPS | None:
    """LPIPS, computing as the tokenizer does; None where its weight is 0.

    Raises:
      InputError: the directory holds something else.
    """
    if not config.loss.perceptual_weight:
        return None
    return load_auxiliary(config.loss.lpips, "lpips", config.model.dtype)


def check_lpips(config: ConfigDict) -> None:
    """Raise InputError where LPIPS is needed, and not given or too large for the images."""
    if not config.loss.perceptual_weight:
        return
    if not config.loss.lpips:
        raise InputError(
            f"config.loss.perceptual_weight = {config.loss.perceptual_weight:g} needs LPIPS, but "
            "config.loss.lpips is empty. Make a directory of torchvision's vgg16-397923af.pth "
            "(download.pytorch.org/models) and of the LPIPS heads vgg.pth (in the repositories of "
            "LlamaGen and of LPIPS) with\n"
            "  python -m maskgil_jax.convert import --format=lpips "
            "--source=vgg16-397923af.pth,vgg.pth --output=DIR\n"
            "and give --config.loss.lpips=DIR; or train without it: "
            "--config.loss.perceptual_weight=0"
        )
    if config.data.image_size < 16:
        raise InputError(
            f"config.data.image_size = {config.data.image_size}, expected 16 or more for LPIPS; "
            "or train without it: --config.loss.perceptual_weight=0"
        )


def load_start(
    config: ConfigDict, tokenizer: VQConfig, discriminator: DiscriminatorConfig
) -> dict[str, Any]:
    """The trained networks that config.start_from names.

    Raises:
      InputError: a directory without such a network, or with one of another shape.
    """
    trained = {}
    if config.start_from.tokenizer:
        trained["tokenizer"] = load_tokenizer(config.start_from.tokenizer).network
    if config.start_from.discriminator:
        directory = config.start_from.discriminator
        trained["discriminator"] = load_auxiliary(directory, "discriminator")
    like = {
        "tokenizer": lambda: VQTokenizer(tokenizer, jax.random.key(0)),
        "discriminator": lambda: make(discriminator, jax.random.key(0)),
    }
    for name, network in trained.items():
        if not trees.same_shapes(network, jax.eval_shape(like[name])):
            section = "model" if name == "tokenizer" else "discriminator"
            raise InputError(
                f"config.start_from.{name} = {config.start_from[name]} is {network.config}, but "
                f"config.{section} describes another network"
            )
    return trained
