"""How many tokens each step of masked decoding reveals, and how strongly it is guided.

All of these run on the host: a decoding plan is a handful of numbers known before compilation.
"""

import math
import re
from collections.abc import Callable

import numpy as np

# Functions of `math`, rounded to float32, as the official codes compute: the same on every CPU.
# NumPy's own differ from CPU to CPU in the last bit, which can decide on a number of tokens.
_arccos = np.vectorize(math.acos, otypes=[np.float32])
_cos = np.vectorize(math.cos, otypes=[np.float32])
_exp2 = np.vectorize(math.exp2, otypes=[np.float32])
_log2 = np.vectorize(math.log2, otypes=[np.float32])
_power = np.vectorize(math.pow, otypes=[np.float32])

# Share of tokens revealed as the fraction of steps goes from 0 to 1: MaskGIL's `adap_sche` up to
# normalisation, at r = 1 - fraction.
REVEAL_CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "root": lambda r: 1 - np.sqrt(r),
    "linear": lambda r: 1 - r,
    "square": lambda r: 1 - r**2,
    "cosine": lambda r: _cos(r * np.float32(math.pi * 0.5)),
    "arccos": lambda r: _arccos(r) / np.float32(math.pi * 0.5),
}


def maskgil_counts(schedule: str, steps: int, tokens: int) -> np.ndarray:
    """Tokens revealed by each step, int32 [steps], as MaskGIL and Besnier's MaskGIT count them.

    The curve is normalised to `tokens`, rounded half to even, zeros become 1 and the last step
    takes the difference, which can be small or even negative (then earlier steps reveal all).

    Args:
      schedule: a key of REVEAL_CURVES.
      steps: 1 or more; one step reveals everything (the official code divides by zero there).
      tokens: number of masked tokens at the start.

    Source: synbol/MaskGIL, Trainer/vit.py, `adap_sche`.
    """
    if steps == 1:
        return np.array([tokens], np.int32)
    r = np.linspace(1, 0, steps, dtype=np.float32)
    curve = REVEAL_CURVES[schedule](r)
    total = np.float32(math.fsum(curve))
    counts = np.round(curve / total * np.float32(tokens)).astype(np.int32)
    counts[counts == 0] = 1
    counts[-1] += tokens - counts.sum()
    return counts


def mask_ratio(method: str, ratio: np.ndarray, tokens: int) -> np.ndarray:
    """Share of tokens still masked after a fraction `ratio` of the steps, float32 in [1e-6, 1].

    Args:
      method: "uniform", "cosine", "log", "exp", "arccos" or "powK" with a number K.
      ratio: (step + 1) / steps, in (0, 1].
      tokens: number of masked tokens at the start; "log" and "exp" depend on it.

    Source: google-research/maskgit, libml/mask_schedule.py (arccos: Besnier & Chen).
    """
    ratio = np.asarray(ratio, np.float32)
    if method == "uniform":
        masked = 1.0 - ratio
    elif power := re.fullmatch(r"pow(\d+(\.\d+)?)", method):
        masked = 1.0 - _power(ratio, float(power[1]))
    elif method == "cosine":
        masked = _cos(math.pi / 2.0 * ratio)
    elif method == "arccos":
        masked = _arccos(ratio) / (math.pi / 2.0)
    elif method == "log":
        masked = -_log2(ratio) / math.log2(tokens)
    elif method == "exp":
        masked = 1 - _exp2(-math.log2(tokens) * (1 - ratio))
    else:
        raise ValueError(
            f"mask schedule {method!r}, expected uniform, cosine, arccos, log, exp or powK"
        )
    return np.clip(masked, 1e-6, 1.0).astype(np.float32)


def maskgit_counts(schedule: str, steps: int, tokens: int) -> np.ndarray:
    """Tokens revealed by each step, int32 [steps], as google-research/maskgit counts them.

    floor(tokens * mask_ratio) tokens stay masked after a step, but at least one fewer than before
    and at least 1; the last step reveals all.
    """
    masked, counts = tokens, []
    for step in range(steps - 1):
        ratio = mask_ratio(schedule, np.array((step + 1) / steps), tokens)
        stay = max(1, min(masked - 1, math.floor(np.float32(tokens) * ratio)))
        counts.append(masked - stay)
        masked = stay
    return np.array([*counts, masked], np.int32)


