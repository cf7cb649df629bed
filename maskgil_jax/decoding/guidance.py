"""Classifier-free guidance: towards a condition, away from a negative one."""

import jax
import jax.numpy as jnp

from maskgil_jax.models.token_models.conditions import Condition, TokenModel


def with_negative(
    network: TokenModel, condition: Condition, negative: Condition | None
) -> Condition:
    """Conditions [2 B]: B positive ones, then the negative ones; None: the null condition."""
    if negative is None:
        B = jax.tree.leaves(condition)[0].shape[0]
        negative = network.drop_condition(condition, jnp.ones(B, bool))
    return jax.tree.map(lambda c, u: jnp.concatenate([c, u]), condition, negative)


def guided(x: jax.Array, scale: jax.Array | float) -> jax.Array:
    """u + scale (c - u) of features x [2 B, ...] of both conditions: [B, ...].

    The head is affine and the weights of c and u add up to 1: guidance may come before it.
    """
    c, u = jnp.split(x.astype(jnp.float32), 2)
    return (u + scale * (c - u)).astype(x.dtype)
