"""Which masked tokens a step reveals, chosen before they are drawn, and which it masks again.

Letters: B batch, n tokens, L all of an image, ... any leading axes, V classes of all digits.
"""

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.decoding import token_sampling
from maskgil_jax.models.token_models import factors

Counts = jax.Array | np.ndarray
SMALLEST = 1e-6  # choice temperature; 0 is the likeliest


class Chances:
    """What codes are drawn by at some positions; each part is computed where it is asked for."""

    def __init__(self, logits: jax.Array, sizes: tuple[int, ...], top_k: int, top_p: float):
        """Take how codes are drawn.

        Args:
          logits: float32 [..., V], divided by the temperature.
          sizes: of the vocabularies of the digits; (): one, of all codes.
          top_k, top_p: see token_sampling.filtered.
        """
        self.logits = logits
        self._sizes, self._filter = sizes, (top_k, top_p)

    @functools.cached_property
    def log_ps(self) -> list[jax.Array]:
        """Log-probabilities of each digit, [..., size]; -inf where it is not drawn."""
        digits = factors.split(self.logits, self._sizes)
        return [jax.nn.log_softmax(token_sampling.filtered(x, *self._filter)) for x in digits]

    @property
    def log_total(self) -> jax.Array:
        """Logarithm of what exponentials of the logits add up to, [...]."""
        return jax.nn.logsumexp(self.logits, axis=-1)

    @functools.cached_property
    def entropy(self) -> jax.Array:
        """Entropy of codes of independent digits in nats, float32 [...]."""
        terms = (jnp.where(x > -jnp.inf, jnp.exp(x) * x, 0.0) for x in self.log_ps)
        return -_sum(term.sum(axis=-1) for term in terms)

    def log_moment(self, choice_temperature: jax.Array) -> jax.Array:
        """a log(sum of p^b over codes), b = `sharpness`(a), a the choice temperature: [...].

        With Gumbel noise of scale a it chooses positions as MaskGIT does, whose choice is by the
        log-probability of a token drawn first; at a = 0 it is that of the likeliest code.

        Source: as `sharpness`.
        """
        power = sharpness(choice_temperature)
        moments = (jax.nn.logsumexp(power * x, axis=-1) for x in self.log_ps)
        return jnp.maximum(choice_temperature, SMALLEST) * _sum(moments)


def confidence(
    kind: str,
    chances: Chances,
    drawn: tuple[jax.Array, jax.Array],
    rank_Bn: jax.Array,
    noise_Bn: jax.Array,
    choice_temperature: jax.Array,
) -> jax.Array:
    """How sure a rule is of the tokens at some positions, float32 [B, n].

    Args:
      kind: as in masked_options.Rule.
      chances: that tokens were drawn by.
      drawn: log-probabilities of those drawn, and their logits, [B, n].
      rank_Bn: place of each position in the order.
      noise_Bn: standard Gumbel noise.
      choice_temperature: scale of the noise.
    """
    (log_p_Bn, logit_Bn), noise_Bn = drawn, choice_temperature * noise_Bn
    if kind == "order":
        return -rank_Bn.astype(jnp.float32)
    if kind == "entropy":
        return -chances.entropy
    if kind in ("moment", "sharp_moment"):
        return chances.log_moment(choice_temperature) + noise_Bn
    of_drawn = {
        "log_probability": lambda: log_p_Bn,
        "log_probability_at_1": lambda: logit_Bn - chances.log_total,
        "logit": lambda: logit_Bn,
    }
    return of_drawn[kind]() + noise_Bn


def _sum(parts: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, parts)


def sharpness(choice_temperature: jax.Array) -> jax.Array:
    """The power b = 1 + 1 / a that a choice by log-probability sharpens draws to.

    Of many tokens, each drawn with probability p, those stay whose log p plus Gumbel noise of scale
    a is largest: a token stays in proportion to p^(1/a), and is drawn and stays to p p^(1/a).

    Source: the moment sampler (Hayakawa et al. 2025, arXiv 2510.04525), of which this is why
    MaskGIT's choice acts as a temperature of draws.
    """
    return 1 + 1 / jnp.maximum(choice_temperature, SMALLEST)


def sharpened(
    confidence: str, choice_temperature: jax.Array, all_left_B: jax.Array
) -> jax.Array | float:
    """What divides the logits that tokens are drawn from, beside the temperature.

    Args:
      confidence: as in masked_options.Rule.
      choice_temperature: of the step.
      all_left_B: bool, whether the step reveals all that are left: none is chosen then, and no
        choice sharpens.
    """
    if confidence == "logit":
        # Noise of this scale on all logits makes a draw at this temperature; 0 is the maximum.
        return jnp.maximum(choice_temperature, SMALLEST)
    if confidence == "sharp_moment":
        return jnp.where(all_left_B, 1.0, 1 / sharpness(choice_temperature))[:, None, None]
    return 1.0


