"""Whether a generator heeds its condition: images under their own against those of others.

Letters: N images, B of them, h w grid, L = h * w.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from maskgil_jax.generation.samplers import fixed_batches
from maskgil_jax.models.token_models.conditions import Condition
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_loss, objectives

CHUNK = 64  # positions whose logits exist at a time


def condition_match(
    generator: Generator,
    codes_Nhw: np.ndarray,
    conditions: Condition,
    *,
    masks: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """How often codes are likelier under their own condition than under another image's.

    Args:
      generator: the model.
      codes_Nhw: int [N, h, w], two or more, that it was not trained on.
      conditions: theirs, in the same order.
      masks: drawn for each image; the same tokens are masked under both conditions.
      batch_size: images at once.
      seed: of the pairs and masks.

    Returns:
      {"preferred": share of the images, "interval": its 95 % interval (Wilson), "gain": mean of
      log p under the own condition minus under the other's, nats a token, "images": their number
      without those whose two conditions are the same}.

    Raises:
      InputError: no two conditions differ.
    """
    N = len(codes_Nhw)
    # A shuffle in which none keeps its own: along a random cycle, each gets the next one's.
    cycle = np.random.default_rng(seed).permutation(N)
    others = np.empty(N, int)
    others[cycle] = np.roll(cycle, -1)
    losses = [
        mean_losses(
            generator,
            codes_Nhw,
            jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], conditions),
            masks=masks,
            batch_size=batch_size,
            seed=seed,
        )
        for rows in (np.arange(N), others)
    ]
    gain_N = losses[1] - losses[0]
    preferred, decided = int((gain_N > 0).sum()), int((gain_N != 0).sum())
    if not decided:
        raise InputError(f"the conditions of {N} images are all the same to the model")
    interval = stats.binomtest(preferred, decided).proportion_ci(method="wilson")
    return {
        "preferred": preferred / decided,
        "interval": [float(interval.low), float(interval.high)],
        "gain": float(gain_N.mean()),
        "images": decided,
    }


def mean_losses(
    generator: Generator,
    codes_Nhw: np.ndarray,
    conditions: Condition,
    *,
    masks: int,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """-log p of the masked tokens of each image given the visible, in nats a token: float64 [N].

    Of a causal model, of all tokens, each given those before it, and `masks` does not count.
    """
    N, L = len(codes_Nhw), codes_Nhw[0].size
    rounds, masked = 1, np.ones((N, L), bool)
    if generator.kind == "masked":
        rounds = masks
    total_N, tokens_N = np.zeros(N), np.zeros(N)
    for i in range(rounds):
        if generator.kind == "masked":
            key = jax.random.fold_in(jax.random.key(seed), i)
            masked = np.asarray(objectives.random_masks(key, (N, L), "arccos"))
        for start, count, rows in fixed_batches(np.arange(N), batch_size):
            examples = {
                "codes": jnp.asarray(codes_Nhw[rows], jnp.int32),
                "masked": jnp.asarray(masked[rows].reshape(-1, *codes_Nhw.shape[1:])),
                "condition": jax.tree.map(lambda x, rows=rows: jnp.asarray(x[rows]), conditions),
            }
            total_N[start : start + count] += np.asarray(_sums(generator.network, examples))[:count]
        tokens_N += masked.sum(axis=1)
    return total_N / np.maximum(tokens_N, 1)


@functools.partial(jax.jit)
def _sums(network: Any, examples: dict[str, Any]) -> jax.Array:
    def of_one(example: dict[str, Any]) -> jax.Array:
        one = jax.tree.map(lambda x: x[None], example)
        one["weight"] = one["masked"].astype(jnp.float32)
        loss, _ = generator_loss.weighted_loss(network, one, None, label_smoothing=0.0, chunk=CHUNK)
        return loss

    return jax.vmap(of_one)(examples)
