"""Keys and values of a causal prefix, computed once for all steps that fill the tokens behind it.

Letters: B batch, h w grid, n tokens of the prefix, c of the condition, L = h * w, T = c + L, S =
L - n, D width, H heads, K head dimension, N layers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from maskgil_jax.models.token_models.attention import attention_of_parts
from maskgil_jax.models.token_models.conditions import Condition
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_layers import Layer


class Prefix(NamedTuple):
    """Keys and values of the condition and a causal prefix, [N, B, H, c + n, K] each."""

    keys: jax.Array
    values: jax.Array


def keep(
    network: Llama, codes_Bn: jax.Array, condition: Condition, grid: tuple[int, int]
) -> Prefix:
    """What all tokens behind a causal prefix see of it and of the condition.

    Args:
      network: with a causal prefix.
      codes_Bn: int32, the first n tokens in its order.
      condition: of each image.
      grid: (height, width) in tokens.
    """
    causal, c = network.as_causal(), network.config.condition_tokens
    layers, cache, _ = causal.start(condition)
    x_BnD = network.embed_codes(codes_Bn).astype(network.config.dtype)
    cache = cache.with_room(c + codes_Bn.shape[1])
    cache, _ = causal.extend(layers, cache, x_BnD, c, condition, grid)
    return Prefix(*(jnp.stack(x).astype(network.config.dtype) for x in cache))


def backbone_behind(
    network: Llama, prefix: Prefix, codes_Bhw: jax.Array, condition: Condition
) -> jax.Array:
    """`Llama.backbone` of the tokens behind a prefix that was kept, [B, L, D]; 0 at its own.

    Args:
      network: that kept it.
      prefix: of the first codes.
      codes_Bhw: int32, mask_id where masked.
      condition: of each image.
    """
    B, height, width = codes_Bhw.shape
    split = prefix.keys.shape[3]  # place in the sequence
    n = split - network.config.condition_tokens
    codes_BL = network.in_order(codes_Bhw.reshape(B, height * width), height, width)
    x_BSD = network.embed_codes(codes_BL[:, n:]).astype(network.config.dtype)
    table_TK2 = network.rotations(height, width)
    T = len(table_TK2)
    mask = network.allowed(condition, jnp.arange(split, T), T)

    def apply(block_and_prefix: Any, x_BSD: jax.Array, key: None) -> jax.Array:
        block, prefix = block_and_prefix
        layer = Layer(block)

        def attend(q_BHSK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array) -> jax.Array:
            keys, values = (prefix.keys, k_BHSK), (prefix.values, v_BHSK)
            (o_BHSK,) = attention_of_parts((q_BHSK,), keys, values, mask)
            return o_BHSK

        attention = functools.partial(layer.attention, table_SK2=table_TK2[split:], attend=attend)
        return layer(x_BSD, attention)

    x_BSD = network.through((network.blocks, prefix), x_BSD, apply, None)
    return network.in_raster(jnp.pad(x_BSD, ((0, 0), (n, 0), (0, 0))), height, width)
