"""Which steps of a run have checkpoints that are kept for good."""

import math

from ml_collections import ConfigDict

from maskgil_jax.runtime.errors import InputError


def kept_steps(config: ConfigDict, examples: int) -> frozenset[int]:
    """The steps whose checkpoints stay, however many newer ones there are.

    Args:
      config: of a stage: keep_every, keep_every_epochs, keep_steps and what they count in.
      examples: of an epoch.

    Raises:
      InputError: `keep_steps` names what is no step of the run.
    """
    check(config)
    kept = {step for step in config.keep_steps if step <= config.steps}
    if config.keep_every:
        kept |= {*range(config.keep_every, config.steps + 1, config.keep_every)}
    if epochs := config.keep_every_epochs:
        apart = epochs * examples / config.batch_size  # steps
        kept |= {
            step
            for step in range(1, config.steps + 1)
            if step_of(math.ceil(step / apart - 1e-9) * epochs, examples, config.batch_size) == step
        }
    return frozenset(kept)


def check(config: ConfigDict) -> None:
    """Raise InputError where `keep_steps` names what is no step."""
    if any(type(step) is not int or step < 1 for step in config.keep_steps):
        raise InputError(
            f"config.keep_steps = {config.keep_steps!r}, expected steps, as (100, 200)"
        )


def step_of(epochs: float, examples: int, batch_size: int) -> int:
    """The step after which so many epochs are whole, or the last that is in them.

    Source: LlamaGen and MaskGIL count int(images / batch size) steps in an epoch; configs/ count
    epochs * images // batch size in a run, as this does.
    """
    return int(epochs * examples // batch_size)
