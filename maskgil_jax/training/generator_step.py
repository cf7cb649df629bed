"""The training step of a generator: codes, masks, loss, update.

Letters: B batch, h w grid.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from maskgil_jax.conditioning import base
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.models.token_models import flops
from maskgil_jax.models.token_models.conditions import Text
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.pretrained import networks
from maskgil_jax.training import objectives, optimizer
from maskgil_jax.training.distillation import Teacher
from maskgil_jax.training.generator_loss import weighted_loss
from maskgil_jax.training.sequence_loss import sequence_loss, sequences_of
from maskgil_jax.training.train_state import Batch, Metrics, TrainState, conclude


class Frozen(NamedTuple):
    """Networks that the training step reads and never changes.

    Attributes:
      tokenizer: turns images into codes; None for code shards.
      encoder: turns prompts into features; None where there are none.
      teacher: whose guided predictions are learned; None: the codes are.
    """

    tokenizer: VQTokenizer | None = None
    encoder: Any = None
    teacher: Teacher | None = None


def init(config: ConfigDict, network: Any, start_from: Any) -> TrainState:
    """The network from `config.seed`, or `start_from` if there is one."""
    if start_from is None:
        model = networks.init_network(network, jax.random.key(config.seed))
    else:
        # The state is donated to the step, and who gave the weights may need them still.
        model = jax.tree.map(jnp.copy, start_from)
    rule, _ = optimizer.make(**config.optimizer, steps=config.steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        model=model,
        optimizer=rule.init(model),
        ema=jax.tree.map(jnp.copy, model) if config.ema_decay else None,
    )


def model_flops(config: ConfigDict, network: Any) -> Callable[[Size], int] | None:
    """A function of a grid that gives the FLOPs of the generator in a step, what MFU is of.

    What is computed twice to save memory is not in it, nor what a tokenizer, an encoder or a
    teacher does in the step. None: not of a network of this kind, whose step is counted as it is
    traced.
    """
    if not isinstance(network, LlamaConfig):
        return None
    tokens = config.model.condition_tokens

    def count(grid: Size) -> int:
        of_grid = dataclasses.replace(network, grid=grid)
        return flops.training_flops(of_grid, config.batch_size, tokens)

    return count


def step(
    state: TrainState, frozen: Frozen, batch: Batch, config: ConfigDict
) -> tuple[TrainState, Metrics]:
    """One update on the codes of a batch, or of its images encoded by the frozen tokenizer."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    mask_key, drop_key, dropout_key = jax.random.split(key, 3)
    codes_Bhw = codes_of(batch, frozen.tokenizer)
    condition = base.condition_of(batch, frozen.encoder)
    settings = config.loss
    loss_fn: Callable[..., Any]
    if isinstance(condition, Text):
        examples = sequences_of(state.model, codes_Bhw, condition, drop_key, settings)
        loss_fn = functools.partial(sequence_loss, z_loss_weight=settings.z_loss_weight)
    else:
        examples = examples_of(state.model, codes_Bhw, condition, mask_key, drop_key, settings)
        smoothing, teacher = settings.label_smoothing, frozen.teacher
        loss_fn = functools.partial(weighted_loss, label_smoothing=smoothing, teacher=teacher)

    def gradients(micro_batch: Batch, index: jax.Array) -> Any:
        loss = functools.partial(loss_fn, chunk=settings.chunk)
        gradient = jax.value_and_grad(loss, has_aux=True)
        return gradient(state.model, micro_batch, jax.random.fold_in(dropout_key, index)), None

    ((loss, sums), grads), _ = optimizer.accumulate(gradients, examples, config.accumulate_steps)
    model, moments, learning_rate = optimizer.update(
        config, state.step, state.model, state.optimizer, grads
    )
    masked = examples["masked"]
    prefix = {"prefix_tokens": examples["prefix"].mean()} if "prefix" in examples else {}
    metrics = {
        "loss": loss,
        "accuracy": sums["correct"] / jnp.maximum(masked.sum(), 1),
        "masked_share": masked.mean(),
        **prefix,
        "output_norm": sums["output_norm"] / masked.size,
        "gradient_norm": optax.tree.norm(grads),
        "parameter_norm": optax.tree.norm(state.model),  # of what the loss is of
        "learning_rate": learning_rate,
    }
    after = TrainState(state.step + 1, model, moments, state.ema)
    return conclude(state, after, metrics, ema_decay=config.ema_decay)


def codes_of(batch: Batch, tokenizer: VQTokenizer | None) -> jax.Array:
    """The codes of a batch of codes, or of images uint8 [B, H, W, 3]: int32 [B, h, w]."""
    if tokenizer is None:
        return batch["codes"]
    return tokenizer.encode(batch["image"].astype(jnp.float32) / 127.5 - 1)


def examples_of(
    model: Any,
    codes_Bhw: jax.Array,
    condition: Any,
    mask_key: jax.Array,
    drop_key: jax.Array,
    settings: ConfigDict,
) -> dict[str, Any]:
    """What `weighted_loss` is of: codes, which of them are predicted, weights, conditions.

    Of a model with a causal prefix: of each image its length too. All tokens that are predicted,
    of both tasks, weigh the same.

    Args:
      model: of a causal one every token is predicted.
      codes_Bhw: int32.
      condition: of each image; of some, drawn at random, the null condition takes its place.
      mask_key, drop_key: of the masks, and of the conditions that are dropped.
      settings: config.loss.
    """
    B = codes_Bhw.shape[0]
    shape = (B, codes_Bhw[0].size)
    if model.config.causal:
        masked_Bhw = jnp.ones(codes_Bhw.shape, bool)
    else:
        masks_BL = objectives.random_masks(mask_key, shape, settings.mask_schedule)
        masked_Bhw = masks_BL.reshape(codes_Bhw.shape)
    prefix = {}
    if getattr(model.config, "causal_prefix", False):
        splits_key = jax.random.fold_in(mask_key, 2)  # 0 and 1 are those that masks are drawn by
        share = settings.autoregressive_share
        prefix_B = objectives.random_splits(splits_key, shape, share, settings.split)
        masked_Bhw |= model.in_prefix(codes_Bhw.shape, prefix_B)
        prefix = {"prefix": prefix_B}
    drop_B = jax.random.bernoulli(drop_key, settings.condition_dropout, (B,))
    weight_Bhw = jnp.where(masked_Bhw, 1.0, settings.unmasked_weight)
    return {
        "codes": codes_Bhw,
        "masked": masked_Bhw,
        "weight": weight_Bhw / jnp.maximum(weight_Bhw.sum(), 1.0),
        "condition": model.drop_condition(condition, drop_B),
        **prefix,
    }
