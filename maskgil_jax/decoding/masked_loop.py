"""Masked decoding on one page: predict, sample, confidence, reveal; all steps in one function.

Letters: B batch, L = height * width tokens, n of them, masked ones first, V classes of the head, S
steps, F digits of a code.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from maskgil_jax.decoding import choosing, token_sampling
from maskgil_jax.decoding.guidance import guided, with_negative
from maskgil_jax.decoding.masked_plan import Numbers, Plan, Segment, segments, steps_that_run
from maskgil_jax.models.token_models import kept_prefix, kept_tokens, orders
from maskgil_jax.models.token_models.conditions import Condition, TokenModel
from maskgil_jax.models.token_models.layers import cast_once
from maskgil_jax.runtime import compiler_options


class Keep(NamedTuple):
    """A network's tokens that are kept from step to step.

    Attributes:
      state: before the first step.
      predict: as Model.predict, but it also takes the state and whether to run all tokens, bool [],
        and gives the logits and the state after.
    """

    state: Any
    predict: Callable[..., tuple[jax.Array, Any]]


class Model(NamedTuple):
    """What the loop asks of a network and of random numbers.

    Attributes:
      predict: (codes [B, L], positions [B, n], guidance scale [] or None for none) -> logits
        [B, n, V].
      sample: (step [], logits [B, n, V], positions [B, n], divisor []) -> tokens int32 [B, n],
        drawn from softmax(logits / divisor), their log-probabilities, and their logits.
      gumbel: (step []) -> standard Gumbel noise [B, L].
      rank_BL: place of each position in the order, for confidence "order".
      mask_id: id of the mask.
      keep: takes the place of `predict` where tokens are kept.
      sizes: of the vocabularies of the digits of a code; (): one, of all codes.
    """

    predict: Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]
    sample: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
    gumbel: Callable[[jax.Array], jax.Array]
    rank_BL: jax.Array
    mask_id: int
    keep: Keep | None = None
    sizes: tuple[int, ...] = ()


class State(NamedTuple):
    """What a step begins with.

    Attributes:
      codes_BL: int32, mask_id where masked.
      kept: see Keep.
      p_BL: the probability that each token was drawn with, where the plan remasks.
    """

    codes_BL: jax.Array
    kept: Any = None
    p_BL: jax.Array | None = None


def decode(model: Model, codes_BL: jax.Array, numbers: Numbers, plan: Plan) -> jax.Array:
    """Fill the masked positions of `codes_BL` in as many steps as the plan has.

    Tokens that are known at the start are never changed, and those of earlier steps only where the
    plan masks some again. A step of an adaptive plan that finds all images done does nothing.

    Args:
      model: predicts and samples.
      codes_BL: int32; `mask_id` where masked.
      numbers: of the plan.
      plan: what each step does.

    Returns:
      The codes after each step, int32 [S, B, L]; the last have no `mask_id`, unless `sample`
      returns it.

    Source: MaskGIT (Chang et al. 2022), section 3.2, and the files named in masked_options.RULES.
    """
    steps = (
        jnp.arange(len(plan.masked)),
        jnp.asarray(numbers.counts_SB).at[-1].set(codes_BL.shape[1]),
        *numbers[1:],
        jnp.array(plan.all_tokens),
    )
    p_BL = jnp.zeros(codes_BL.shape) if plan.remasks else None
    state = State(codes_BL, model.keep.state if model.keep else None, p_BL)
    at_start_BL = codes_BL == model.mask_id
    after_steps = []
    for segment in segments(plan):
        of_segment = tuple(x[segment.first : segment.last] for x in steps)
        step = functools.partial(decode_step, model, plan, segment, at_start_BL)
        if plan.adaptive:
            step = functools.partial(unless_done, model.mask_id, step)
        state, codes_SBL = jax.lax.scan(step, state, of_segment)
        after_steps.append(codes_SBL)
    return jnp.concatenate(after_steps)


Step = Callable[[State, tuple[jax.Array, ...]], tuple[State, jax.Array]]


def unless_done(
    mask_id: int, step: Step, state: State, numbers: tuple[jax.Array, ...]
) -> tuple[State, jax.Array]:
    """The step, which is not run where no image of the batch has masked tokens."""
    going_on = (state.codes_BL == mask_id).any()
    return jax.lax.cond(going_on, step, lambda state, _: (state, state.codes_BL), state, numbers)


def decode_step(
    model: Model,
    plan: Plan,
    segment: Segment,
    at_start_BL: jax.Array,
    state: State,
    numbers: tuple[jax.Array, ...],
) -> tuple[State, jax.Array]:
    """Mask again, predict, sample, confidence, reveal; `numbers` are those of the plan's step.

    Returns:
      The state that the next step begins with, and the codes, for the stack of all steps.
    """
    step, count_B, guidance, temperature, choice_temperature, budget, remask, all_tokens = numbers
    codes_BL, kept, p_BL = state
    if p_BL is not None:
        gumbel_BL = model.gumbel(len(plan.masked) + step)  # its own: no step has this number
        codes_BL, count_B = mask_again(
            model.mask_id, codes_BL, at_start_BL, p_BL, count_B, remask, gumbel_BL
        )
    masked_BL = codes_BL == model.mask_id
    positions_Bn = jnp.argsort(~masked_BL, axis=1, stable=True)[:, : segment.tokens]
    at_positions = functools.partial(jnp.take_along_axis, indices=positions_Bn, axis=1)
    masked_Bn = at_positions(masked_BL)

    scale = guidance if segment.guided else None
    if model.keep:
        logits_BnV, kept = model.keep.predict(codes_BL, positions_Bn, scale, kept, all_tokens)
    else:
        logits_BnV = model.predict(codes_BL, positions_Bn, scale)
    divisor: jax.Array | float = jnp.maximum(temperature, 1e-6)  # 0 is the maximum
    if plan.confidence != "log_probability_at_1":
        logits_BnV = logits_BnV / temperature
        all_left_B = masked_Bn.sum(axis=1) <= count_B
        divisor = choosing.sharpened(plan.confidence, choice_temperature, all_left_B)
    tokens_Bn, log_p_Bn, logit_Bn = model.sample(step, logits_BnV, positions_Bn, divisor)

    chances = choosing.Chances(logits_BnV, model.sizes, plan.top_k, plan.top_p)
    noise_Bn = at_positions(model.gumbel(step))
    rank_Bn = at_positions(model.rank_BL)
    confidence_Bn = choosing.confidence(
        plan.confidence, chances, (log_p_Bn, logit_Bn), rank_Bn, noise_Bn, choice_temperature
    )
    confidence_Bn = jnp.where(masked_Bn, confidence_Bn, -jnp.inf)
    revealed_Bn = masked_Bn & choosing.most(confidence_Bn, count_B[:, None])
    if plan.adaptive:
        entropy_Bn = chances.entropy
        revealed_Bn |= choosing.within_budget(entropy_Bn, masked_Bn, revealed_Bn, budget)
    rows_B1 = jnp.arange(len(codes_BL))[:, None]

    def with_revealed(x_BL: jax.Array, new_Bn: jax.Array) -> jax.Array:
        new_Bn = jnp.where(revealed_Bn, new_Bn, at_positions(x_BL))
        return x_BL.at[rows_B1, positions_Bn].set(new_Bn)

    codes_BL = with_revealed(codes_BL, tokens_Bn)
    if p_BL is not None:
        p_BL = with_revealed(p_BL, jnp.exp(log_p_Bn))
    return State(codes_BL, kept, p_BL), codes_BL


def mask_again(
    mask_id: int,
    codes_BL: jax.Array,
    at_start_BL: jax.Array,
    p_BL: jax.Array,
    count_B: jax.Array,
    share: jax.Array,
    gumbel_BL: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The codes with some masked again, and the tokens to reveal then; see choosing.remasked.

    Args:
      mask_id: id of the mask.
      codes_BL: int32.
      at_start_BL: bool, masked at the start.
      p_BL, count_B, share, gumbel_BL: as there.
    """
    drawn_BL = at_start_BL & (codes_BL != mask_id)
    again_BL = choosing.remasked(p_BL, at_start_BL, drawn_BL, count_B, share, gumbel_BL)
    return jnp.where(again_BL, mask_id, codes_BL), count_B + again_BL.sum(axis=1)


