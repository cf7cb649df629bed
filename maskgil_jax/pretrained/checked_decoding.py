"""Decoding options that a user gives, checked against the network that they are for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskgil_jax.decoding import autoregressive, masked_plan
from maskgil_jax.runtime.errors import InputError


def plan_of(
    config: Any, masked: int | np.ndarray, options: Mapping[str, Any], needs_null: bool = True
) -> tuple[masked_plan.Plan, np.ndarray]:
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
        plan, counts_SB = masked_plan.plan(masked, **_with_guidance(config, options, needs_null))
    except ValueError as error:
        raise InputError(str(error)) from None
    if plan.cache_ratio and not getattr(config, "vocabulary", 0):
        raise InputError(
            f"cache_ratio = {plan.cache_ratio}, but this model keeps no tokens from step to step: "
            "expected 0, or a masked model of text and image tokens"
        )
    if plan.guided:
        _check_guidance(config, plan.guidance[-1], needs_null)
    return plan, counts_SB


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
