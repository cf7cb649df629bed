"""Stage 1: train an image tokenizer and its discriminator, both updated in one jitted step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax import pictures, sharding
from maskgil_jax.api import Tokenizer
from maskgil_jax.data import pipeline, sources
from maskgil_jax.decoding import draw
from maskgil_jax.errors import InputError
from maskgil_jax.tokenizers.discriminator import PatchGAN
from maskgil_jax.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.training import objectives, optimizer
from maskgil_jax.training.loop import Batch, Stage, TrainState, train

PIXEL_LOSSES = {
    "l2": lambda x, y: jnp.mean((x - y) ** 2),
    "l1": lambda x, y: jnp.mean(jnp.abs(x - y)),
}


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Train as `config` says; the tokenizer ends up in WORKDIR/model.

    Raises:
      InputError: what the config names does not fit together, found before training starts.
    """
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    network = tokenizer_config(config)
    if config.loss.reconstruction not in PIXEL_LOSSES:
        raise InputError(
            f"config.loss.reconstruction = {config.loss.reconstruction!r}, expected one of "
            f"{sorted(PIXEL_LOSSES)}"
        )
    patches = config.data.image_size // 2**config.discriminator.layers - 2
    if config.discriminator.layers < 1 or patches < 1:
        raise InputError(
            f"config.discriminator.layers = {config.discriminator.layers} leaves no patch of "
            f"images of {config.data.image_size} pixels to judge; take fewer (1 or more)"
        )
    source = sources.open_source(config.data.source)
    load = pipeline.image_loader(
        source, size=config.data.image_size, crop=config.data.crop, flip=config.data.flip
    )
    shown, _ = sources.center_crops(source, config.data.image_size, config.samples.count)

    def show(state: TrainState) -> dict[str, np.ndarray]:
        tokenizer = Tokenizer(averaged(state))
        reconstructions, _ = draw.reconstruct(tokenizer, shown, batch_size=len(shown))
        return {"reconstructions": pictures.pairs(shown, reconstructions)}

    stage = Stage(
        init=lambda: init(config, network),
        step=lambda state, frozen, batch: step(state, batch, config),
        load=load,
        examples=len(source),
        name_of_example=lambda index: source[index].id,
        frozen=None,
        pictures=show,
        tokens_per_example=(config.data.image_size // network.downsample) ** 2,
    )
    state = train(stage, config, workdir, mesh)
    Tokenizer(averaged(state)).save(workdir / "model")


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


def averaged(state: TrainState) -> VQTokenizer:
    """The weights to keep: the averaged ones where there are any."""
    return state.model["tokenizer"] if state.ema is None else state.ema


def init(config: ConfigDict, network: VQConfig) -> TrainState:
    """Both networks from `config.seed`."""
    keys = jax.random.split(jax.random.key(config.seed))
    model = {
        "tokenizer": VQTokenizer(network, keys[0]),
        "discriminator": PatchGAN(
            config.discriminator.channels, config.discriminator.layers, keys[1]
        ),
    }
    adam, _ = optimizer.adamw(**config.optimizer, steps=config.steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        model=model,
        optimizer={name: adam.init(part) for name, part in model.items()},
        ema=jax.tree.map(jnp.copy, model["tokenizer"]) if config.ema_decay else None,
    )


def step(
    state: TrainState, batch: Batch, config: ConfigDict
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the tokenizer, then of the discriminator on the same reconstructions."""
    images = batch["image"].astype(jnp.float32) / 127.5 - 1
    on = (state.step >= config.loss.adversarial_start).astype(jnp.float32)

    def gradients(images: jax.Array, index: jax.Array) -> Any:
        tokenizer, discriminator = state.model["tokenizer"], state.model["discriminator"]
        (loss, (reconstructions, metrics)), tokenizer_grads = jax.value_and_grad(
            tokenizer_loss, has_aux=True
        )(tokenizer, discriminator, images, on, config)
        discriminator_loss, discriminator_grads = jax.value_and_grad(
            lambda d: (
                on
                * config.loss.adversarial_weight
                * objectives.hinge_discriminator_loss(d(images)[0], d(reconstructions)[0])
            )
        )(discriminator)
        metrics |= {"loss": loss, "discriminator_loss": discriminator_loss}
        return {"tokenizer": tokenizer_grads, "discriminator": discriminator_grads}, metrics

    totals = optimizer.accumulate(gradients, images, config.accumulate_steps)
    grads, metrics = jax.tree.map(lambda x: x / config.accumulate_steps, totals)

    adam, rate = optimizer.adamw(**config.optimizer, steps=config.steps)
    model, moments = {}, {}
    for name, part in state.model.items():
        updates, moments[name] = adam.update(grads[name], state.optimizer[name], part)
        model[name] = optax.apply_updates(part, updates)
    ema = state.ema
    if ema is not None:
        ema = optimizer.average(ema, model["tokenizer"], config.ema_decay, state.step)
    metrics |= {
        "psnr": -10 * jnp.log10(metrics["mean_squared_error"] / 4),
        "learning_rate": rate(state.step),
        "gradient_norm": optax.tree.norm(grads["tokenizer"]),
        "parameter_norm": optax.tree.norm(model["tokenizer"]),
    }
    return TrainState(state.step + 1, model, moments, ema), metrics


def tokenizer_loss(
    tokenizer: VQTokenizer,
    discriminator: PatchGAN,
    images: jax.Array,
    on: jax.Array,
    config: ConfigDict,
) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
    """Weighted sum of reconstruction, feature, codebook, commitment and adversarial terms."""
    quantized = tokenizer.quantize(tokenizer.latents(images))
    reconstructions = tokenizer.pixels(tokenizer.hidden(quantized.z_BhwC))
    fake_logits, fake_features = discriminator(reconstructions)
    _, real_features = discriminator(images)
    terms = {
        "reconstruction": PIXEL_LOSSES[config.loss.reconstruction](images, reconstructions),
        "feature": objectives.feature_distance(real_features, fake_features),
        "codebook": quantized.codebook_loss,
        "commitment": quantized.commitment_loss,
        "adversarial": -on * jnp.mean(fake_logits),
    }
    loss = sum(config.loss[f"{name}_weight"] * value for name, value in terms.items())
    used = jnp.zeros(tokenizer.config.codebook_size).at[quantized.codes_Bhw].set(1.0)
    metrics = {f"{name}_loss": value for name, value in terms.items()}
    metrics["mean_squared_error"] = jnp.mean((images - reconstructions) ** 2)
    metrics["batch_codebook_usage"] = used.mean()
    return loss, (jax.lax.stop_gradient(reconstructions), metrics)
