"""What training steps take and how much arithmetic they are, of shapes alone."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from maskgil_jax.generation import samplers
from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.pretrained import networks, presets
from maskgil_jax.runtime.traced_flops import traced_flops
from maskgil_jax.training import (
    distillation,
    generator_step,
    one_step,
    tokenizer_stage,
    tokenizer_step,
)


@dataclasses.dataclass(frozen=True)
class StepShapes:
    """What a training step takes, as shapes: that of a tokenizer or of a generator.

    Attributes:
      step: of the stage: state, frozen weights, batch and config to state and metrics.
      init: makes the model, the optimiser's state and so on.
      frozen: shapes of the weights that a step uses and does not train.
      batch: shapes of a batch by name, over all devices.
      tokens_per_example: of an image.
      model_flops: of one step; None where they are counted in its trace.
    """

    step: Callable[..., Any]
    init: Callable[[], Any]
    frozen: Any
    batch: dict[str, jax.ShapeDtypeStruct]
    tokens_per_example: int
    model_flops: int | None

    def flops(self, config: ConfigDict) -> int:
        """Model FLOPs of a step, from the network's shape or as it is traced."""
        if self.model_flops is not None:
            return self.model_flops
        function = functools.partial(self.step, config=config)
        state = jax.eval_shape(self.init)
        return traced_flops(jax.jit(function).trace(state, self.frozen, self.batch).jaxpr.jaxpr)


def of_generator(config: ConfigDict, network: Any) -> StepShapes:
    """Training of this network on codes, with features as code shards hold them."""
    B, (height, width) = config.batch_size, network.grid
    batch = {"codes": jax.ShapeDtypeStruct((B, height, width), jnp.int32)}
    tokens = config.model.condition_tokens
    if presets.reads_prompts(config.model):
        batch["ids"] = jax.ShapeDtypeStruct((B, tokens), jnp.int32)
        batch["mask"] = jax.ShapeDtypeStruct((B, tokens), jnp.bool_)
    elif config.model.feature_dim:
        batch["features"] = jax.ShapeDtypeStruct((B, tokens, config.model.feature_dim), jnp.float32)
        batch["mask"] = jax.ShapeDtypeStruct((B, tokens), jnp.bool_)
    else:
        batch["label"] = jax.ShapeDtypeStruct((B,), jnp.int32)
    of_step = one_step if one_step.is_wanted(config) else generator_step
    count = of_step.model_flops(config, network)
    return StepShapes(
        step=of_step.step,
        init=lambda: of_step.init(config, network, None),
        frozen=generator_step.Frozen(teacher=_teacher(config, network)),
        batch=batch,
        tokens_per_example=height * width,
        model_flops=None if count is None else count(network.grid),
    )


def _teacher(config: ConfigDict, network: Any) -> distillation.Teacher | None:
    """The teacher of a config, of shapes; None where it has none.

    Raises:
      InputError: fields that no student can be trained with.
    """
    if one_step.is_wanted(config):
        one_step.check(config)
    if not distillation.is_wanted(config):
        return None
    options = samplers.checked_options(config.samples, network)
    distillation.check(config, network, options)
    like = jax.eval_shape(lambda: networks.init_network(network, jax.random.key(0)))
    return distillation.teacher_of(config, like, options)


def of_tokenizer(config: ConfigDict) -> StepShapes:
    """Training of a tokenizer, with its discriminator and LPIPS."""
    B, side = config.batch_size, config.data.image_size
    tokenizer = tokenizer_stage.tokenizer_config(config)
    discriminator = tokenizer_stage.discriminator_config(config)
    frozen = None
    if config.loss.perceptual_weight:
        lpips = LPIPSConfig(dtype=config.model.dtype)
        frozen = jax.eval_shape(lambda: LPIPS(lpips, jax.random.key(0)))
    return StepShapes(
        step=tokenizer_step.step,
        init=lambda: tokenizer_step.init(config, tokenizer, discriminator, {}),
        frozen=frozen,
        batch={"image": jax.ShapeDtypeStruct((B, side, side, 3), jnp.uint8)},
        tokens_per_example=(side // 2 ** (len(config.model.channel_multipliers) - 1)) ** 2,
        model_flops=None,
    )
