"""Decoding token by token with a cache of keys and values, all in one jitted function.

Letters: B batch, L = height * width tokens, V codes.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from maskgil_jax.decoding import option_checks, token_sampling
from maskgil_jax.models.token_models.conditions import Condition, with_negative
from maskgil_jax.models.token_models.layers import cast_once
from maskgil_jax.models.token_models.llama import Cache, Llama

STAGE = 64  # tokens drawn between two growths of the cache


@dataclasses.dataclass(frozen=True)
class Options:
    """How to draw tokens.

    Attributes:
      guidance: scale s of u + s (c - u); 1 is no guidance.
      guidance_interval: guide the first token and as many after it; -1 guides all (LlamaGen's
        `cfg_interval`, counted from the second token, is this minus 1).
      temperature: divides the logits.
      top_k, top_p: classes that are drawn from, see draws.filtered.
    """

    guidance: float = 2.0
    guidance_interval: int = -1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that no decoding can use."""
        option_checks.check_types(self)
        if self.temperature:
            option_checks.check_divisor("temperature", [self.temperature])
        token_sampling.check_kept(self.top_k, self.top_p)


@functools.partial(jax.jit, static_argnames=("options", "grid", "tokens"))
def sample_codes(
    network: Llama,
    condition: Condition,
    key: jax.Array,
    start: jax.Array | int,
    negative: Condition | None = None,
    *,
    options: Options,
    grid: tuple[int, int],
    tokens: int,
) -> jax.Array:
    """Draw the first `tokens` tokens of a grid in the network's order; see CausalGenerator.sample.

    The draws of image i are keyed by i, those of a token by its place in the order.

    Returns:
      int32 [B, h, w]; mask_id where nothing was drawn; see draws.with_step where nothing could be.
    """
    config, network = network.config, cast_once(network)
    height, width = grid
    B = jax.tree.leaves(condition)[0].shape[0]
    keys_B = jax.vmap(lambda i: jax.random.fold_in(key, i))(start + jnp.arange(B))
    guided = options.guidance != 1.0
    # The null condition's half of the batch is dropped where guidance ends.
    guided_end = (
        tokens if options.guidance_interval < 0 else min(options.guidance_interval + 1, tokens)
    )
    both = condition
    if guided:
        both = with_negative(network, condition, negative)

    def draw(x_BD: jax.Array, index: jax.Array | int) -> jax.Array:
        x_BD = network.normed(x_BD[:, None])[:, 0]
        if len(x_BD) > B:  # the head is linear, so that guidance may come before it
            c_BD, u_BD = jnp.split(x_BD.astype(jnp.float32), 2)
            x_BD = (u_BD + options.guidance * (c_BD - u_BD)).astype(x_BD.dtype)
        logits_BV = network.classify(x_BD[:, None])[:, 0]
        shape = (len(config.vocabularies),)
        uniform_BF = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, index), shape))(
            keys_B
        )
        codes_B = token_sampling.code(
            uniform_BF,
            logits_BV,
            config.vocabularies,
            divisor=max(options.temperature, 1e-5),
            top_k=options.top_k,
            top_p=options.top_p,
        )[0]
        return token_sampling.with_step(codes_B, index)

    def phase(
        carry: tuple[Cache, jax.Array], first: int, last: int, condition: Condition
    ) -> tuple[tuple[Cache, jax.Array], jax.Array]:
        """Take in tokens first .. last - 1, drawing the one after each."""

        def step(
            carry: tuple[Cache, jax.Array], index: jax.Array
        ) -> tuple[tuple[Cache, jax.Array], jax.Array]:
            cache, codes_B = carry
            twice = jnp.tile(codes_B, len(cache.keys[0]) // B)
            cache, x_BD = network.step(layers, cache, twice, index, condition, grid)
            codes_B = draw(x_BD, index + 1)
            return (cache, codes_B), codes_B

        # A cache that grows now and then is read faster than one with room for all.
        parts = [jnp.zeros((0, B), jnp.int32)]
        for begin in range(first, last, STAGE):
            end = min(begin + STAGE, last)
            carry = (carry[0].with_room(config.condition_tokens + end), carry[1])
            carry, drawn_nB = jax.lax.scan(step, carry, jnp.arange(begin, end))
            parts.append(drawn_nB)
        return carry, jnp.concatenate(parts)

    layers, cache, x_BD = network.start(both)
    first_B = draw(x_BD, 0)
    carry, found = (cache, first_B), [first_B[None]]
    if guided:
        carry, drawn = phase(carry, 0, guided_end - 1, both)
        found.append(drawn)
        carry = jax.tree.map(lambda x: x[:B], carry)
    carry, drawn = phase(carry, guided_end - 1 if guided else 0, tokens - 1, condition)
    drawn_Bn = jnp.concatenate([*found, drawn]).T
    codes_BL = jnp.full((B, height * width), config.mask_id, jnp.int32)
    codes_BL = codes_BL.at[:, network.order(height, width)[:tokens]].set(drawn_Bn)
    return codes_BL.reshape(B, height, width)
