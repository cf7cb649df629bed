"""AdamW or Muon with clipping and warm-up, and gradients of micro-batches."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.muon import muon_of_matrices

Tree = TypeVar("Tree")

ALGORITHMS = ("adamw", "muon")


def make(
    *,
    algorithm: str,
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
    """The optimizer of `config.optimizer`, and its learning rate by step.

    Args:
      algorithm: "adamw", or "muon" for the matrices of layers and AdamW for the rest (muon.py).
      learning_rate: after the warm-up.
      beta1, beta2: decay of AdamW's moments.
      weight_decay: decoupled, times the learning rate.
      clip_norm: largest global norm of the gradients; 0 is no clipping.
      warmup_steps: of linear growth from 0.
      schedule: after it, "constant" or "cosine" (to 0 at the last step).
      milestones: steps at which a constant rate drops to a tenth.
      steps: of the whole training.
      decay_norms: decay scales and biases too, as MaskGIL's released code; LlamaGen's does not.

    Raises:
      InputError: another algorithm or schedule, or milestones that are no steps of a constant rate.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(
            f"config.optimizer.algorithm = {algorithm!r}, expected one of {', '.join(ALGORITHMS)}"
        )
    rate = _learning_rate(learning_rate, schedule, milestones, warmup_steps, steps)
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    mask = None if decay_norms else _is_decayed
    adam = optax.adamw(rate, b1=beta1, b2=beta2, eps=1e-8, weight_decay=weight_decay, mask=mask)
    if algorithm == "muon":
        return optax.chain(clip, muon_of_matrices(rate, weight_decay, mask, adam)), rate
    return optax.chain(clip, adam), rate


def _learning_rate(
    peak: float, schedule: str, milestones: Sequence[int], warmup_steps: int, steps: int
) -> optax.Schedule:
    """The learning rate by step: a linear warm-up to `peak`, then the schedule."""
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
        rate = optax.piecewise_constant_schedule(peak, drops)
    elif schedule == "cosine":
        rate = optax.cosine_decay_schedule(peak, max(steps - warmup_steps, 1))
    else:
        raise InputError(f"config.optimizer.schedule = {schedule!r}, expected constant or cosine")
    if not warmup_steps:
        return rate
    ramp = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([ramp, rate], [warmup_steps])


def _is_decayed(params: Any) -> Any:
    return jax.tree.map_with_path(
        lambda path, _: not sharding.name_of(path).endswith(("scale", "bias")), params
    )


def update(
    config: ConfigDict, step: jax.Array, model: Tree, moments: Any, gradients: Tree
) -> tuple[Tree, Any, jax.Array]:
    """One step of the optimizer.

    Args:
      config: of a stage, with `optimizer` and `steps`.
      step: int32 [], steps done before.
      model, moments: before the step.
      gradients: of the model.

    Returns:
      Model and moments after the step, and its learning rate.
    """
    rule, rate = make(**config.optimizer, steps=config.steps)
    updates, moments = rule.update(gradients, moments, model)
    return optax.apply_updates(model, updates), moments, rate(step)


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
        total, rest = fn(batch, jnp.zeros((), jnp.int32))
        return total, jax.tree.map(lambda x: x[None], rest)

    def cut(x: jax.Array) -> jax.Array:
        # Micro-batch i takes every steps-th example, so that each device keeps its own examples.
        return x.reshape(x.shape[0] // steps, steps, *x.shape[1:]).swapaxes(0, 1)

    micro_batches = jax.tree.map(cut, batch)
    first = jax.tree.map(lambda x: x[0], micro_batches)
    shapes, _ = jax.eval_shape(fn, first, jnp.zeros((), jnp.int32))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(total: Tree, arguments: tuple[Any, jax.Array]) -> tuple[Tree, Any]:
        summed, stacked = fn(*arguments)
        return jax.tree.map(jnp.add, total, summed), stacked

    return jax.lax.scan(add, zeros, (micro_batches, jnp.arange(steps)))
