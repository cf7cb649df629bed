"""Keys, values and outputs of a masked model's tokens, kept from one step of decoding to the next.

ML-Cache of Lumina-DiMOO, of any masked Llama: most steps run only the tokens that the model was
least sure of, and take those of the others as they were. That is an approximation: what is kept
does not see what has changed since, a code that was just drawn among it, until its token runs
again. (ReCAP, arXiv 2505.19089, keeps those of codes alone.)

Letters: B sequences, h w grid, T tokens of a sequence, S of them that run, D width, G heads of keys
and values, K head dimension, N layers.
Source: Alpha-VLLM/Lumina-DiMOO, generators/image_generation_generator.py, model/modeling_llada.py.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from maskgil_jax.models.token_models.attention import grouped_attention
from maskgil_jax.models.token_models.conditions import Condition, Text
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_layers import Layer


class Sequences(NamedTuple):
    """Sequences of a masked model as its layers take them.

    Attributes:
      x_BTD: embedded tokens.
      real_BT: bool, false at padding.
      table: of rotations, [B or 1, 1, T, K / 2, 2].
    """

    x_BTD: jax.Array
    real_BT: jax.Array
    table: jax.Array


def of_text(network: Llama, text: Text) -> Sequences:
    """Those of ids alone, of a model with a vocabulary."""
    x_BTD = network.embed_condition(text).astype(network.config.dtype)
    table = network.table(text, (0, 0), 0, text.ids_BT.shape[1])
    return Sequences(x_BTD, text.mask_BT, jnp.asarray(table))


def of_images(network: Llama, codes_Bhw: jax.Array, condition: Condition) -> Sequences:
    """Those of codes, int32, and a condition of each image."""
    if isinstance(condition, Text):
        return of_text(network, network.with_answer(condition, codes_Bhw))
    B, height, width = codes_Bhw.shape
    codes_BL = network.in_order(codes_Bhw.reshape(B, height * width), height, width)
    x_BTD = jnp.concatenate(network.embed(codes_BL, condition), axis=1)
    T = x_BTD.shape[1]
    real_BT = network.real(condition, T)
    table = jnp.asarray(network.table(condition, (height, width), 0, T))[None, None]
    return Sequences(x_BTD, jnp.ones((B, T), bool) if real_BT is None else real_BT, table)


def outputs_at(
    network: Llama, kept: "Kept", condition: Condition, grid: tuple[int, int]
) -> jax.Array:
    """What is kept of the outputs at the image tokens, in raster order: [B, L, D]."""
    last = network.config.condition_position == "last"
    first = 0 if last else network.length_of(condition)
    lines = len(network.order(*grid))
    return network.in_raster(kept.outputs_BTD[:, first : first + lines], *grid)


class Kept(NamedTuple):
    """What is kept of sequences.

    Attributes:
      keys, values: of each layer, [N, B, G, T, K].
      outputs_BTD: of the last layer, after the final norm.
      largest_BT: the largest logit of a code at each token, float32.
    """

    keys: jax.Array
    values: jax.Array
    outputs_BTD: jax.Array
    largest_BT: jax.Array


def nothing(network: Llama, B: int, T: int) -> Kept:
    """As large as `everything` gives it, and empty."""
    config = network.config
    heads = (config.layers, B, config.key_heads, T, config.head_dim)
    keys, values, outputs_BTD = (
        jnp.zeros(shape, config.dtype) for shape in (heads, heads, (B, T, config.dim))
    )
    return Kept(keys, values, outputs_BTD, jnp.zeros((B, T)))


def everything(network: Llama, sequences: Sequences) -> Kept:
    """What there is of sequences."""
    B, T = sequences.real_BT.shape
    return run(network, sequences, nothing(network, B, T), jnp.arange(T)[None].repeat(B, axis=0))


def renewed(network: Llama, sequences: Sequences, kept: Kept, share: float) -> Kept:
    """What there is of sequences after the tokens of `unsure` have run.

    Args:
      network: that kept it.
      sequences: as they are now.
      kept: of the same sequences before.
      share: of tokens that run.
    """
    T = sequences.real_BT.shape[1]
    runs_BT = unsure(kept.largest_BT, sequences.real_BT, share)
    most = min(T, math.floor(share * (T - 1)) + 2)
    places_BS = jnp.argsort(~runs_BT, axis=1, stable=True)[:, :most]
    runs_BS = jnp.take_along_axis(runs_BT, places_BS, axis=1)
    return run(network, sequences, kept, jnp.where(runs_BS, places_BS, T))


def unsure(largest_BT: jax.Array, mask_BT: jax.Array, share: float) -> jax.Array:
    """Bool [B, T], the tokens whose largest logit is within the lowest `share` of each sequence.

    The quantile is interpolated linearly in float32, as torch.quantile does it.

    Args:
      largest_BT: float32.
      mask_BT: false at padding, which is never among them.
      share: 0 to 1.
    """
    ascending_BT = jnp.sort(jnp.where(mask_BT, largest_BT, jnp.inf), axis=1)
    rank_B1 = jnp.float32(share) * (mask_BT.sum(axis=1, keepdims=True) - 1).astype(jnp.float32)
    below, above = (
        jnp.take_along_axis(ascending_BT, f(rank_B1).astype(jnp.int32), axis=1)
        for f in (jnp.floor, jnp.ceil)
    )
    quantile_B1 = below + (rank_B1 - jnp.floor(rank_B1)) * (above - below)
    return mask_BT & (largest_BT <= quantile_B1)


def run(network: Llama, sequences: Sequences, kept: Kept, places_BS: jax.Array) -> Kept:
    """`kept` after the tokens at these places have run; at place T there is none."""
    B, T = sequences.real_BT.shape
    S, rows_B1 = places_BS.shape[1], jnp.arange(B)[:, None]
    there_BS = jnp.minimum(places_BS, T - 1)
    x_BSD = jnp.take_along_axis(sequences.x_BTD, there_BS[..., None], axis=1)
    places_B1S11 = there_BS[:, None, :, None, None]
    table = jnp.take_along_axis(sequences.table, places_B1S11, axis=2)
    # All see what is no padding; padding is seen by none, whatever it sees.
    mask = jnp.broadcast_to(sequences.real_BT[:, None, None], (B, 1, S, T))

    def apply(x_BSD: jax.Array, block_and_kept: Any) -> tuple[jax.Array, Any]:
        block, *past = block_and_kept
        layer, present = Layer(block), []

        def attend(q_BHSK: jax.Array, *new: jax.Array) -> jax.Array:
            for old, x_BGSK in zip(past, new, strict=True):
                x_BSGK = x_BGSK.transpose(0, 2, 1, 3)
                present.append(old.at[rows_B1, :, places_BS].set(x_BSGK, mode="drop"))
            keys, values = present
            return grouped_attention(q_BHSK, keys, values, mask)

        attention = functools.partial(layer.attention, table_SK2=table, attend=attend)
        return layer(x_BSD, attention), tuple(present)

    x_BSD, (keys, values) = jax.lax.scan(apply, x_BSD, (network.blocks, kept.keys, kept.values))
    x_BSD = network.normed(x_BSD)
    # Sequence by sequence: the logits of all tokens of a batch would be large.
    largest_BS = jax.lax.map(lambda x_SD: network.classify(x_SD[None])[0].max(axis=-1), x_BSD)
    return Kept(
        keys,
        values,
        kept.outputs_BTD.at[rows_B1, places_BS].set(x_BSD, mode="drop"),
        kept.largest_BT.at[rows_B1, places_BS].set(largest_BS, mode="drop"),
    )
