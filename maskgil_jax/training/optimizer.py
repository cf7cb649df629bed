"""AdamW with clipping and warm-up, averaged weights, micro-batches."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError

Tree = TypeVar("Tree")


def adamw(
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    clip_norm: float,
    warmup_steps: int,
    schedule: str,
    milestones: Sequence[int],
    steps: int,
    decay_norms: bool = True,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW, and its learning rate by step.

    Args:
      learning_rate: after the warm-up.
      beta1, beta2: decay of the moments.
      weight_decay: decoupled, times the learning rate.
      clip_norm: largest global norm of the gradients; 0 is no clipping.
      warmup_steps: of linear growth from 0.
      schedule: after it, "constant" or "cosine" (to 0 at the last step).
      milestones: steps at which a constant rate drops to a tenth.
      steps: of the whole training.
      decay_norms: decay scales and biases too, as MaskGIL's released code; LlamaGen's does not.

    Raises:
      InputError: another schedule, or milestones that are no steps of a constant rate.
    """
    if not all(type(step) is int and step > 0 for step in milestones):
        raise InputError(
            f"config.optimizer.milestones = {tuple(milestones)!r}, expected steps, as (1000, 2000)"
        )
    if milestones and schedule != "constant":
        raise InputError(
            f"config.optimizer.milestones = {tuple(milestones)} need schedule = constant, not "
            f"{schedule!r}"
        )
    if schedule == "constant":
        # Steps count from the end of the warm-up there.
        drops = {step - warmup_steps: 0.1 for step in milestones}
        rate = optax.piecewise_constant_schedule(learning_rate, drops)
    elif schedule == "cosine":
        rate = optax.cosine_decay_schedule(learning_rate, max(steps - warmup_steps, 1))
    else:
        raise InputError(f"config.optimizer.schedule = {schedule!r}, expected constant or cosine")
    if warmup_steps:
        ramp = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        rate = optax.join_schedules([ramp, rate], [warmup_steps])
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    adam = optax.adamw(
        rate,
        b1=beta1,
        b2=beta2,
        eps=1e-8,
        weight_decay=weight_decay,
        mask=None if decay_norms else _is_decayed,
    )
    return optax.chain(clip, adam), rate


def _is_decayed(params: Any) -> Any:
    return jax.tree.map_with_path(
        lambda path, _: not sharding.name_of(path).endswith(("scale", "bias")), params
    )


def average(ema: Tree, params: Tree, decay: float, step: jax.Array) -> Tree:
    """Exponential moving average, whose decay rises to `decay` as (1 + step) / (10 + step)."""
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)


def accumulate(
    fn: Callable[[Any, jax.Array], tuple[Tree, Any]], batch: Any, steps: int
) -> tuple[Tree, Any]:
    """`fn` over the batch cut into `steps` micro-batches, one after another.

    Args:
      fn: (micro_batch, index) -> (to be summed, to be stacked).
      batch: tree of arrays with the same first axis.
      steps: number of micro-batches.

    Returns:
      The sums, and what is stacked with a leading axis of `steps`.
    """
    if steps == 1:
        total, part = fn(batch, jnp.zeros((), jnp.int32))
        return total, jax.tree.map(lambda x: x[None], part)

    def cut(x: jax.Array) -> jax.Array:
        # Part i takes every steps-th example, so that each device keeps its own examples.
        return x.reshape(x.shape[0] // steps, steps, *x.shape[1:]).swapaxes(0, 1)

    parts = jax.tree.map(cut, batch)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes, _ = jax.eval_shape(fn, first, jnp.zeros((), jnp.int32))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(total: Tree, part: tuple[Any, jax.Array]) -> tuple[Tree, Any]:
        summed, stacked = fn(*part)
        return jax.tree.map(jnp.add, total, summed), stacked

    return jax.lax.scan(add, zeros, (parts, jnp.arange(steps)))
