"""The codebook in training: which codes were used lately, and the restart of dead ones."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from maskgil_jax.runtime import sharding

Tree = TypeVar("Tree")


def push(history_W: jax.Array, codes: jax.Array) -> jax.Array:
    """The window after the codes of a batch: int32 [W], the newest at the end."""
    W = len(history_W)
    return jnp.concatenate([history_W, codes.reshape(-1)[-W:]])[-W:]


def used(history_W: jax.Array, codebook_size: int) -> jax.Array:
    """Bool [V]: the codes that occur in the window.

    A fresh window is full of zeros, so code 0 counts as used until it has filled up (as in
    LlamaGen's vq_model.py).
    """
    return jnp.zeros(codebook_size, bool).at[history_W].set(True)


def restart_rows(latents: jax.Array, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """Random latents of the batch, for codes to restart at: [*shape, C].

    Source: Jukebox (Dhariwal et al. 2020), section 3.3.
    """
    latents_NC = latents.reshape(-1, latents.shape[-1])
    return latents_NC[jax.random.randint(key, shape, 0, len(latents_NC))]


def replace_rows(tree: Tree, dead_V: jax.Array, rows: Any) -> Tree:
    """A tree (model, averages, moments) whose codebooks have `rows` where `dead_V`."""

    def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if sharding.name_of(path).endswith("codebook"):
            return jnp.where(dead_V[:, None], rows, leaf)
        return leaf

    return jax.tree.map_with_path(one, tree)