@compiler_options.jit(static_argnames=("plan", "prefix", "history", "counted"))
def sample_codes(
    network: TokenModel,
    condition: Condition,
    codes_Bhw: jax.Array,
    numbers: Numbers,
    key: jax.Array,
    start: jax.Array | int,
    negative: Condition | None = None,
    *,
    plan: Plan,
    prefix: int = 0,
    history: bool = False,
    counted: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Fill the masked codes by a ready-made plan, int32 [B, h, w]; see Generator.sample.

    With `history` it gives the codes after each step, int32 [S, B, h, w]; and if `counted` also the
    passes that each image needed, see passes_of.

    With a `prefix`, the network's first so many tokens are all known, and read as a causal prefix.
    The draws of image i are keyed by i, those of a step by the step. Where logits are not finite,
    the code is as token_sampling.with_step says.
    """
    network = cast_once(network)
    B, height, width = codes_Bhw.shape
    L, sizes = height * width, network.config.vocabularies
    keys_B = token_sampling.image_keys(key, start, B)
    both = with_negative(network, condition, negative) if any(plan.guided) else condition
    backbone = backbone_behind(network, codes_Bhw, both, prefix) if prefix else network.backbone

    def noise(
        step: jax.Array, use: int, draw: Callable[..., jax.Array], shape: tuple[int, ...]
    ) -> jax.Array:
        fold_in = jax.random.fold_in
        return jax.vmap(lambda key: draw(fold_in(fold_in(key, step), use), shape))(keys_B)

    def predict(
        codes_BL: jax.Array, positions_Bn: jax.Array, guidance: jax.Array | None
    ) -> jax.Array:
        conditions = condition if guidance is None else both
        if plan.random_start:  # of which there is but one step
            codes_BL = started(codes_BL)
        codes_Bhw = codes_BL.reshape(B, height, width)
        return logits_at(network, backbone, codes_Bhw, conditions, positions_Bn, guidance)

    def started(codes_BL: jax.Array) -> jax.Array:
        codes = functools.partial(jax.random.randint, minval=0, maxval=network.config.codebook_size)
        first = jnp.zeros((), jnp.int32)
        order_BL = noise(first, 2, jax.random.uniform, (L,))
        random_BL = noise(first, 3, lambda key, shape: codes(key, shape), (L,))
        masked_BL = codes_BL == network.config.mask_id
        return choosing.with_random_codes(
            codes_BL, masked_BL, plan.random_start, order_BL, random_BL
        )

    def sample(
        step: jax.Array, logits_BnV: jax.Array, positions_Bn: jax.Array, divisor: jax.Array | float
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        uniform_BnF = _rows(noise(step, 0, jax.random.uniform, (L, len(sizes))), positions_Bn)
        codes_Bn, log_p_Bn, logit_Bn = token_sampling.code(
            uniform_BnF, logits_BnV, sizes, divisor=divisor, top_k=plan.top_k, top_p=plan.top_p
        )
        return token_sampling.with_step(codes_Bn, step), log_p_Bn, logit_Bn

    # Halton's order begins anywhere, so that not all images begin at the same cell.
    rank_L = jnp.argsort(jnp.asarray(orders.halton(height, width)))
    offset_B1 = jax.vmap(lambda k: jax.random.randint(k, (1,), 0, L))(keys_B)
    rank_BL = (rank_L + offset_B1) % L
    gumbel = functools.partial(noise, use=1, draw=jax.random.gumbel, shape=(L,))
    keep = keeping(network, both, (height, width), plan.cache_ratio) if plan.cache_ratio else None
    model = Model(predict, sample, gumbel, rank_BL, network.config.mask_id, keep, sizes)
    codes_SBL = decode(model, codes_Bhw.reshape(B, L), numbers, plan)
    codes_SBhw = codes_SBL.reshape(-1, B, height, width)
    codes = codes_SBhw if history else codes_SBhw[-1]
    if not counted:
        return codes
    return codes, passes_of(codes_Bhw.reshape(B, L), codes_SBL, network.config.mask_id, plan)


def passes_of(codes_BL: jax.Array, codes_SBL: jax.Array, mask_id: int, plan: Plan) -> jax.Array:
    """Evaluations of the network that each image needed, float32 [B]; two of a guided step.

    A batch takes those of the image that needed most.

    Args:
      codes_BL: int32, before the first step.
      codes_SBL: after each.
      mask_id: id of the mask.
      plan: of the steps.
    """
    before_SBL = jnp.concatenate([codes_BL[None], codes_SBL[:-1]])
    passes_S = jnp.array([plan.passes_S[i] for i in steps_that_run(plan)], jnp.float32)
    return passes_S @ (before_SBL == mask_id).any(axis=2)


Backbone = Callable[[jax.Array, Condition], jax.Array]  # as TokenModel.backbone


def backbone_behind(
    network: Any, codes_Bhw: jax.Array, conditions: Condition, prefix: int
) -> Backbone:
    """The backbone of a Llama behind a causal prefix, whose keys and values it keeps.

    Args:
      network: with a causal prefix.
      codes_Bhw: int32, of which the first `prefix` tokens in the network's order stay.
      conditions: [B], or [2 B] of guidance.with_negative: the backbone takes these or the first B.
      prefix: tokens.
    """
    B, *grid = codes_Bhw.shape
    codes_Bn = codes_Bhw.reshape(B, -1)[:, network.order(*grid)[:prefix]]
    rows = jax.tree.leaves(conditions)[0].shape[0]
    codes_Bn = jnp.tile(codes_Bn, (rows // B, 1))
    kept = kept_prefix.keep(network, codes_Bn, conditions, (grid[0], grid[1]))

    def backbone(codes_Bhw: jax.Array, conditions: Condition) -> jax.Array:
        prefix = jax.tree.map(lambda x: x[:, : len(codes_Bhw)], kept)
        return kept_prefix.backbone_behind(network, prefix, codes_Bhw, conditions)

    return backbone


def keeping(network: Any, conditions: Condition, grid: tuple[int, int], ratio: float) -> Keep:
    """Predictions of a masked Llama from tokens that it keeps.

    Args:
      network: the model.
      conditions: [B], or [2 B] of guidance.with_negative, of all steps.
      grid: (height, width) in tokens.
      ratio: of tokens that do not run in a step that does not run all.
    """
    rows = jax.tree.leaves(conditions)[0].shape[0]
    like = jax.ShapeDtypeStruct((rows, *grid), jnp.int32)
    of_images = functools.partial(kept_tokens.of_images, network)
    tokens = jax.eval_shape(of_images, like, conditions).real_BT.shape[1]

    def predict(
        codes_BL: jax.Array,
        positions_Bn: jax.Array,
        guidance: jax.Array | None,
        kept: kept_tokens.Kept,
        all_tokens: jax.Array,
    ) -> tuple[jax.Array, kept_tokens.Kept]:
        twice = rows // len(codes_BL)
        sequences = of_images(jnp.tile(codes_BL, (twice, 1)).reshape(rows, *grid), conditions)
        kept = jax.lax.cond(
            all_tokens,
            lambda sequences, kept: kept_tokens.everything(network, sequences),
            lambda sequences, kept: kept_tokens.renewed(network, sequences, kept, 1 - ratio),
            sequences,
            kept,
        )
        x_BLD = kept_tokens.outputs_at(network, kept, conditions, grid)
        x_BnD = _rows(x_BLD, jnp.tile(positions_Bn, (twice, 1)))
        x_BnD = x_BnD if guidance is None else guided(x_BnD, guidance)
        logits_BnV = network.classify(x_BnD, positions_Bn)
        return logits_BnV[..., : network.config.codebook_size], kept

    return Keep(kept_tokens.nothing(network, rows, tokens), predict)


def logits_at(
    network: TokenModel,
    backbone: Backbone,
    codes_Bhw: jax.Array,
    conditions: Condition,
    positions_Bn: jax.Array,
    guidance: jax.Array | None,
) -> jax.Array:
    """Logits of codes at some positions, float32 [B, n, V].

    Args:
      network: predicts from what its `backbone` gives.
      backbone: of the network, or behind a prefix.
      codes_Bhw: int32.
      conditions: [B]; or where there is guidance [2 B], of guidance.with_negative.
      positions_Bn: raster positions.
      guidance: scale [], or None for none.
    """
    if guidance is None:
        x_BnD = network.normed(_rows(backbone(codes_Bhw, conditions), positions_Bn))
    else:
        x_BLD = backbone(jnp.concatenate([codes_Bhw, codes_Bhw]), conditions)
        x_BnD = network.normed(_rows(x_BLD, jnp.concatenate([positions_Bn, positions_Bn])))
        x_BnD = guided(x_BnD, guidance)
    # A mask is never drawn (the released FID_sample.py drops its column as well).
    return network.classify(x_BnD, positions_Bn)[..., : network.config.codebook_size]


def _rows(x_BLD: jax.Array, positions_Bn: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BLD, positions_Bn[..., None], axis=1)
