"""Stage 1: train an image tokenizer and its discriminator, both updated in one jitted step."""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.data import buckets, pipeline, records, sources
from maskgil_jax.data.color import check_color
from maskgil_jax.generation import pictures
from maskgil_jax.generation.images import reconstruct
from maskgil_jax.models.perceptual.discriminator import DiscriminatorConfig, make
from maskgil_jax.models.perceptual.lpips import LPIPS
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.loading import Auxiliary, Tokenizer, load_auxiliary, load_tokenizer
from maskgil_jax.runtime import processes, sharding, trees
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import codebook, objectives, optimizer, tokenizer_objective
from maskgil_jax.training.loop import Batch, Stage, TrainState, train

log = logging.getLogger("maskgil_jax")


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Train as `config` says; WORKDIR/model is the tokenizer, WORKDIR/discriminator the other.

    Raises:
      InputError: what the config names does not fit together, found before training starts.
    """
    mesh, networks = check(config)
    lpips = load_lpips(config)
    start_from = load_start(config, *networks)
    source = sources.open_source(config.data.source)
    source.census.announce(config.data.source)
    source.census.check_limit(
        config.data.source, config.data.bad_image_limit, "config.data.bad_image_limit"
    )
    size = config.data.image_size
    squares = buckets.named("", size, networks[0].downsample)
    numbers = squares.of_images(source)
    load = pipeline.image_loader(
        source,
        numbers,
        sizes=squares.sizes,
        crop=config.data.crop,
        flip=config.data.flip,
        color=config.data.color,
    )
    shown, _ = sources.center_crops(
        source, size, config.samples.count, config.data.color, config.data.source
    )

    def show(state: TrainState) -> dict[str, np.ndarray]:
        tokenizer = Tokenizer(processes.local(averaged(state)))
        if not processes.first():
            return {}
        try:
            reconstructions, _ = reconstruct(tokenizer, shown, batch_size=len(shown))
        except InputError as error:  # training may still recover
            log.warning("no reconstructions to show: %s", error)
            return {}
        return {"reconstructions": pictures.pairs(shown, reconstructions)}

    stage = Stage(
        init=lambda start_from: init(config, *networks, start_from),
        start_from=start_from,
        step=lambda state, lpips, batch: step(state, lpips, batch, config),
        load=load,
        parts=pipeline.parts_of([numbers]),
        name_of_example=lambda index: records.name_of(source[index], config.data.color),
        frozen=lpips,
        to_average=lambda model: model["tokenizer"],
        pictures=show,
        grids=squares.grids(networks[0].downsample),
    )
    state = train(stage, config, workdir, mesh)
    Tokenizer(averaged(state)).save(workdir / "model")
    Auxiliary(state.model["discriminator"]).save(workdir / "discriminator")


def check(config: ConfigDict) -> tuple[jax.sharding.Mesh, tuple[VQConfig, DiscriminatorConfig]]:
    """What `config` describes, without a look at images or weights.

    Raises:
      InputError: fields that do not fit together, or this machine.
    """
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    pipeline.check_crop(config.data.crop)
    check_color(config.data.color, "config.data.color")
    networks = tokenizer_config(config), discriminator_config(config)
    check_loss(config)
    check_lpips(config)
    optimizer.adamw(**config.optimizer, steps=config.steps)
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
    """Raise InputError where config.loss or config.codebook asks for what there is not."""
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
    found = {}
    if config.start_from.tokenizer:
        found["tokenizer"] = load_tokenizer(config.start_from.tokenizer).network
    if config.start_from.discriminator:
        directory = config.start_from.discriminator
        found["discriminator"] = load_auxiliary(directory, "discriminator")
    like = {
        "tokenizer": lambda: VQTokenizer(tokenizer, jax.random.key(0)),
        "discriminator": lambda: make(discriminator, jax.random.key(0)),
    }
    for name, network in found.items():
        if not trees.same_shapes(network, jax.eval_shape(like[name])):
            section = "model" if name == "tokenizer" else "discriminator"
            raise InputError(
                f"config.start_from.{name} = {config.start_from[name]} is {network.config}, but "
                f"config.{section} describes another network"
            )
    return found


def averaged(state: TrainState) -> VQTokenizer:
    """The weights to keep: the averaged ones where there are any."""
    return state.model["tokenizer"] if state.ema is None else state.ema


def init(
    config: ConfigDict,
    tokenizer: VQConfig,
    discriminator: DiscriminatorConfig,
    start_from: dict[str, Any],
) -> TrainState:
    """Both networks from `config.seed`, or with the weights of those in `start_from`."""
    keys = jax.random.split(jax.random.key(config.seed))
    model = {
        "tokenizer": VQTokenizer(tokenizer, keys[0]),
        "discriminator": make(discriminator, keys[1]),
    }
    for name, trained in start_from.items():
        # Weights only: the structure also says what the computation's dtype is.
        model[name] = jax.tree.unflatten(jax.tree.structure(model[name]), jax.tree.leaves(trained))
    adam, _ = optimizer.adamw(**config.optimizer, steps=config.steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        model=model,
        optimizer={name: adam.init(part) for name, part in model.items()},
        ema=jax.tree.map(jnp.copy, model["tokenizer"]) if config.ema_decay else None,
        memory={
            "codes": jnp.zeros(config.codebook.usage_window, jnp.int32),
            "lecam": {"real": jnp.zeros(()), "fake": jnp.zeros(())},
        },
    )


def step(
    state: TrainState, lpips: LPIPS | None, batch: Batch, config: ConfigDict
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the tokenizer, and of the discriminator on the same reconstructions."""
    images = batch["image"].astype(jnp.float32) / 127.5 - 1
    on = (state.step >= config.loss.adversarial_start).astype(jnp.float32)
    lpips_key, restart_key = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed), state.step)
    )

    def gradients(images: jax.Array, index: jax.Array) -> Any:
        return tokenizer_objective.gradients(
            state.model,
            state.memory["lecam"],
            lpips,
            images,
            on,
            jax.random.fold_in(lpips_key, index),
            config.loss,
        )

    totals, (codes, latents) = optimizer.accumulate(gradients, images, config.accumulate_steps)
    found = jax.tree.map(lambda x: x / config.accumulate_steps, totals)

    adam, rate = optimizer.adamw(**config.optimizer, steps=config.steps)
    model, moments = {}, {}
    for name, part in state.model.items():
        updates, moments[name] = adam.update(found.gradients[name], state.optimizer[name], part)
        model[name] = optax.apply_updates(part, updates)
    model["discriminator"] = functools.reduce(
        lambda judge, of_batch: judge.with_moments(of_batch), found.moments, model["discriminator"]
    )
    history = codebook.push(state.memory["codes"], codes)
    used_V = codebook.used(history, config.model.codebook_size)
    metrics = found.metrics | {
        "psnr": -10 * jnp.log10(found.metrics["mean_squared_error"] / 4),
        "codebook_usage": used_V.mean(),
        "learning_rate": rate(state.step),
        "gradient_norm": optax.tree.norm(found.gradients["tokenizer"]),
        "parameter_norm": optax.tree.norm(state.model["tokenizer"]),  # of what the loss is of
    }
    ema = state.ema
    if config.codebook.restart_every:
        full = (state.step + 1) * codes.size >= len(history)
        dead_V = ~used_V & full & ((state.step + 1) % config.codebook.restart_every == 0)
        rows = codebook.drawn_rows(latents, dead_V.shape, restart_key)
        model, ema = codebook.replace_rows((model, ema), dead_V, rows)
        moments = codebook.replace_rows(moments, dead_V, 0.0)
        metrics["restarted_codes"] = dead_V.sum().astype(jnp.float32)
    memory = {"codes": history, "lecam": found.lecam}
    return TrainState(state.step + 1, model, moments, ema, memory), metrics