def within_budget(
    entropy_Bn: jax.Array, masked_Bn: jax.Array, revealed_Bn: jax.Array, budget: jax.Array
) -> jax.Array:
    """Bool [B, n], the most of the other masked tokens that may be revealed too.

    What tokens tell about one another, and so the error of drawing them at once, is at most the sum
    of their entropies without the largest. Those of least entropy are added, as long as this grows
    by no more than the budget.

    Args:
      entropy_Bn: nats.
      masked_Bn: bool.
      revealed_Bn: bool, of them those that are revealed anyway.
      budget: nats, float32 [].

    Source: EB-Sampler (Ben-Hamu et al. 2025, arXiv 2505.24857), with the entropy as the error; it
    is that where the one token of least entropy is revealed anyway.
    """
    largest_B1 = jnp.where(revealed_Bn, entropy_Bn, 0.0).max(axis=1, keepdims=True)
    entropy_Bn = jnp.where(masked_Bn & ~revealed_Bn, entropy_Bn, jnp.inf)
    order_Bn = jnp.argsort(entropy_Bn, axis=1, stable=True)
    ascending_Bn = jnp.take_along_axis(entropy_Bn, order_Bn, axis=1)
    sums_Bn = jnp.cumsum(jnp.where(ascending_Bn < jnp.inf, ascending_Bn, 0.0), axis=1)
    growth_Bn = sums_Bn - jnp.maximum(ascending_Bn - largest_B1, 0.0)
    fits_Bn = (growth_Bn <= budget) & (ascending_Bn < jnp.inf)
    return jnp.take_along_axis(fits_Bn, jnp.argsort(order_Bn, axis=1), axis=1)


def with_random_codes(
    codes_BL: jax.Array, masked_BL: jax.Array, share: float, noise_BL: jax.Array, random: jax.Array
) -> jax.Array:
    """The codes, with random ones in the place of a share of the masks: int32 [B, L].

    Args:
      codes_BL: int32, masks among them.
      masked_BL: bool, which are masks.
      share: of the masks of an image that give way, 0 to 1, rounded to whole tokens.
      noise_BL: float, by which those are chosen.
      random: int32 [B, L], the random codes.

    Source: Di[M]O (Zhu et al. 2025, arXiv 2503.15457), its initialization of tokens.
    """
    count_B1 = jnp.round(share * masked_BL.sum(axis=1, keepdims=True))
    chosen_BL = masked_BL & most(jnp.where(masked_BL, noise_BL, -jnp.inf), count_B1)
    return jnp.where(chosen_BL, random, codes_BL)


def most_remasked(masked: Counts, revealed: Counts, count: Counts) -> jax.Array:
    """The most tokens that a step can mask again, and still leave as many masked as is planned.

    Args:
      masked: tokens that are masked before it.
      revealed: tokens that earlier steps revealed.
      count: tokens by which it makes the masked ones fewer.

    Source: ReMDM (Wang et al. 2025, arXiv 2503.00307): sigma is at most (1 - alpha_s) / alpha_t.
    """
    return jnp.maximum(jnp.minimum(revealed, masked - count), 0)


def remasked(
    p_BL: jax.Array,
    at_start_BL: jax.Array,
    drawn_BL: jax.Array,
    count_B: jax.Array,
    share: jax.Array,
    gumbel_BL: jax.Array,
) -> jax.Array:
    """Bool [B, L], those of the tokens drawn that a step masks again, to draw them once more.

    One is masked in proportion to exp(-p), so that no critic has to be trained to judge it.

    Args:
      p_BL: the probability that each was drawn with.
      at_start_BL: bool, masked at the start.
      drawn_BL: bool, of them those drawn.
      count_B: tokens by which the step makes the masked ones fewer.
      share: of `most_remasked`, 0 to 1.
      gumbel_BL: standard Gumbel noise.

    Source: ReMDM (Wang et al. 2025, arXiv 2503.00307), its "conf" weights with its "rescale" share.
    """
    drawn_B = drawn_BL.sum(axis=1)
    again_B = jnp.round(share * most_remasked(at_start_BL.sum(axis=1) - drawn_B, drawn_B, count_B))
    weight_BL = jnp.where(drawn_BL, gumbel_BL - p_BL, -jnp.inf)
    return drawn_BL & most(weight_BL, again_B[:, None])


def most(values_Bn: jax.Array, count: jax.Array) -> jax.Array:
    """Bool [B, n], true at the `count` largest of each row; ties go to the earlier position."""
    rank_Bn = jnp.argsort(jnp.argsort(-values_Bn, axis=-1, stable=True), axis=-1)
    return rank_Bn < count
