"""Conditions that a user gives, checked and as a network takes them.

Letters: B images, T tokens of a condition, C width of features.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.runtime.errors import InputError


def classes(given: npt.ArrayLike, config: Any) -> jax.Array:
    """Class ids, int32 [B].

    Args:
      given: integers [B]; a jax.Array that is spread over devices stays so, and is sampled so.
      config: of the network.

    Raises:
      InputError: another shape or dtype, or ids that the network has no class for.
    """
    condition = np.asarray(given)
    if condition.ndim != 1 or not np.issubdtype(condition.dtype, np.integer):
        raise InputError(
            f"condition is {condition.dtype} {condition.shape}, expected integer class ids [B]"
        )
    last = config.num_classes - (bool(config.num_classes) and not config.has_null_condition)
    if not config.num_classes and condition.any():
        raise InputError(
            f"class ids up to {condition.max()}, but this model is unconditional: expected 0 for "
            "each image, as null_condition gives it"
        )
    if len(condition) and not 0 <= condition.min() <= condition.max() <= last:
        raise InputError(
            f"class ids from {condition.min()} to {condition.max()}, expected 0 to "
            f"{config.num_classes - 1} (or {config.num_classes}: no condition)"
        )
    return jnp.asarray(given if isinstance(given, jax.Array) else condition, jnp.int32)


def features(given: Any, config: Any) -> Features:
    """Features and their mask.

    Args:
      given: floats [B, T, C], or a pair of them and a mask, bool [B, T], false at padding.
      config: of the network.

    Raises:
      InputError: another shape or dtype than the network takes.
    """
    features, mask = given if isinstance(given, tuple) else (given, None)
    features = jnp.asarray(features)
    mask = jnp.ones(features.shape[:2], bool) if mask is None else jnp.asarray(mask)
    expected = (config.condition_tokens, config.feature_dim)
    if features.shape[1:] != expected or not jnp.issubdtype(features.dtype, jnp.floating):
        raise InputError(
            f"features are {features.dtype} {features.shape}, expected floats [B, "
            f"{expected[0]}, {expected[1]}]"
        )
    if mask.shape != features.shape[:2]:
        raise InputError(f"mask of features is {mask.shape}, expected {features.shape[:2]} (bool)")
    return Features(features, mask.astype(bool))
