"""Codes drawn by a model: masked, token by token, or a hybrid of both.

Rules, schedules and options are those of maskgil_jax (`python -m maskgil_jax.sample --help`), and
so are the codes, given the same noise.

Letters: B batch, L = h * w tokens, F digits of a code (1, unless a model cuts its codes), V classes
of the head (of all digits side by side), S steps.
"""

import dataclasses
import itertools
import math
import random
from typing import Any

import torch
from torch import Tensor

from .network import MaskGIL, halton
from .schedules import RULES, TEMPERATURES, guidance_scales

# Class ids [B]; features [B, c, C]; or a pair of them and a mask, bool [B, c], false at padding.
Condition = Tensor | tuple[Tensor, Tensor]


def sample(
    model: MaskGIL,
    condition: Condition,
    *,
    seed: int = 0,
    start: int = 0,
    method: str = "",
    grid: tuple[int, int] | None = None,
    negative: Condition | None = None,
    noise: "Noise | None" = None,
    prefix: int = 0,
    prefix_model: MaskGIL | None = None,
    **options: Any,
) -> Tensor:
    """Codes of an image for each condition, integers [B, h, w].

    Args:
      model: the network.
      condition: see Condition; zeros [B] for a model without conditions.
      seed, start: image i of the batch depends on the seed, on start + i and on its condition.
      method: "masked", "autoregressive" or "hybrid"; "": by the model.
      grid: (height, width) in tokens; None: the model's own.
      negative: what guidance leads away from; None: the null condition.
      noise: in place of that of the seed.
      prefix: of method "hybrid": tokens that are drawn one by one.
      prefix_model: which draws these; None: `model`, which was then trained to.
      **options: fields of Masked; of Causal, for method "autoregressive"; of method "hybrid" those
        of Masked, and of Causal as prefix_guidance, prefix_top_k, ...
    """
    noise = noise or Noise(seed, start, len(_tensors(condition)[0]))
    given: dict[str, Any] = dict(noise=noise, grid=grid, negative=negative)
    method = method or ("autoregressive" if model.config["causal"] else "masked")
    if method == "masked":
        return sample_masked(model, condition, **given, **options)
    if method == "autoregressive":
        return sample_causal(model, condition, **given, **options)
    if method != "hybrid":
        raise ValueError(f"method = {method!r}, expected masked, autoregressive or hybrid")
    of_prefix = {name: options.pop(name) for name in [*options] if name.startswith("prefix_")}
    of_prefix = {name.removeprefix("prefix_"): value for name, value in of_prefix.items()}
    first = prefix_model or model
    sizes = [one.config["codebook_size"] for one in (first, model)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"codebooks of {sizes[0]} and {sizes[1]} codes, expected the same codes")
    codes = sample_causal(first, condition, tokens=prefix, **given, **of_prefix)
    # Another model's prefix is but known codes; its own it reads as in training.
    known = 0 if prefix_model else prefix
    return sample_masked(model, condition, codes=codes, prefix=known, **given, **options)


@dataclasses.dataclass(frozen=True)
class Masked:
    """Options of masked decoding.

    Attributes:
      steps: 1 to the number of masked tokens.
      rule: "maskgil", "maskgit", "titok", "maskbit" or "halton".
      schedule: of the number of revealed tokens: "arccos", "cosine", "linear", "square", "root" for
        rule "maskgil"; "arccos" for "halton"; "cosine", "arccos", "uniform", "log", "exp", "powK"
        for the others.
      guidance: None: 3, or none for a model without conditions.
      guidance_form: "scale", u + guidance (c - u) of unconditional and conditional logits, where 1
        is none; or "weight", (1 + guidance) c - guidance u, where 0 is none.
      guidance_ramp: "constant"; "linear", "cosine" or "power_cosine" from none at the first step.
      temperature: divides the logits that tokens are drawn from.
      temperature_schedule: "constant", "titok" or "halton".
      choice_temperature: scale of the noise on the confidence, annealed to 0.
      top_k, top_p: classes that are drawn from; 0 and 1: all.
    """

    steps: int = 8
    rule: str = "maskgil"
    schedule: str = "arccos"
    guidance: float | None = None
    guidance_form: str = "scale"
    guidance_ramp: str = "linear"
    temperature: float = 1.0
    temperature_schedule: str = "constant"
    choice_temperature: float = 4.5
    top_k: int = 0
    top_p: float = 1.0


