"""The training step of a tokenizer and its discriminator: both are updated at once."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from maskgil_jax.models.perceptual.discriminator import DiscriminatorConfig, make
from maskgil_jax.models.perceptual.lpips import LPIPS
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.training import codebook, optimizer, tokenizer_objective
from maskgil_jax.training.train_state import Batch, Metrics, TrainState, conclude


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
    rule, _ = optimizer.make(**config.optimizer, steps=config.steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        model=model,
        optimizer={name: rule.init(network) for name, network in model.items()},
        ema=jax.tree.map(jnp.copy, model["tokenizer"]) if config.ema_decay else None,
        memory={
            "codes": jnp.zeros(config.codebook.usage_window, jnp.int32),
            "lecam": {"real": jnp.zeros(()), "fake": jnp.zeros(())},
        },
    )


def step(
    state: TrainState, lpips: LPIPS | None, batch: Batch, config: ConfigDict
) -> tuple[TrainState, Metrics]:
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
    result = jax.tree.map(lambda x: x / config.accumulate_steps, totals)
    model, moments, learning_rate = _updated(state, result, config)
    history = codebook.push(state.memory["codes"], codes)
    used_V = codebook.used(history, config.model.codebook_size)
    metrics = result.metrics | {
        "psnr": -10 * jnp.log10(result.metrics["mean_squared_error"] / 4),
        "codebook_usage": used_V.mean(),
        "learning_rate": learning_rate,
        "gradient_norm": optax.tree.norm(result.gradients["tokenizer"]),
        "parameter_norm": optax.tree.norm(state.model["tokenizer"]),  # of what the loss is of
    }
    memory = {"codes": history, "lecam": result.lecam}
    after = TrainState(state.step + 1, model, moments, state.ema, memory)
    if every := config.codebook.restart_every:
        full = after.step * codes.size >= len(history)
        dead_V = ~used_V & full & (after.step % every == 0)
        after = _with_restarted_codes(after, dead_V, latents, restart_key)
        metrics["restarted_codes"] = dead_V.sum().astype(jnp.float32)
    return conclude(
        state, after, metrics, ema_decay=config.ema_decay, network=lambda model: model["tokenizer"]
    )


def _updated(
    state: TrainState, result: tokenizer_objective.Result, config: ConfigDict
) -> tuple[dict[str, Any], dict[str, Any], jax.Array]:
    """Networks and moments after the update, and the learning rate."""
    model, moments = dict(state.model), dict(state.optimizer)
    for name, its_gradients in result.gradients.items():
        model[name], moments[name], learning_rate = optimizer.update(
            config, state.step, model[name], moments[name], its_gradients
        )
    model["discriminator"] = functools.reduce(
        lambda discriminator, of_batch: discriminator.with_moments(of_batch),
        result.moments,
        model["discriminator"],
    )
    return model, moments, learning_rate


def _with_restarted_codes(
    state: TrainState, dead_V: jax.Array, latents: jax.Array, key: jax.Array
) -> TrainState:
    """The state whose dead codes restart at latents of the batch, without moments."""
    rows = codebook.restart_rows(latents, dead_V.shape, key)
    model, ema = codebook.replace_rows((state.model, state.ema), dead_V, rows)
    moments = codebook.replace_rows(state.optimizer, dead_V, 0.0)
    return dataclasses.replace(state, model=model, ema=ema, optimizer=moments)
