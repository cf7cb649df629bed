"""How masked tokens are decoded: options, the published rules, and the published settings."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from maskgil_jax.decoding import option_checks, schedules, token_sampling


@dataclasses.dataclass(frozen=True)
class Options:
    """How to decode; `PRESETS` holds the published settings.

    Attributes:
      steps: 1 to the number of masked tokens; more of rule "dimoo", which then ends early.
      rule: key of RULES.
      schedule: of the number of revealed tokens: "arccos", "cosine", "linear", "square", "root" for
        rule "maskgil"; "cosine", "arccos", "uniform", "log", "exp", "powK" for the others but
        "halton", whose own is arccos. "moment", "choose" and "entropy" know both kinds, and
        "arccos" and "cosine" as "maskgil" does.
      guidance: how far the logits go from unconditional (u) to conditional (c) ones and beyond.
      guidance_form: "scale", u + guidance (c - u), where 1 is no guidance; or "weight",
        (1 + guidance) c - guidance u, where 0 is none. In papers both are called the CFG scale.
      guidance_ramp: "constant"; "linear", "cosine" or "power_cosine" from none at the first step.
      guidance_from, guidance_to: share of the steps before those that are guided, and at their end:
        the others run no unconditional pass (the interval of Kynkaanniemi et al. 2024, arXiv
        2404.07724, in steps).
      temperature: divides the logits that tokens are drawn from; of rule "dimoo" also 0, for the
        likeliest ones.
      temperature_schedule: "constant"; "titok", times 1.3 falling to 0.5; "halton", sharpened by
        1 rising to 1.2.
      choice_temperature: scale of the noise on the confidence, annealed to 0 but for "dimoo"; of
        "halton" and "entropy" there is none.
      top_k, top_p: classes that are drawn from, see token_sampling.filtered.
      entropy_budget: nats of entropy that each step may reveal at once beyond the tokens that it
        reveals anyway, see choosing.within_budget; how many steps an image needs then depends on
        the image, and `steps` is the most. 0: each step reveals its number of tokens.
      remask: share of the most tokens that each step can mask again, those drawn with the least
        probability rather than others, see choosing.remasked; 0: none are.
      cache_ratio: share of tokens that most steps do not run but take as they were
        (models/token_models/kept_tokens.py), of masked LLaMAs; 0: all steps run all.
      cache_warmup: share of the steps, the first, that run all tokens nevertheless.
      cache_refresh: after those, each so-manieth step runs all.
      random_start: share of the masked tokens that the one step of a one-step student reads as
        codes drawn at random (training/one_step.py); 0: it reads masks.
    """

    steps: int = 8
    rule: str = "maskgil"
    schedule: str = "arccos"
    guidance: float = 3.0
    guidance_form: str = "scale"
    guidance_ramp: str = "linear"
    guidance_from: float = 0.0
    guidance_to: float = 1.0
    temperature: float = 1.0
    temperature_schedule: str = "constant"
    choice_temperature: float = 4.5
    top_k: int = 0
    top_p: float = 1.0
    entropy_budget: float = 0.0
    remask: float = 0.0
    cache_ratio: float = 0.0
    cache_warmup: float = 0.3
    cache_refresh: int = 5
    random_start: float = 0.0

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
        if (
            RULES[self.rule].counts == schedules.maskgil_counts
            and self.schedule not in schedules.REVEAL_CURVES
        ):
            known_schedules = sorted(schedules.REVEAL_CURVES)
            raise ValueError(f"schedule = {self.schedule!r}, expected one of {known_schedules}")
        if self.temperature or self.rule != "dimoo":
            option_checks.check_divisor("temperature", [self.temperature])
        token_sampling.check_filter(self.top_k, self.top_p)
        self._check_cache()
        self._check_choice()
        self._check_random_start()

    def _check_choice(self) -> None:
        if not 0 <= self.guidance_from <= self.guidance_to <= 1:
            raise ValueError(
                f"guidance_from = {self.guidance_from} and guidance_to = {self.guidance_to}, "
                "expected shares of the steps, 0 to 1, the first not above the second"
            )
        if self.entropy_budget < 0:
            raise ValueError(f"entropy_budget = {self.entropy_budget}, expected 0 or more (nats)")
        if not 0 <= self.remask <= 1:
            raise ValueError(f"remask = {self.remask}, expected 0 to 1")
        if self.entropy_budget and self.remask:
            raise ValueError(
                f"entropy_budget = {self.entropy_budget} with remask = {self.remask}, expected one "
                "of them to be 0: how many tokens can be masked again follows from the plan of all"
            )

    def _check_random_start(self) -> None:
        if not 0 <= self.random_start <= 1:
            raise ValueError(f"random_start = {self.random_start}, expected 0 to 1")
        for name, expected in dict(steps=1, cache_ratio=0.0).items() if self.random_start else ():
            if (value := getattr(self, name)) != expected:
                raise ValueError(
                    f"{name} = {value} with random_start = {self.random_start}, expected "
                    f"{expected:g}: random codes take the place of masks in a single whole step"
                )

    def _check_cache(self) -> None:
        for name in ("cache_ratio", "cache_warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 0 or more, below 1")
        if self.cache_refresh < 1:
            raise ValueError(f"cache_refresh = {self.cache_refresh}, expected 1 or more")
        same = dict(guidance_ramp="constant", guidance_from=0.0, guidance_to=1.0)
        for name, value in same.items() if self.cache_ratio else ():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r} with cache_ratio = {self.cache_ratio}, "
                    f"expected {value!r}: all steps keep the same sequences"
                )


class Rule(NamedTuple):
    """What the published samplers do differently.

    Attributes:
      counts: (schedule, steps, tokens) -> tokens revealed by each step.
      ramp: steps -> how far the guidance's ramp has come at each, 0 to 1.
      noise: steps -> share of the choice temperature at each.
      confidence: "log_probability" of the drawn token, "log_probability_at_1", whatever the
        temperature of the draw, its "logit" (whose noise acts on the draw as well), or "order":
        the place in Halton's order. Of what may be drawn, before it is: its "moment" or, with
        tokens drawn sharpened alike, "sharp_moment" (choosing.log_moment), or the "entropy".
      ends_early: there may be more steps than tokens, of which the last then do nothing.
    """

    counts: Callable[[str, int, int], np.ndarray]
    ramp: Callable[[int], np.ndarray]
    noise: Callable[[int], np.ndarray]
    confidence: str
    ends_early: bool = False


def _to_last(steps: int) -> np.ndarray:
    return np.linspace(0, 1, steps) if steps > 1 else np.ones(1)


def _past(steps: int) -> np.ndarray:
    return np.arange(steps) / steps


def _left(steps: int) -> np.ndarray:
    return 1 - np.arange(1, steps + 1) / steps


def _falling(steps: int) -> np.ndarray:
    return 1 - _to_last(steps)


def _none(steps: int) -> np.ndarray:
    return np.zeros(steps)


RULES = {
    # synbol/MaskGIL, Trainer/vit.py, and Besnier's MaskGIT-pytorch.
    "maskgil": Rule(schedules.maskgil_counts, _to_last, _falling, "log_probability"),
    # google-research/maskgit, libml/parallel_decode.py.
    "maskgit": Rule(schedules.maskgit_counts, _to_last, _left, "log_probability"),
    # bytedance/1d-tokenizer, modeling/maskgit.py.
    "titok": Rule(schedules.maskgit_counts, _past, _left, "logit"),
    # markweberdev/maskbit, modeling/modules/sampling.py.
    "maskbit": Rule(schedules.maskgit_counts, _past, _left, "log_probability"),
    # Alpha-VLLM/Lumina-DiMOO, generators/image_generation_generator.py.
    "dimoo": Rule(
        schedules.dimoo_counts, _to_last, np.ones, "log_probability_at_1", ends_early=True
    ),
    # valeoai/Halton-MaskGIT, Sampler/halton_sampler.py.
    "halton": Rule(schedules.halton_counts, _to_last, _none, "order"),
    # Hayakawa et al. 2025, arXiv 2510.04525: the moment sampler, which is MaskGIT's choice as the
    # number of tokens grows, made before any token is drawn. MaskGIL's numbers otherwise.
    "moment": Rule(schedules.named_counts, _to_last, _falling, "sharp_moment"),
    # The same choice, and tokens drawn as the model predicts them: one at a time it is exact.
    "choose": Rule(schedules.named_counts, _to_last, _falling, "moment"),
    # Ben-Hamu et al. 2025, arXiv 2505.24857: those of least entropy first; `entropy_budget` makes
    # it the EB-Sampler.
    "entropy": Rule(schedules.named_counts, _to_last, _none, "entropy"),
}

# The published settings, of ImageNet at 256 pixels where there are several.
PRESETS = {
    "maskgil": Options(),
    # The guidance that the paper's tables name; whether it ramps is said nowhere.
    "maskgil_paper": Options(guidance=2.0, guidance_ramp="constant"),
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
    "lumina_dimoo": Options(
        steps=64,
        rule="dimoo",
        schedule="cosine",
        guidance=4.0,
        guidance_form="weight",
        guidance_ramp="constant",
        choice_temperature=1.0,
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
