"""All that training changes, and how a step ends: one that is not finite changes nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes.

    Attributes:
      step: int32 [], optimizer steps done, which is the data position too.
      model: the trained network, or a dict of networks.
      optimizer: optax state of the same structure.
      ema: averaged weights, or None.
      memory: what else the next step needs to know of those before, or None.
      skipped: int32 [2], steps that were skipped: in all, and the last ones in a row.
    """

    step: jax.Array
    model: Any
    optimizer: Any
    ema: Any
    memory: Any = None
    skipped: jax.Array = dataclasses.field(default_factory=lambda: jnp.zeros(2, jnp.int32))


def conclude(
    before: TrainState,
    after: TrainState,
    metrics: Metrics,
    *,
    ema_decay: float,
    network: Callable[[Any], Any] = lambda model: model,
) -> tuple[TrainState, Metrics]:
    """End a step: average its weights, or skip it if its loss or gradients are not finite.

    A skipped step changes nothing and is counted.

    Args:
      before: the state that the step took.
      after: the state that the step computed, whose `ema` does not know the new weights yet.
      metrics: of the step, `loss` and `gradient_norm` among them.
      ema_decay: of the averaged weights.
      network: (model) -> the part of it that `ema` is the average of.

    Returns:
      The next state, and the metrics with `skipped_steps` and `skipped_in_a_row`.
    """
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    new = _where(finite, after, before)
    if new.ema is not None:
        # Of the selected weights, so that the compiler makes old, new and average in one pass.
        ema = average(new.ema, network(new.model), ema_decay, before.step)
        new = dataclasses.replace(new, ema=_where(finite, ema, new.ema))
    in_all, in_a_row = before.skipped
    skipped = jnp.stack([in_all + ~finite, jnp.where(finite, 0, in_a_row + 1)])
    metrics = metrics | {"skipped_steps": skipped[0], "skipped_in_a_row": skipped[1]}
    return dataclasses.replace(new, step=after.step, skipped=skipped), metrics


def average(ema: Tree, params: Tree, decay: float, step: jax.Array) -> Tree:
    """Exponential moving average, whose decay rises to `decay` as (1 + step) / (10 + step)."""
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)


def _where(condition: jax.Array, tree: Tree, other: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), tree, other)