@dataclasses.dataclass(frozen=True)
class Causal:
    """Options of decoding token by token.

    Attributes:
      guidance: scale s of u + s (c - u); None: 2, or none for a model without conditions.
      guidance_interval: guide the first token and as many after it; -1 guides all.
      temperature: divides the logits; 0: the likeliest codes.
      top_k, top_p: classes that are drawn from; 0 and 1: all.
    """

    guidance: float | None = None
    guidance_interval: int = -1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class Noise:
    """The random numbers of images start .. start + batch - 1, those of each from its own seed."""

    def __init__(self, seed: int, start: int, batch: int):
        # PyTorch uses 32 bits of a generator's seed.
        seeds = [random.Random(f"{seed} {start + i}").getrandbits(32) for i in range(batch)]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(self, step: int, L: int, F: int) -> Tensor:
        """[B, L, F] in [0, 1), which codes are drawn by at a step of masked decoding."""
        return torch.stack([torch.rand(L, F, generator=g) for g in self.generators])

    def gumbel(self, step: int, L: int) -> Tensor:
        """Standard Gumbel noise [B, L], for the confidence of a step."""
        return -self.uniform(step, L, 1)[..., 0].clamp(min=1e-30).log().neg().log()

    def offset(self, L: int) -> Tensor:
        """Integers [B] in 0 .. L - 1: where Halton's order begins."""
        return torch.cat([torch.randint(L, (1,), generator=g) for g in self.generators])

    def token(self, index: int, F: int) -> Tensor:
        """[B, F] in [0, 1), which the token at this place is drawn by, token by token."""
        return self.uniform(index, 1, F)[:, 0]


@torch.inference_mode()
def sample_masked(
    model: MaskGIL,
    condition: Condition,
    *,
    noise: Noise,
    negative: Condition | None = None,
    codes: Tensor | None = None,
    prefix: int = 0,
    grid: tuple[int, int] | None = None,
    **options: Any,
) -> Tensor:
    """Masked decoding: predict, draw, confidence, reveal; see `sample`.

    Args:
      model, condition, noise, negative, grid: as in `sample`.
      codes: integers [B, h, w] to begin with, the mask's id where something is to be drawn.
      prefix: tokens of `codes`, the first in the model's order, that it reads as a causal prefix.
      **options: fields of Masked.
    """
    o, mask_id = Masked(**options), model.config["codebook_size"]
    rule = RULES[o.rule]
    if codes is None:
        shape = (len(_tensors(condition)[0]), *(grid or model.config["grid"]))
        codes = torch.full(shape, mask_id)
    codes, (height, width) = codes.to(model.device), codes.shape[1:]
    L, tokens_B = height * width, (codes == mask_id).sum(dim=(1, 2)).tolist()
    if not any(tokens_B):
        return codes
    if not 1 <= o.steps <= max(tokens_B):
        raise ValueError(f"steps = {o.steps}, expected 1 to {max(tokens_B)} (masked tokens)")
    none = torch.zeros(o.steps, dtype=torch.int64)
    counts_BS = torch.stack([rule.counts(o.schedule, o.steps, n) if n else none for n in tokens_B])
    counts_BS[:, -1] = L
    divisors = (o.temperature * TEMPERATURES[o.temperature_schedule](o.steps)).tolist()
    choices = (o.choice_temperature * rule.noise(o.steps)).tolist()
    rank_BL = (torch.argsort(halton(height, width)) + noise.offset(L)[:, None]) % L

    for step, scale in enumerate(_scales(o, model)):
        logits = guided_logits(model, codes, condition, negative, scale, prefix)
        logits = logits[..., :mask_id].float() / divisors[step]  # a mask is never drawn
        # Noise of this scale on all logits makes a draw at this temperature.
        sharp = max(choices[step], 1e-6) if rule.confidence == "logit" else 1.0
        sizes = model.vocabularies
        uniform_BLF = noise.uniform(step, L, len(sizes)).to(logits)
        drawn_BL, log_p_BL, logit_BL = draw(uniform_BLF, logits, sizes, sharp, o.top_k, o.top_p)
        gumbel_BL = choices[step] * noise.gumbel(step, L).to(logits)
        confidence_BL = {
            "log_probability": log_p_BL + gumbel_BL,
            "logit": logit_BL + gumbel_BL,
            "order": -rank_BL.to(logits),
        }[rule.confidence]
        masked_BL = codes.flatten(1) == mask_id
        revealed_BL = most_confident(confidence_BL, masked_BL, counts_BS[:, step])
        codes = torch.where(revealed_BL.view_as(codes), drawn_BL.view_as(codes), codes)
    return codes


