"""Tiny LLaMA networks whose every weight is random, and generators of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig
from maskgil_jax.pretrained import generators

TINY = LlamaConfig(
    layers=2, dim=32, heads=2, codebook_size=20, num_classes=5, grid=(3, 4), ffn_multiple=16
)
LABELS = np.array([0, 4, 4])


def built(**changes):
    """A network whose every weight is random, the head too; drawn by numpy, which compiles none."""
    config, rng = dataclasses.replace(TINY, **changes), np.random.default_rng(1)

    def drawn(path, like):
        noise = 0.3 * rng.standard_normal(like.shape)
        of_norm = jax.tree_util.keystr(path).endswith(".scale.value")
        return jnp.asarray(1.0 + noise if of_norm else noise, like.dtype)

    shapes = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    return jax.tree.map_with_path(drawn, shapes)


def inputs(seed=0, batch=2, grid=(3, 4)):
    """Codes, some of them masked, and labels."""
    rng = np.random.default_rng(seed)
    return jnp.array(rng.integers(0, 21, (batch, *grid))), jnp.array(rng.integers(0, 6, batch))


def masked(**changes):
    return generators.make_generator(built(**changes))


def causal(**changes):
    return masked(**PRESETS["llamagen"] | changes)
