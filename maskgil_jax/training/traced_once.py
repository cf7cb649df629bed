"""What a stage compiles, traced and compiled once for all runs of a process that agree on it."""

import functools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

# Sections and fields of a config that neither a first state nor a step depends on.
_OUTSIDE = {
    *("stage", "data", "tokenizer", "encoder", "start_from", "samples", "evaluation", "batch_size"),
    *("log_every", "checkpoint_every", "pictures_every", "keep_checkpoints", "keep_every"),
    *("keep_every_epochs", "keep_steps", "tracker", "skips_allowed", "trace", "compilation_cache"),
}


@functools.lru_cache(maxsize=6)  # of two stages; what falls out is forgotten by JAX too
def partial(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[..., Any]:
    """functools.partial, but the same object for equal arguments, by which JAX knows a function."""
    return functools.partial(function, *arguments, **named)


def settings(config: ConfigDict) -> FrozenConfigDict:
    """The part of a stage's config that its first state and its step may read.

    Runs that differ in the rest, as in where their data is, have equal settings.
    """
    kept = {name: value for name, value in config.items() if name not in _OUTSIDE}
    if config.optimizer.schedule == "constant":
        kept["steps"] = 0  # a constant rate is that of a run of any length
    return FrozenConfigDict(kept)