def named_counts(schedule: str, steps: int, tokens: int) -> np.ndarray:
    """Tokens revealed by each step, int32 [steps]: of a curve of MaskGIL's as there, or MaskGIT's.

    Args:
      schedule: a key of REVEAL_CURVES, as in `maskgil_counts`; or another of `mask_ratio`, as in
        `maskgit_counts`, where "uniform" is one token a step with as many steps as tokens.
      steps, tokens: as there.
    """
    counts = maskgil_counts if schedule in REVEAL_CURVES else maskgit_counts
    return counts(schedule, steps, tokens)


def dimoo_counts(schedule: str, steps: int, tokens: int) -> np.ndarray:
    """Tokens revealed by each step, int32 [steps], as Lumina-DiMOO counts them.

    As google-research/maskgit, but at least one at each step, as long as there are any: where there
    are more steps than tokens, the last ones reveal none.

    Source: Alpha-VLLM/Lumina-DiMOO, generators/image_generation_generator.py.
    """
    ratios = np.arange(1, steps) / steps
    stay = np.floor(np.float32(tokens) * mask_ratio(schedule, ratios, tokens)).astype(int)
    masked, counts = tokens, []
    for keep in [*np.maximum(stay, 1).tolist(), 0]:
        left = max(0, min(keep, masked - 1))
        counts.append(masked - left)
        masked = left
    return np.array(counts, np.int32)


def halton_counts(schedule: str, steps: int, tokens: int) -> np.ndarray:
    """Tokens revealed by each step, int32 [steps]; always along arccos.

    Source: valeoai/Halton-MaskGIT, Sampler/halton_sampler.py.
    """
    if schedule != "arccos":
        raise ValueError(f"schedule = {schedule!r}, expected arccos (of rule halton)")
    ratio = (np.arange(1, steps + 1) / steps).astype(np.float32)
    revealed = ((1 - _arccos(ratio) / (math.pi / 2)) * tokens).astype(int)
    return np.diff(np.maximum(revealed, np.arange(1, steps + 1)), prepend=0).astype(np.int32)


# What multiplies the temperature at each step.
TEMPERATURES: dict[str, Callable[[int], np.ndarray]] = {
    "constant": np.ones,
    # bytedance/1d-tokenizer: `softmax_temperature_annealing`.
    "titok": lambda steps: 0.5 + 0.8 * (1 - np.arange(1, steps + 1) / steps),
    # valeoai/Halton-MaskGIT: logits times 1 rising to 1.2.
    "halton": lambda steps: 1 / np.linspace(1.0, 1.2, steps),
}

# Share of the guidance that acts, as the fraction of steps goes from 0 to 1.
GUIDANCE_RAMPS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "constant": lambda x, power: np.ones_like(x),
    "linear": lambda x, power: x,
    "cosine": lambda x, power: (1 - np.cos(np.pi * x)) / 2,
    # bytedance/1d-tokenizer and markweberdev/maskbit.
    "power_cosine": lambda x, power: (1 - np.cos(np.pi * x**power)) / 2,
}


# Scale s of u + s (c - u), c and u being conditional and unconditional logits, of a number g in
# each published form.
GUIDANCE_FORMS: dict[str, Callable[[float], float]] = {
    "scale": lambda g: g,  # u + g (c - u)
    "weight": lambda g: 1 + g,  # (1 + g) c - g u, which is c + g (c - u)
}


def guidance_scales(
    scale: float, ramp: str, fraction: np.ndarray, power: float = 3.0
) -> np.ndarray:
    """Scale s of u + s (c - u) at each step, float32, from 1 (no guidance) to `scale`.

    Args:
      scale: at the end of the ramp.
      ramp: key of GUIDANCE_RAMPS.
      fraction: how far the ramp has come at each step, 0 to 1.
      power: of "power_cosine", 3 in both published samplers that have it.
    """
    return (1 + (scale - 1) * GUIDANCE_RAMPS[ramp](fraction, power)).astype(np.float32)


def in_interval(scales: np.ndarray, first: float, last: float) -> np.ndarray:
    """Scales of guidance, 1 but at the steps from a share `first` of them to a share `last`.

    Source: Kynkaanniemi et al. 2024 (arXiv 2404.07724), whose interval is of noise levels.
    """
    steps = len(scales)
    at = (np.arange(steps) + 0.5) / steps  # the middle of each step
    return np.where((first <= at) & (at <= last), scales, np.float32(1))
