"""What each step of masked decoding does: numbers that are known before the first.

As decoding/schedules.py and decoding/masked_options.py of maskgil_jax, which name the sources.

Letters: S steps.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def _each(function: Callable[[float], float], x: Tensor) -> Tensor:
    """A function of `math` of every number, rounded to float32: the same on every CPU.

    PyTorch's own differ from CPU to CPU in the last bit, which can decide on a number of tokens.
    """
    return torch.tensor([function(number) for number in x.flatten().tolist()]).reshape(x.shape)


# How many tokens each step reveals. MaskGIL and Besnier's MaskGIT: shares of a curve.
REVEAL_CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "root": lambda r: 1 - _each(math.sqrt, r),
    "linear": lambda r: 1 - r,
    "square": lambda r: 1 - r**2,
    "cosine": lambda r: _each(math.cos, r * math.pi * 0.5),
    "arccos": lambda r: _each(math.acos, r) / (math.pi * 0.5),
}


def maskgil_counts(schedule: str, steps: int, tokens: int) -> Tensor:
    """The curve's shares of the tokens, at least 1; the last step takes the difference."""
    if steps == 1:
        return torch.tensor([tokens])
    curve = REVEAL_CURVES[schedule](torch.linspace(1, 0, steps, dtype=torch.float64).float())
    counts = (curve / math.fsum(curve.tolist()) * tokens).round().long().clamp(min=1)
    counts[-1] += tokens - counts.sum()
    return counts


def maskgit_counts(schedule: str, steps: int, tokens: int) -> Tensor:
    """What is not masked any more, where `mask_share` of the tokens stay masked after a step."""
    masked, counts = tokens, []
    for step in range(1, steps):
        share = mask_share(schedule, torch.tensor(step / steps), tokens).clamp(1e-6, 1.0)
        stay = max(1, min(masked - 1, int((tokens * share).floor())))
        counts.append(masked - stay)
        masked = stay
    return torch.tensor([*counts, masked])


def mask_share(schedule: str, ratio: Tensor, tokens: int) -> Tensor:
    """Share of tokens that are masked after this ratio of the steps."""
    if schedule.startswith("pow"):
        return 1 - _each(lambda x: math.pow(x, float(schedule[3:])), ratio)
    return {
        "uniform": lambda: 1 - ratio,
        "cosine": lambda: _each(math.cos, math.pi / 2 * ratio),
        "arccos": lambda: _each(math.acos, ratio) / (math.pi / 2),
        "log": lambda: -_each(math.log2, ratio) / math.log2(tokens),
        "exp": lambda: 1 - _each(math.exp2, -math.log2(tokens) * (1 - ratio)),
    }[schedule]()


def halton_counts(schedule: str, steps: int, tokens: int) -> Tensor:
    """Along arccos, at least 1 a step."""
    if schedule != "arccos":
        raise ValueError(f"schedule = {schedule!r}, expected arccos (of rule halton)")
    step = torch.arange(1, steps + 1)
    share = 1 - _each(math.acos, step / steps) / (math.pi / 2)
    return (share * tokens).long().maximum(step).diff(prepend=torch.zeros(1, dtype=torch.long))


class Rule(NamedTuple):
    """What the published samplers do differently.

    Attributes:
      counts: (schedule, steps, tokens) -> tokens that each step reveals, [S].
      ramp: steps -> how far the guidance's ramp has come at each, [S].
      noise: steps -> share of the choice temperature at each, [S].
      confidence: "log_probability" of the drawn code, its "logit", or "order", Halton's.
    """

    counts: Callable[[str, int, int], Tensor]
    ramp: Callable[[int], Tensor]
    noise: Callable[[int], Tensor]
    confidence: str


def _to_last(steps: int) -> Tensor:
    one = torch.ones(1, dtype=torch.float64)
    return torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else one


def _past(steps: int) -> Tensor:
    return torch.arange(steps, dtype=torch.float64) / steps


def _left(steps: int) -> Tensor:
    return 1 - torch.arange(1, steps + 1, dtype=torch.float64) / steps


RULES = {
    "maskgil": Rule(maskgil_counts, _to_last, lambda S: 1 - _to_last(S), "log_probability"),
    "maskgit": Rule(maskgit_counts, _to_last, _left, "log_probability"),
    "titok": Rule(maskgit_counts, _past, _left, "logit"),
    "maskbit": Rule(maskgit_counts, _past, _left, "log_probability"),
    "halton": Rule(halton_counts, _to_last, lambda S: torch.zeros(S), "order"),
}

# What multiplies the temperature at each step.
TEMPERATURES: dict[str, Callable[[int], Tensor]] = {
    "constant": torch.ones,
    "titok": lambda S: 0.5 + 0.8 * _left(S),
    "halton": lambda S: 1 / torch.linspace(1.0, 1.2, S, dtype=torch.float64),
}


GUIDANCE_RAMPS: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": torch.ones_like,
    "linear": lambda x: x,
    "cosine": lambda x: (1 - torch.cos(math.pi * x)) / 2,
    "power_cosine": lambda x: (1 - torch.cos(math.pi * x**3)) / 2,
}


def guidance_scales(last: float, ramp: str, fraction: Tensor) -> list[float]:
    """Scale s of u + s (c - u) at each step, from 1 (none) to `last` along the ramp."""
    return (1 + (last - 1) * GUIDANCE_RAMPS[ramp](fraction)).float().tolist()
