"""Masked decoding: all tokens hidden at first, the most confident revealed at each step.

Letters: B batch, L image tokens, V classes of the head, S steps.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.decoding import schedules


@dataclasses.dataclass(frozen=True)
class Plan:
    """What each of S steps does; hashable, so that it can be a static argument of jit.

    Attributes:
      counts: tokens revealed; the last step reveals all that are left.
      guidance: scale s of u + s (c - u); 1 is no guidance.
      temperature: divides the logits that tokens are drawn from.
      choice_temperature: scale of the Gumbel noise added to the log-confidence.
    """

    counts: tuple[int, ...]
    guidance: tuple[float, ...]
    temperature: tuple[float, ...]
    choice_temperature: tuple[float, ...]

    @property
    def guided(self) -> bool:
        """Whether any step needs the unconditional logits."""
        return any(scale != 1.0 for scale in self.guidance)


# Each rule counts the revealed tokens and anneals the noise on the confidence in its own way:
# google-research/maskgit `parallel_decode` by 1 - (step + 1) / S, MaskGIL by 1 - step / (S - 1).
RULES: dict[str, tuple[Callable[[str, int, int], np.ndarray], Callable[[int], np.ndarray]]] = {
    "maskgil": (
        schedules.maskgil_counts,
        lambda steps: 1 - np.linspace(0, 1, steps) if steps > 1 else np.zeros(1),
    ),
    "maskgit": (
        schedules.maskgit_counts,
        lambda steps: 1 - np.arange(1, steps + 1) / steps,
    ),
}


def plan(
    tokens: int,
    *,
    steps: int = 8,
    guidance: float = 3.0,
    guidance_ramp: str = "linear",
    schedule: str = "arccos",
    rule: str = "maskgil",
    temperature: float = 1.0,
    choice_temperature: float = 4.5,
) -> Plan:
    """The plan of `steps` steps over `tokens` hidden tokens; see Generator.sample for the options.

    Raises:
      ValueError: an unknown name, or a number that no decoding can use.
    """
    ramps = schedules.GUIDANCE_RAMPS
    for name, value, known in (("rule", rule, RULES), ("guidance_ramp", guidance_ramp, ramps)):
        if value not in known:
            raise ValueError(f"{name} = {value!r}, expected one of {sorted(known)}")
    if rule == "maskgil" and schedule not in schedules.REVEAL_CURVES:
        known_schedules = sorted(schedules.REVEAL_CURVES)
        raise ValueError(f"schedule = {schedule!r}, expected one of {known_schedules}")
    if not 1 <= steps <= tokens:
        raise ValueError(f"steps = {steps}, expected 1 to {tokens} (the number of tokens)")
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature}, expected a positive number")
    counts, noise = RULES[rule]
    return Plan(
        counts=tuple(int(n) for n in counts(schedule, steps, tokens)),
        guidance=tuple(schedules.guidance_scales(guidance, guidance_ramp, steps).tolist()),
        temperature=(float(temperature),) * steps,
        choice_temperature=tuple((choice_temperature * noise(steps)).tolist()),
    )


def decode(
    logits_fn: Callable[[jax.Array, jax.Array], jax.Array],
    codes_BL: jax.Array,
    *,
    mask_id: int,
    plan: Plan,
    draw: Callable[[jax.Array, jax.Array], jax.Array],
    gumbel: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Fill the hidden positions of `codes_BL` in as many steps as the plan has.

    Tokens that are known, at the start or from an earlier step, are never changed.

    Args:
      logits_fn: (codes [B, L], guidance scale []) -> guided logits [B, L, V].
      codes_BL: int32; `mask_id` where hidden.
      mask_id: id of the mask.
      plan: what each step does.
      draw: (step [], logits [B, L, V]) -> tokens int32 [B, L], drawn from softmax(logits).
      gumbel: (step []) -> standard Gumbel noise [B, L].

    Returns:
      int32 [B, L] without `mask_id`, unless `draw` returns it.

    Source: MaskGIT (Chang et al. 2022), section 3.2; synbol/MaskGIL, Trainer/vit.py, `sample`.
    """
    steps = len(plan.counts)
    xs = (
        jnp.arange(steps),
        jnp.array([*plan.counts[:-1], codes_BL.shape[1]]),
        jnp.array(plan.guidance, jnp.float32),
        jnp.array(plan.temperature, jnp.float32),
        jnp.array(plan.choice_temperature, jnp.float32),
    )

    def step(codes_BL: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        index, count, guidance, temperature, choice_temperature = x
        logits_BLV = logits_fn(codes_BL, guidance) / temperature
        tokens_BL = draw(index, logits_BLV)
        confidence_BL = log_probability(logits_BLV, tokens_BL)
        confidence_BL += choice_temperature * gumbel(index)
        hidden_BL = codes_BL == mask_id
        reveal_BL = most_confident(jnp.where(hidden_BL, confidence_BL, -jnp.inf), count)
        return jnp.where(hidden_BL & reveal_BL, tokens_BL, codes_BL), None

    codes_BL, _ = jax.lax.scan(step, codes_BL, xs)
    return codes_BL


def log_probability(logits_BLV: jax.Array, tokens_BL: jax.Array) -> jax.Array:
    """Log softmax of the logits at the tokens, float32 [B, L]."""
    chosen_BL = jnp.take_along_axis(logits_BLV, tokens_BL[..., None], axis=-1)[..., 0]
    return chosen_BL - jax.nn.logsumexp(logits_BLV, axis=-1)


def most_confident(confidence_BL: jax.Array, count: jax.Array) -> jax.Array:
    """Bool [B, L], true at the `count` largest of each row; ties go to the earlier position."""
    rank_BL = jnp.argsort(jnp.argsort(-confidence_BL, axis=-1, stable=True), axis=-1)
    return rank_BL < count
