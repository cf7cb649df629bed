"""The likelihood of codes under a generator, of images that it was not trained on.

Letters: N images, h w grid, L = h * w tokens.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.data.shards.shard_reader import CodeShards, readable
from maskgil_jax.models.token_models.conditions import Condition, TokenModel
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.batches import fixed_batches, spread
from maskgil_jax.training import generator_loss, objectives

CHUNK = 64  # positions whose logits exist at a time


def spread_records(shards: CodeShards, count: int) -> list[CodeRecord]:
    """At most `count` examples, spread evenly, since shards may hold one class after another.

    Those that cannot be read are named and left out; InputError where none can.
    """
    return [record for _, record in readable(shards, spread(len(shards), count).tolist())]


def validation(
    generator: Generator, records: Sequence[CodeRecord], batch_size: int, seed: int
) -> tuple[float, float]:
    """Mean -log p in nats and share of tokens predicted right, in eval mode without smoothing.

    Of masked tokens given the visible ones, under arccos masks that `seed` draws; of a causal
    model, of all tokens, each given those before it.
    """
    codes_Nhw = np.stack([record.codes[0] for record in records])
    conditions: Condition = jnp.array([record.label for record in records], jnp.int32)
    if generator.is_unconditional:
        conditions = generator.null_condition(len(records))
    masked_Nhw = masks(generator, codes_Nhw.shape, jax.random.key(seed))
    loss_N, correct_N = sums(generator, codes_Nhw, masked_Nhw, conditions, batch_size)
    tokens = masked_Nhw.sum()
    return float(loss_N.sum() / tokens), float(correct_N.sum() / tokens)


def mean_losses(
    generator: Generator,
    codes_Nhw: np.ndarray,
    conditions: Condition,
    *,
    rounds: int,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """-log p of the masked tokens of each image given the visible, in nats a token: float64 [N].

    Masks are drawn `rounds` times. Of a causal model, of all tokens, each given those before it,
    and `rounds` does not count.
    """
    loss_N, tokens_N = np.zeros(len(codes_Nhw)), np.zeros(len(codes_Nhw))
    for i in range(rounds if generator.kind == "masked" else 1):
        key = jax.random.fold_in(jax.random.key(seed), i)
        masked_Nhw = masks(generator, codes_Nhw.shape, key)
        loss_N += sums(generator, codes_Nhw, masked_Nhw, conditions, batch_size)[0]
        tokens_N += masked_Nhw.sum(axis=(1, 2))
    return loss_N / np.maximum(tokens_N, 1)


def masks(generator: Generator, shape: tuple[int, ...], key: jax.Array) -> np.ndarray:
    """The tokens that a generator has to predict, bool of `shape` [N, h, w]."""
    if generator.kind == "causal":
        return np.ones(shape, bool)
    N, height, width = shape
    masked_NL = objectives.random_masks(key, (N, height * width), "arccos")
    return np.asarray(masked_NL).reshape(shape)


def sums(
    generator: Generator,
    codes_Nhw: np.ndarray,
    masked_Nhw: np.ndarray,
    conditions: Condition,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Of each image, over its masked tokens: -log p in nats, and how many are predicted right.

    Returns:
      Both float64 [N].
    """
    loss_N, correct_N = np.zeros(len(codes_Nhw)), np.zeros(len(codes_Nhw))
    for start, count, rows in fixed_batches(np.arange(len(codes_Nhw)), batch_size):
        examples = {
            "codes": jnp.asarray(codes_Nhw[rows], jnp.int32),
            "masked": jnp.asarray(masked_Nhw[rows]),
            "condition": jax.tree.map(lambda x, rows=rows: jnp.asarray(x[rows]), conditions),
        }
        loss, correct = _sums(generator.network, examples)
        loss_N[start : start + count] = np.asarray(loss)[:count]
        correct_N[start : start + count] = np.asarray(correct)[:count]
    return loss_N, correct_N


@jax.jit
def _sums(network: TokenModel, examples: dict[str, Condition]) -> tuple[jax.Array, jax.Array]:
    def of_one(example: dict[str, Condition]) -> tuple[jax.Array, jax.Array]:
        one = jax.tree.map(lambda x: x[None], example)
        one["weight"] = one["masked"].astype(jnp.float32)
        loss, counts = generator_loss.weighted_loss(
            network, one, None, label_smoothing=0.0, chunk=CHUNK
        )
        return loss, counts["correct"]

    return jax.vmap(of_one)(examples)
