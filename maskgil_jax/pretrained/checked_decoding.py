"""Decoding options that a user gives, checked against the network that they are for."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from maskgil_jax.decoding import autoregressive, masked_options, masked_plan
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def key(rng: jax.Array | int | None, seed: int | None) -> jax.Array:
    """The JAX key that one of these gives; InputError unless it is one of them, of 64 bits."""
    if (rng is None) == (seed is None):
        found = "none" if seed is None else "both"
        raise InputError(f"one of rng (a JAX key or a seed) and seed is expected, {found} given")
    given = seed if rng is None else rng
    if isinstance(given, jax.Array):
        return given
    try:
        return jax.random.key(int(given))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"seed = {given!r}, expected a whole number of 64 bits") from None


def with_steps_for(masked: int, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with at most a step for each masked token; the log says once what it changes.

    Args:
      masked: tokens, of the image with most of them.
      options: fields of decoding.masked_options.Options.
    """
    steps = options.get("steps", masked_options.Options.steps)
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps <= masked:
        return options
    _say_fewer_steps(int(steps), int(masked))
    return {**options, "steps": int(masked)}


@functools.cache
def _say_fewer_steps(steps: int, masked: int) -> None:
    log.warning("steps = %d, but %d tokens are masked: they take %d steps", steps, masked, masked)


def plan_of(
    config: Any, masked: int | np.ndarray, options: Mapping[str, Any], needs_null: bool = True
) -> tuple[masked_plan.Plan, masked_plan.Numbers]:
    """How a network of this config fills masked tokens; as masked_plan.plan.

    Args:
      config: of the network.
      masked: tokens; of each image, int [B], where images differ.
      options: fields of decoding.masked_options.Options.
      needs_null: whether guidance needs the network's own null condition.

    Raises:
      InputError: options that no decoding with this network can use.
    """
    try:
        plan, numbers = masked_plan.plan(masked, **_with_guidance(config, options, needs_null))
    except ValueError as error:
        raise InputError(str(error)) from None
    if plan.cache_ratio and not getattr(config, "vocabulary", 0):
        raise InputError(
            f"cache_ratio = {plan.cache_ratio}, but this model keeps no tokens from step to step: "
            "expected 0, or a masked model of text and image tokens"
        )
    if any(plan.guided):
        _check_guidance(config, float(numbers.guidance_S[-1]), needs_null)
    return plan, numbers


def options_of_causal(
    config: Any, options: Mapping[str, Any], needs_null: bool = True
) -> autoregressive.Options:
    """How a causal network of this config draws tokens.

    Args:
      config, needs_null: as in `plan_of`.
      options: fields of decoding.autoregressive.Options.

    Raises:
      InputError: options that no decoding with this network can use.
    """
    try:
        chosen = autoregressive.Options(**_with_guidance(config, options, needs_null))
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None
    if chosen.guidance != 1:
        _check_guidance(config, chosen.guidance, needs_null)
    return chosen


def _with_guidance(config: Any, options: Mapping[str, Any], needs_null: bool) -> dict[str, Any]:
    """The options, without guidance where none is asked for and there is no null condition."""
    if config.has_null_condition or not needs_null or "guidance" in options:
        return dict(options)
    return {**options, "guidance": 0.0 if options.get("guidance_form") == "weight" else 1.0}


def _check_guidance(config: Any, scale: float, needs_null: bool) -> None:
    """Raise InputError unless there is a condition, and another, to guide from one to the other."""
    if config.has_null_condition or (config.num_classes and not needs_null):
        return
    kind = "has no null condition" if config.num_classes else "is unconditional"
    raise InputError(f"guidance of scale {scale}, but this model {kind}: expected none (scale 1)")
