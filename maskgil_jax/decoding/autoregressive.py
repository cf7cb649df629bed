"""Decoding token by token with a cache of keys and values, all in one jitted function.

Letters: B batch, L = height * width tokens, n tokens of the sequence, V codes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.decoding import option_checks, token_sampling
from maskgil_jax.decoding.guidance import guided, with_negative
from maskgil_jax.models.token_models.conditions import Condition
from maskgil_jax.models.token_models.layers import cast_once
from maskgil_jax.models.token_models.llama import Cache, Llama
from maskgil_jax.models.token_models.llama_layers import Layer
from maskgil_jax.runtime import compiler_options

GROWTH = 64  # tokens drawn between two growths of the cache
MOST_GROWTHS = 16  # of long sequences, since each is compiled


@dataclasses.dataclass(frozen=True)
class Options:
    """How to draw tokens.

    Attributes:
      guidance: scale s of u + s (c - u); 1 is no guidance.
      guidance_interval: guide the first token and as many after it; -1 guides all (LlamaGen's
        `cfg_interval`, counted from the second token, is this minus 1).
      temperature: divides the logits.
      top_k, top_p: classes that are drawn from, see token_sampling.filtered.
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
        token_sampling.check_filter(self.top_k, self.top_p)


class Plan(NamedTuple):
    """What is compiled of Options.

    Attributes:
      guided: tokens that are, from the first on; -1: all.
      top_k, top_p: as in Options.
    """

    guided: int
    top_k: int
    top_p: float


class Numbers(NamedTuple):
    """Arrays of one plan that may change from draw to draw, without another compilation.

    Attributes:
      guidance: as in Options, float32 [].
      divisor: of the logits, float32 [].
    """

    guidance: Any
    divisor: Any


def plan(options: Options) -> tuple[Plan, Numbers]:
    """How tokens are drawn with these options."""
    interval = options.guidance_interval
    guided = 0 if options.guidance == 1 else -1 if interval < 0 else interval + 1
    divisor = max(options.temperature, 1e-5)  # 0 is the maximum
    numbers = Numbers(np.array(options.guidance, np.float32), np.array(divisor, np.float32))
    return Plan(guided, options.top_k, options.top_p), numbers


@compiler_options.jit(static_argnames=("plan", "grid", "tokens"))
def sample_codes(
    network: Llama,
    condition: Condition,
    numbers: Numbers,
    key: jax.Array,
    start: jax.Array | int,
    negative: Condition | None = None,
    *,
    plan: Plan,
    grid: tuple[int, int],
    tokens: int,
) -> jax.Array:
    """Draw the first `tokens` tokens of a grid in the network's order; see CausalGenerator.sample.

    The draws of image i are keyed by i, those of a token by its place in the order.

    Returns:
      int32 [B, h, w]; mask_id where nothing was drawn; see token_sampling.with_step where nothing
      could be.
    """
    network = cast_once(network)
    B = jax.tree.leaves(condition)[0].shape[0]
    keys_B = token_sampling.image_keys(key, start, B)
    draw = functools.partial(draw_codes, network, keys_B, plan, numbers, grid)
    # Of the sequence, ends of lines among them.
    tokens = int(np.flatnonzero(network.order(*grid) >= 0)[tokens - 1]) + 1
    both = with_negative(network, condition, negative) if plan.guided else condition
    layers, cache, x_BD = network.start(both)
    decode = functools.partial(decode_tokens, network, layers, draw, grid)

    first_B = draw(x_BD, 0)
    state, drawn = (cache, first_B), [first_B[None]]
    guided_end = 0
    if plan.guided:
        guided_end = (tokens if plan.guided < 0 else min(plan.guided, tokens)) - 1
        state, drawn_nB = decode(state, 0, guided_end, both)
        drawn.append(drawn_nB)
        # The negative half of the batch is dropped where guidance ends.
        state = jax.tree.map(lambda x: x[:B], state)
    _, drawn_nB = decode(state, guided_end, tokens - 1, condition)
    drawn.append(drawn_nB)
    return on_grid(network, jnp.concatenate(drawn).T, grid)


def draw_codes(
    network: Llama,
    keys_B: jax.Array,
    plan: Plan,
    numbers: Numbers,
    grid: tuple[int, int],
    x_BD: jax.Array,
    index: jax.Array | int,
) -> jax.Array:
    """Codes of the token at `index`, int32 [B], from the features that predict it.

    Features are [B, D], or where there is guidance [2 B, D]. Ends of lines are not drawn but given.
    """
    x_BD = network.normed(x_BD[:, None])[:, 0]
    if len(x_BD) > len(keys_B):
        x_BD = guided(x_BD, numbers.guidance)
    logits_BV = network.classify(x_BD[:, None])[:, 0]
    sizes = network.config.vocabularies

    def uniform(key: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, index), (len(sizes),))

    codes_B, *_ = token_sampling.code(
        jax.vmap(uniform)(keys_B),
        logits_BV,
        sizes,
        divisor=numbers.divisor,
        top_k=plan.top_k,
        top_p=plan.top_p,
    )
    codes_B = token_sampling.with_step(codes_B, index)
    return network.with_line_ends(codes_B, grid, jnp.asarray(index))


State = tuple[Cache, jax.Array]  # and the last codes, int32 [B]


def decode_tokens(
    network: Llama,
    layers: list[Layer],
    draw: Callable[[jax.Array, jax.Array], jax.Array],
    grid: tuple[int, int],
    state: State,
    first: int,
    last: int,
    condition: Condition,
) -> tuple[State, jax.Array]:
    """Take in tokens first .. last - 1, drawing the one after each.

    Args:
      network: the model.
      layers: of `network.start`.
      draw: (features, index) -> codes int32 [B].
      grid: (height, width) in tokens.
      state: before.
      first, last: places in the order.
      condition: [B], or [2 B] where the cache is of both conditions of guidance.

    Returns:
      The state after, and the codes drawn, int32 [last - first, B].
    """

    def step(state: State, index: jax.Array) -> tuple[State, jax.Array]:
        cache, codes_B = state
        inputs = jnp.tile(codes_B, len(cache.keys[0]) // len(codes_B))  # twice with guidance
        cache, x_BD = network.step(layers, cache, inputs, index, condition, grid)
        codes_B = draw(x_BD, index + 1)
        return (cache, codes_B), codes_B

    # A cache that grows now and then is read faster than one with room for all.
    drawn = [jnp.zeros((0, len(state[1])), jnp.int32)]
    growth = max(GROWTH, -(-(last - first) // MOST_GROWTHS))
    for begin in range(first, last, growth):
        end = min(begin + growth, last)
        state = (state[0].with_room(network.length_of(condition) + end), state[1])
        state, drawn_nB = jax.lax.scan(step, state, jnp.arange(begin, end))
        drawn.append(drawn_nB)
    return state, jnp.concatenate(drawn)


def on_grid(network: Llama, codes_Bn: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """The first n codes of the network's order on a grid, int32 [B, h, w]; mask_id elsewhere."""
    (B, n), (height, width) = codes_Bn.shape, grid
    codes_BL = jnp.full((B, height * width), network.config.mask_id, jnp.int32)
    order = network.order(height, width)[:n]
    codes_BL = codes_BL.at[:, order[order >= 0]].set(codes_Bn[:, order >= 0])
    return codes_BL.reshape(B, height, width)
