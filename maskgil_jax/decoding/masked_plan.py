"""What each step of masked decoding does: its plan, which is compiled, and the numbers in it.

Letters: B batch, S steps.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from maskgil_jax.decoding import choosing, option_checks, schedules
from maskgil_jax.decoding.masked_options import RULES, Options


@dataclasses.dataclass(frozen=True)
class Plan:
    """What each of S steps does; hashable, so that it can be a static argument of jit.

    Attributes:
      masked: tokens that are masked before each step, of the image with most of them.
      guided: whether each step needs the unconditional logits.
      confidence: as in Rule.
      top_k, top_p: as in Options.
      all_tokens: whether each step runs all tokens.
      cache_ratio: share of tokens that the other steps do not run.
      adaptive: whether steps reveal more than their tokens, as much as an entropy budget allows, so
        that images may be done before the last step.
      remasks: whether steps mask some tokens again.
      random_start: as in Options.
    """

    masked: tuple[int, ...]
    guided: tuple[bool, ...]
    confidence: str
    top_k: int
    top_p: float
    all_tokens: tuple[bool, ...]
    cache_ratio: float = 0.0
    adaptive: bool = False
    remasks: bool = False
    random_start: float = 0.0

    @property
    def passes_S(self) -> tuple[float, ...]:
        """Evaluations of the network for an image at each step: two where it is guided.

        Of a step that runs a share of the tokens, that share of them.
        """
        shares = [1.0 if every else 1 - self.cache_ratio for every in self.all_tokens]
        return tuple(share * (1 + two) for share, two in zip(shares, self.guided, strict=True))

    @property
    def passes(self) -> float:
        """Evaluations of the network that an image takes; at most, where the plan is adaptive."""
        return sum(self.passes_S[step] for step in steps_that_run(self))


class Numbers(NamedTuple):
    """Arrays of one plan that may change from draw to draw, without another compilation.

    Attributes:
      counts_SB: tokens that each step reveals of each image, int32; the last step reveals all that
        are left.
      guidance_S: scale s of u + s (c - u), float32; 1 is no guidance.
      temperature_S: divides the logits, float32; 0 is their maximum.
      choice_temperature_S: scale of the Gumbel noise added to the confidence, float32.
      entropy_budget_S: nats that may be revealed beyond these tokens, float32.
      remask_S: share of the most tokens that can be masked again, float32.
    """

    counts_SB: Any
    guidance_S: Any
    temperature_S: Any
    choice_temperature_S: Any
    entropy_budget_S: Any
    remask_S: Any


def plan(tokens: int | np.ndarray, /, **options: object) -> tuple[Plan, Numbers]:
    """The plan to reveal masked tokens with the Options of these names.

    Args:
      tokens: masked at the start; of each image, int [B], where images differ.
      **options: fields of Options.

    Raises:
      ValueError: an unknown name, or a number that no decoding can use.
    """
    fields = [field.name for field in dataclasses.fields(Options)]
    if unknown := sorted(options.keys() - set(fields)):
        raise ValueError(f"decoding options {unknown}, expected some of {', '.join(fields)}")
    o = Options(**options)  # type: ignore[arg-type]
    tokens_B = np.atleast_1d(tokens)
    rule = RULES[o.rule]
    if o.steps < 1 or (o.steps > max(1, tokens_B.max()) and not rule.ends_early):
        raise ValueError(
            f"steps = {o.steps}, expected 1 to {tokens_B.max()} (the number of tokens)"
        )
    guidance = schedules.guidance_scales(
        schedules.GUIDANCE_FORMS[o.guidance_form](o.guidance), o.guidance_ramp, rule.ramp(o.steps)
    )
    guidance = schedules.in_interval(guidance, o.guidance_from, o.guidance_to)
    temperature = o.temperature * schedules.TEMPERATURES[o.temperature_schedule](o.steps)
    option_checks.check_float32(f"guidance = {o.guidance} ({o.guidance_form}): scale", guidance)
    if o.temperature:
        option_checks.check_divisor("temperature", temperature)
    counts_SB = _counts(o, tokens_B)
    masked_SB = _masked(tokens_B, counts_SB, remasks=o.remask > 0)
    planned = Plan(
        masked=tuple(np.maximum(masked_SB.max(axis=1), 0).tolist()),
        guided=tuple((guidance != 1).tolist()),
        confidence=rule.confidence,
        top_k=o.top_k,
        top_p=o.top_p,
        all_tokens=_all_tokens(o),
        cache_ratio=o.cache_ratio,
        adaptive=o.entropy_budget > 0,
        remasks=o.remask > 0,
        random_start=o.random_start,
    )
    scales_S = (
        guidance,
        temperature,
        o.choice_temperature * rule.noise(o.steps),
        np.full(o.steps, o.entropy_budget),
        np.full(o.steps, o.remask),
    )
    return planned, Numbers(counts_SB, *(x.astype(np.float32) for x in scales_S))


def _masked(tokens_B: np.ndarray, counts_SB: np.ndarray, remasks: bool) -> np.ndarray:
    """Tokens that are masked where each step predicts, [S, B]; at most, where it remasks some."""
    revealed_SB = np.cumsum(counts_SB, axis=0) - counts_SB
    masked_SB = tokens_B - revealed_SB
    if not remasks:
        return masked_SB
    return masked_SB + np.asarray(choosing.most_remasked(masked_SB, revealed_SB, counts_SB))


def _all_tokens(options: Options) -> tuple[bool, ...]:
    """Whether each step runs all tokens, with a cache."""
    if not options.cache_ratio:
        return (True,) * options.steps
    since_warmup = np.arange(options.steps) - int(options.steps * options.cache_warmup)
    return tuple(((since_warmup <= 0) | (since_warmup % options.cache_refresh == 0)).tolist())


def _counts(options: Options, tokens_B: np.ndarray) -> np.ndarray:
    """Tokens that each step reveals of each image, int32 [S, B]."""
    rule, steps = RULES[options.rule], options.steps
    counts_by_tokens = {
        n: rule.counts(options.schedule, steps, n) if n else np.zeros(steps, np.int32)
        for n in np.unique(tokens_B).tolist()
    }
    return np.stack([counts_by_tokens[n] for n in tokens_B.tolist()], axis=1)


class Segment(NamedTuple):
    """Steps that one loop does, in arrays of one shape.

    Attributes:
      first, last: steps, `last` not included.
      tokens: room for this many masked tokens.
      guided: any of the steps is.
    """

    first: int
    last: int
    tokens: int
    guided: bool


SEGMENTS = 8


def segments(plan: Plan) -> list[Segment]:
    """The steps in about SEGMENTS segments at most; few steps are a segment each.

    What is not masked any more needs no logits, and what is not guided no unconditional pass; but
    each other shape is a compilation more.
    """
    steps, masked = len(plan.masked), plan.masked
    length = -(-steps // SEGMENTS)
    cuts = {*range(0, steps, length), steps}
    cuts |= {i for i in range(1, steps) if plan.guided[i] != plan.guided[i - 1]}
    edges = sorted(cuts)
    return [
        Segment(a, b, masked[a], any(plan.guided[a:b]))
        for a, b in zip(edges[:-1], edges[1:], strict=True)
        if masked[a]
    ]


def steps_that_run(plan: Plan) -> list[int]:
    """All but the last ones, where there are more steps than tokens."""
    return [i for segment in segments(plan) for i in range(segment.first, segment.last)]
