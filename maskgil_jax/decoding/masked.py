"""Masked decoding: all tokens hidden at first, some revealed at each step.

Letters: B batch, L image tokens, n of them that may be revealed, V classes of the head, S steps.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.decoding import option_checks, schedules, token_sampling


@dataclasses.dataclass(frozen=True)
class Options:
    """How to decode; `PRESETS` holds the published settings.

    Attributes:
      steps: 1 to the number of hidden tokens.
      rule: key of RULES.
      schedule: of the number of revealed tokens: "arccos", "cosine", "linear", "square", "root" for
        rule "maskgil"; "cosine", "arccos", "uniform", "log", "exp", "powK" for the others but
        "halton", whose own is arccos.
      guidance: how far the logits go from unconditional (u) to conditional (c) ones and beyond.
      guidance_form: "scale", u + guidance (c - u), where 1 is no guidance; or "weight",
        (1 + guidance) c - guidance u, where 0 is none. In papers both are called the CFG scale.
      guidance_ramp: "constant"; "linear", "cosine" or "power_cosine" from none at the first step.
      guidance_power: of "power_cosine".
      temperature: divides the logits that tokens are drawn from.
      temperature_schedule: "constant"; "titok", times 1.3 falling to 0.5; "halton", sharpened by
        1 rising to 1.2.
      choice_temperature: scale of the noise on the confidence, annealed to 0.
      top_k, top_p: classes that are drawn from, see draws.filtered.
      resample: draw revealed tokens anew at every step (Halton-MaskGIT's confidence sampler).
    """

    steps: int = 8
    rule: str = "maskgil"
    schedule: str = "arccos"
    guidance: float = 3.0
    guidance_form: str = "scale"
    guidance_ramp: str = "linear"
    guidance_power: float = 3.0
    temperature: float = 1.0
    temperature_schedule: str = "constant"
    choice_temperature: float = 4.5
    top_k: int = 0
    top_p: float = 1.0
    resample: bool = False

    def __post_init__(self) -> None:
        """Refuse what no decoding can use, whatever the number of tokens."""
        option_checks.check_types(self)
        for name, value, known in (
            ("rule", self.rule, RULES),
            ("guidance_form", self.guidance_form, schedules.GUIDANCE_FORMS),
            ("guidance_ramp", self.guidance_ramp, schedules.GUIDANCE_RAMPS),
            ("temperature_schedule", self.temperature_schedule, schedules.TEMPERATURES),
        ):
            if value not in known:
                raise ValueError(f"{name} = {value!r}, expected one of {sorted(known)}")
        if self.rule == "maskgil" and self.schedule not in schedules.REVEAL_CURVES:
            known_schedules = sorted(schedules.REVEAL_CURVES)
            raise ValueError(f"schedule = {self.schedule!r}, expected one of {known_schedules}")
        option_checks.check_divisor("temperature", [self.temperature])
        if self.guidance_power < 0:
            raise ValueError(f"guidance_power = {self.guidance_power}, expected 0 or more")
        token_sampling.check_kept(self.top_k, self.top_p)


class Rule(NamedTuple):
    """What the published samplers do differently.

    Attributes:
      counts: (schedule, steps, tokens) -> tokens revealed by each step.
      ramp: steps -> how far the guidance's ramp has come at each, 0 to 1.
      noise: steps -> share of the choice temperature at each.
      confidence: "log_probability" of the drawn token, its "logit" (whose noise acts on the draw as
        well), or "order": the place in Halton's order.
    """

    counts: Callable[[str, int, int], np.ndarray]
    ramp: Callable[[int], np.ndarray]
    noise: Callable[[int], np.ndarray]
    confidence: str


def _to_last(steps: int) -> np.ndarray:
    return np.linspace(0, 1, steps) if steps > 1 else np.ones(1)


def _past(steps: int) -> np.ndarray:
    return np.arange(steps) / steps


def _left(steps: int) -> np.ndarray:
    return 1 - np.arange(1, steps + 1) / steps


RULES = {
    # synbol/MaskGIL, Trainer/vit.py, and Besnier's MaskGIT-pytorch.
    "maskgil": Rule(
        schedules.maskgil_counts, _to_last, lambda steps: 1 - _to_last(steps), "log_probability"
    ),
    # google-research/maskgit, libml/parallel_decode.py.
    "maskgit": Rule(schedules.maskgit_counts, _to_last, _left, "log_probability"),
    # bytedance/1d-tokenizer, modeling/maskgit.py.
    "titok": Rule(schedules.maskgit_counts, _past, _left, "logit"),
    # markweberdev/maskbit, modeling/modules/sampling.py.
    "maskbit": Rule(schedules.maskgit_counts, _past, _left, "log_probability"),
    # valeoai/Halton-MaskGIT, Sampler/halton_sampler.py.
    "halton": Rule(schedules.halton_counts, _to_last, lambda steps: np.zeros(steps), "order"),
}

# The published settings, of ImageNet at 256 pixels where there are several.
PRESETS = {
    "maskgil": Options(),
    "maskgit": Options(steps=8, rule="maskgit", schedule="cosine", guidance=1.0),
    "maskgit_512": Options(steps=12, rule="maskgit", schedule="cosine", guidance=1.0),
    "besnier": Options(steps=8, guidance=3.0, guidance_form="weight", choice_temperature=4.5),
    "besnier_512": Options(steps=15, guidance=2.8, guidance_form="weight", choice_temperature=7.0),
    "halton": Options(
        steps=32,
        rule="halton",
        guidance=2.0,
        guidance_form="weight",
        guidance_ramp="constant",
        temperature_schedule="halton",
    ),
    "titok_l32": Options(
        steps=8,
        rule="titok",
        guidance=4.5,
        guidance_form="weight",
        temperature_schedule="titok",
        choice_temperature=9.5,
    ),
    "titok_s128": Options(
        steps=64,
        rule="titok",
        guidance=6.9,
        guidance_ramp="power_cosine",
        temperature_schedule="titok",
        choice_temperature=2.8,
    ),
    "maskbit": Options(
        steps=64,
        rule="maskbit",
        guidance=7.1,
        guidance_form="weight",
        guidance_ramp="power_cosine",
        choice_temperature=7.8,
    ),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What each of S steps does; hashable, so that it can be a static argument of jit.

    Attributes:
      hidden: tokens that may be revealed at each step, of the image with most of them.
      guidance: scale s of u + s (c - u); 1 is no guidance.
      temperature: divides the logits.
      choice_temperature: scale of the Gumbel noise added to the confidence.
      confidence: as in Rule.
      top_k, top_p, resample: as in Options.
    """

    hidden: tuple[int, ...]
    guidance: tuple[float, ...]
    temperature: tuple[float, ...]
    choice_temperature: tuple[float, ...]
    confidence: str
    top_k: int
    top_p: float
    resample: bool

    @property
    def guided(self) -> bool:
        """Whether any step needs the unconditional logits."""
        return any(scale != 1.0 for scale in self.guidance)


def plan(tokens: int | np.ndarray, **options: object) -> tuple[Plan, np.ndarray]:
    """The plan to reveal hidden tokens with the Options of these names.

    Args:
      tokens: hidden at the start; of each image, int [B], where images differ.
      **options: fields of Options.

    Returns:
      The plan, and the tokens that each step reveals of each image, int32 [S, B]; the last step
      reveals all that are left.

    Raises:
      ValueError: an unknown name, or a number that no decoding can use.
    """
    fields = [field.name for field in dataclasses.fields(Options)]
    if unknown := sorted(options.keys() - set(fields)):
        raise ValueError(f"decoding options {unknown}, expected some of {', '.join(fields)}")
    o = Options(**options)  # type: ignore[arg-type]
    tokens_B = np.atleast_1d(tokens)
    if not 1 <= o.steps <= max(1, tokens_B.max()):
        raise ValueError(
            f"steps = {o.steps}, expected 1 to {tokens_B.max()} (the number of tokens)"
        )
    rule = RULES[o.rule]
    guidance = schedules.guidance_scales(
        schedules.GUIDANCE_FORMS[o.guidance_form](o.guidance),
        *(o.guidance_ramp, rule.ramp(o.steps), o.guidance_power),
    )
    temperature = o.temperature * schedules.TEMPERATURES[o.temperature_schedule](o.steps)
    option_checks.check_float32(f"guidance = {o.guidance} ({o.guidance_form}): scale", guidance)
    option_checks.check_divisor("temperature", temperature)
    counts_of = {
        n: rule.counts(o.schedule, o.steps, n) if n else np.zeros(o.steps, np.int32)
        for n in np.unique(tokens_B).tolist()
    }
    counts_SB = np.stack([counts_of[n] for n in tokens_B.tolist()], axis=1)
    revealed_SB = np.cumsum(counts_SB, axis=0) - counts_SB
    hidden_SB = tokens_B - (np.zeros_like(revealed_SB) if o.resample else revealed_SB)
    return Plan(
        hidden=tuple(np.maximum(hidden_SB.max(axis=1), 0).tolist()),
        guidance=tuple(guidance.tolist()),
        temperature=tuple(temperature.tolist()),
        choice_temperature=tuple((o.choice_temperature * rule.noise(o.steps)).tolist()),
        confidence=rule.confidence,
        top_k=o.top_k,
        top_p=o.top_p,
        resample=o.resample,
    ), counts_SB


class Segment(NamedTuple):
    """Steps that one loop does, in arrays of one shape.

    Attributes:
      first, last: steps, `last` not included.
      tokens: room for this many hidden tokens.
      guided: any of the steps is.
    """

    first: int
    last: int
    tokens: int
    guided: bool


SEGMENTS = 8


def segments(plan: Plan) -> list[Segment]:
    """The steps in about SEGMENTS segments at most; few steps are a segment each.

    What is not hidden any more needs no logits, and what is not guided no unconditional pass; but
    each other shape is compiled anew.
    """
    steps, hidden = len(plan.hidden), plan.hidden
    length = -(-steps // SEGMENTS)
    cuts = {*range(0, steps, length), steps}
    cuts |= {i for i in range(1, steps) if (plan.guidance[i] == 1) != (plan.guidance[i - 1] == 1)}
    edges = sorted(cuts)
    return [
        Segment(a, b, hidden[a], any(scale != 1 for scale in plan.guidance[a:b]))
        for a, b in zip(edges[:-1], edges[1:], strict=True)
        if hidden[a]
    ]


def decode(
    predict: Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array],
    codes_BL: jax.Array,
    counts_SB: jax.Array,
    *,
    mask_id: int,
    plan: Plan,
    draw: Callable[
        [jax.Array, jax.Array, jax.Array, jax.Array | float],
        tuple[jax.Array, jax.Array, jax.Array],
    ],
    gumbel: Callable[[jax.Array], jax.Array],
    rank_BL: jax.Array,
) -> jax.Array:
    """Fill the hidden positions of `codes_BL` in as many steps as the plan has.

    Tokens that are known at the start are never changed, nor are those of earlier steps unless the
    plan draws them anew.

    Args:
      predict: (codes [B, L], positions [B, n], guidance scale [] or None for none) -> logits
        [B, n, V].
      codes_BL: int32; `mask_id` where hidden.
      counts_SB: tokens that each step reveals of each image; the last reveals all.
      mask_id: id of the mask.
      plan: what each step does.
      draw: (step [], logits [B, n, V], positions [B, n], divisor []) -> tokens int32 [B, n], drawn
        from softmax(logits / divisor), their log-probabilities, and their logits.
      gumbel: (step []) -> standard Gumbel noise [B, L].
      rank_BL: place of each position in the order, for confidence "order".

    Returns:
      int32 [B, L] without `mask_id`, unless `draw` returns it.

    Source: MaskGIT (Chang et al. 2022), section 3.2, and the files named in RULES.
    """
    known_BL = codes_BL != mask_id
    counts_SB = jnp.asarray(counts_SB).at[-1].set(codes_BL.shape[1])
    if plan.resample:
        counts_SB = jnp.cumsum(counts_SB, axis=0)
    xs = (
        jnp.arange(len(plan.hidden)),
        counts_SB,
        jnp.array(plan.guidance, jnp.float32),
        jnp.array(plan.temperature, jnp.float32),
        jnp.array(plan.choice_temperature, jnp.float32),
    )

    def step(
        segment: Segment, codes_BL: jax.Array, x: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, None]:
        index, count_B, guidance, temperature, choice_temperature = x
        open_BL = ~known_BL if plan.resample else codes_BL == mask_id
        positions_Bn = jnp.argsort(~open_BL, axis=1, stable=True)[:, : segment.tokens]

        def at_positions(array_BL: jax.Array) -> jax.Array:
            return jnp.take_along_axis(array_BL, positions_Bn, axis=1)

        logits_BnV = predict(codes_BL, positions_Bn, guidance if segment.guided else None)
        logits_BnV = logits_BnV / temperature
        noise_Bn = choice_temperature * at_positions(gumbel(index))
        # Noise of this scale on all logits makes a draw at this temperature; 0 is the maximum.
        sharp = plan.confidence == "logit"
        divisor = jnp.maximum(choice_temperature, 1e-6) if sharp else 1.0
        tokens_Bn, log_p_Bn, logit_Bn = draw(index, logits_BnV, positions_Bn, divisor)
        confidence_Bn = {
            "log_probability": log_p_Bn + noise_Bn,
            "logit": logit_Bn + noise_Bn,
            "order": -at_positions(rank_BL).astype(jnp.float32),
        }[plan.confidence]
        if plan.resample:
            revealed_Bn = at_positions(codes_BL != mask_id)
            confidence_Bn = jnp.where(revealed_Bn, jnp.inf, confidence_Bn)
        open_Bn = at_positions(open_BL)
        chosen_Bn = most_confident(jnp.where(open_Bn, confidence_Bn, -jnp.inf), count_B[:, None])
        tokens_Bn = jnp.where(open_Bn & chosen_Bn, tokens_Bn, at_positions(codes_BL))
        rows_B1 = jnp.arange(len(codes_BL))[:, None]
        return codes_BL.at[rows_B1, positions_Bn].set(tokens_Bn), None

    for segment in segments(plan):
        part = tuple(x[segment.first : segment.last] for x in xs)
        codes_BL, _ = jax.lax.scan(functools.partial(step, segment), codes_BL, part)
    return codes_BL


def most_confident(confidence_Bn: jax.Array, count: jax.Array) -> jax.Array:
    """Bool [B, n], true at the `count` largest of each row; ties go to the earlier position."""
    rank_Bn = jnp.argsort(jnp.argsort(-confidence_Bn, axis=-1, stable=True), axis=-1)
    return rank_Bn < count