def _scales(o: Masked, model: MaskGIL) -> list[float]:
    """Scale s of u + s (c - u) at each step."""
    unguided = {"scale": 1.0, "weight": 0.0}[o.guidance_form]
    last = _guidance(o.guidance, 3.0, model.config, unguided) + 1 - unguided
    return guidance_scales(last, o.guidance_ramp, RULES[o.rule].ramp(o.steps))


def most_confident(confidence_BL: Tensor, masked_BL: Tensor, count_B: Tensor) -> Tensor:
    """Bool [B, L], true at the most confident masked tokens of each image, `count` of them."""
    order_BL = confidence_BL.masked_fill(~masked_BL, -math.inf).argsort(
        dim=1, descending=True, stable=True
    )
    among_BL = torch.arange(order_BL.shape[1]) < count_B[:, None]
    return (
        torch.zeros_like(masked_BL).scatter(1, order_BL, among_BL.to(masked_BL.device)) & masked_BL
    )


@torch.inference_mode()
def sample_causal(
    model: MaskGIL,
    condition: Condition,
    *,
    noise: Noise,
    negative: Condition | None = None,
    tokens: int | None = None,
    grid: tuple[int, int] | None = None,
    **options: Any,
) -> Tensor:
    """Decoding token by token, with a cache of keys and values; see `sample`.

    Args:
      model, condition, noise, negative, grid: as in `sample`; `model` may be of both kinds.
      tokens: to draw, the first in the model's order; the rest is the mask's id. None: all.
      **options: fields of Causal.
    """
    o, model = Causal(**options), model if model.config["causal"] else model.as_causal()
    height, width = grid or model.config["grid"]
    order = model.order(height, width)[:tokens].tolist()
    scale = _guidance(o.guidance, 2.0, model.config)
    embedded, mask = both = _tensors(condition, model.device)
    B = len(embedded)
    if scale != 1:
        embedded, mask = _joined(both, _negative(model, both, negative))
    x, table = model.embed_condition(embedded), model.rotations(height, width)
    allowed: Any = model.allowed(x.shape[1] + len(order), mask)
    codes_BL = torch.full((B, height * width), model.config["codebook_size"], device=model.device)
    cache: list[Any] = [None] * len(model.layers)
    end = 0
    for index, place in enumerate(order):
        begin, end = end, end + x.shape[1]
        x = model.run(x, table[begin:end], allowed[:, :, begin:end, :end], cache)
        logits = model.classify(x[:, -1]).float()
        if len(logits) > B:
            c, u = logits.chunk(2)
            logits = u + scale * (c - u)
        uniform_BF = noise.token(index, len(model.vocabularies)).to(logits)
        divisor = max(o.temperature, 1e-5)
        codes_BL[:, place], *_ = draw(
            uniform_BF, logits, model.vocabularies, divisor, o.top_k, o.top_p
        )
        if index == o.guidance_interval:  # the negative half is dropped
            cache, allowed = [(k[:B], v[:B]) for k, v in cache], allowed[:B]
        x = model.embed_codes(codes_BL[:, place, None]).repeat(len(cache[0][0]) // B, 1, 1)
    return codes_BL.view(B, height, width)


def guided_logits(
    model: MaskGIL,
    codes: Tensor,
    condition: Condition,
    negative: Condition | None,
    scale: float,
    prefix: int = 0,
) -> Tensor:
    """Logits u + scale (c - u) of a negative and a positive condition, [B, L, V]."""
    given = _tensors(condition, model.device)
    if scale == 1:
        return model.digits(codes, *given, prefix)
    both = _joined(given, _negative(model, given, negative))
    c, u = model.digits(torch.cat([codes, codes]), *both, prefix).chunk(2)
    return u + scale * (c - u)


def draw(
    uniform: Tensor, logits: Tensor, sizes: list[int], divisor: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A code of each position, one digit at a time.

    Args:
      uniform: [..., F] in [0, 1).
      logits: [..., V].
      sizes: of the vocabularies of the digits, the first of which counts the least.
      divisor: of the logits.
      top_k, top_p: see `filtered`.

    Returns:
      The codes [...], their log-probabilities, and their logits before the division.
    """
    if not torch.isfinite(logits / divisor).all():
        raise ValueError("logits are not finite: no code can be drawn")
    code, place = torch.zeros_like(logits[..., 0], dtype=torch.int64), 1
    log_p, logit = torch.zeros_like(logits[..., 0]), torch.zeros_like(logits[..., 0])
    # The only vocabulary may lack a column, which is then not drawn from.
    parts = logits.tensor_split([*itertools.accumulate(sizes[:-1])], dim=-1)
    for f, of_digit in enumerate(parts):
        log_ps = filtered(of_digit, top_k, top_p, divisor).log_softmax(-1)
        cumulative = log_ps.exp().cumsum(-1)
        target = uniform[..., f, None] * cumulative[..., -1:]
        digit = torch.searchsorted(cumulative, target, right=True)
        # Rounding may leave the target beyond the sum; what has no probability is still not drawn.
        digit = torch.minimum(digit, (log_ps > -math.inf).cumsum(-1).argmax(-1, keepdim=True))
        log_p = log_p + log_ps.gather(-1, digit)[..., 0]
        logit = logit + of_digit.gather(-1, digit)[..., 0]
        code, place = code + place * digit[..., 0], place * sizes[f]
    return code, log_p, logit


def filtered(logits: Tensor, top_k: int, top_p: float, divisor: float) -> Tensor:
    """Logits / divisor; -inf but for the top_k likeliest, the fewest of them that reach top_p."""
    logits, original = logits / divisor, logits
    if top_k:
        least = original.topk(min(top_k, original.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(original < least, -math.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        p = ordered.softmax(-1)
        beyond = p.cumsum(-1) - p > top_p
        beyond[..., 0] = False
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -math.inf)
    return logits


def _guidance(
    given: float | None, default: float, config: dict[str, Any], unguided: float = 1.0
) -> float:
    """The guidance; by default that of a model with conditions, or none."""
    has_conditions = bool(config["num_classes"] or config["feature_dim"])
    if not has_conditions and given not in (None, unguided):
        raise ValueError(f"guidance = {given}, but this model is unconditional: expected none")
    if given is None:
        return default if has_conditions else unguided
    return given


Pair = tuple[Tensor, Tensor | None]  # class ids, or features and their mask


def _tensors(condition: Condition, device: torch.device | None = None) -> Pair:
    if isinstance(condition, Tensor):
        return condition.to(device), None
    return condition[0].to(device), condition[1].to(device)


def _negative(model: MaskGIL, given: Pair, negative: Condition | None) -> Pair:
    if negative is None:
        return model.null_condition(given[0]), given[1]
    return _tensors(negative, model.device)


def _joined(first: Pair, second: Pair) -> Pair:
    """Both in one batch; all of what has no mask is visible."""
    joined = torch.cat([first[0], second[0]])
    if first[1] is None and second[1] is None:
        return joined, None
    masks = [m if m is not None else x.new_ones(x.shape[:2]).bool() for x, m in (first, second)]
    return joined, torch.cat(masks)
