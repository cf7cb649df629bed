"""Drawing codes from logits.

Letters: ... any leading axes, V classes, G groups of classes.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from maskgil_jax.models.token_models import factors
from maskgil_jax.runtime.errors import InputError

NOT_DRAWN = -1  # in place of a code whose logits are not finite


def check_filter(top_k: int, top_p: float) -> None:
    """Raise ValueError unless `filtered` can use these."""
    if top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"top_k = {top_k} and top_p = {top_p}, expected 0 or more and 0 to 1 (0 and 1: all)"
        )


def filtered(logits: jax.Array, top_k: int = 0, top_p: float = 1.0) -> jax.Array:
    """The logits, -inf but for the most likely classes.

    Args:
      logits: float32 [..., V].
      top_k: classes that stay (more where several tie with the last); 0: all.
      top_p: of those, the fewest classes that reach this probability, at least one; 1: all.

    Source: FoundationVision/LlamaGen, autoregressive/models/generate.py, `top_k_top_p_filtering`.
    """
    if top_k:
        least = kth_largest(logits, min(top_k, logits.shape[-1]))
        logits = jnp.where(logits < least[..., None], -jnp.inf, logits)
    if top_p < 1.0:
        order = jnp.argsort(-logits, axis=-1, stable=True)
        p = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
        before = jnp.cumsum(p, axis=-1) - p
        within = (before <= top_p).at[..., 0].set(True)
        within = jnp.take_along_axis(within, jnp.argsort(order, axis=-1), axis=-1)
        logits = jnp.where(within, logits, -jnp.inf)
    return logits


def kth_largest(x: jax.Array, k: int) -> jax.Array:
    """The k-th largest of the last axis, float32 [...]; for thousands much faster than sorting.

    Its bits are found one after another, from counts of the numbers that reach a candidate.
    """
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    # As unsigned integers in the order of the numbers.
    ordered = jnp.where(bits & sign, ~bits, bits | sign)

    def bit(i: jax.Array, prefix: jax.Array) -> jax.Array:
        candidate = prefix | (sign >> i.astype(jnp.uint32))
        enough = (ordered >= candidate[..., None]).sum(axis=-1) >= k
        return jnp.where(enough, candidate, prefix)

    kth = jax.lax.fori_loop(0, 32, bit, jnp.zeros(x.shape[:-1], jnp.uint32))
    bits = jnp.where(kth & sign, kth ^ sign, ~kth)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def code(
    uniform_F: jax.Array,
    logits: jax.Array,
    sizes: tuple[int, ...],
    *,
    divisor: jax.Array | float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A code of each position, one digit at a time where codes have several (factors.py).

    Args:
      uniform_F: [..., F] in [0, 1), for each of F digits.
      logits: float32 [..., sum of sizes], of each digit.
      sizes: of the vocabularies of the digits; one is of all codes.
      divisor: of the logits that are drawn from.
      top_k: see `filtered`; of each digit, before the division.
      top_p: after it.

    Returns:
      int32 [...], NOT_DRAWN where the divided logits are not finite; its log-probability, float32
      [...]; and its logit, undivided.
    """
    digits, log_p, logit = [], jnp.zeros(()), jnp.zeros(())
    finite = jnp.ones((), bool)
    for f, digit_logits in enumerate(factors.split(logits, sizes)):
        divided = digit_logits / divisor
        finite &= jnp.isfinite(divided).all(axis=-1)
        likeliest = filtered(digit_logits, top_k) / divisor
        digit, digit_log_p = categorical(uniform_F[..., f], filtered(likeliest, top_p=top_p))
        digits.append(digit)
        log_p += digit_log_p
        logit += jnp.take_along_axis(digit_logits, digit[..., None], axis=-1)[..., 0]
    return jnp.where(finite, factors.joined(digits, sizes), NOT_DRAWN), log_p, logit


def image_keys(key: jax.Array, start: jax.Array | int, batch: int) -> jax.Array:
    """A key for each image of a batch, [B], by its index.

    Args:
      key: of all images, or of each, [B].
      start: index of the first image, or of each, int [B].
      batch: images.
    """
    key_B = jnp.broadcast_to(key, (batch,))
    index_B = jnp.asarray(start)
    index_B = index_B if index_B.ndim else index_B + jnp.arange(batch)
    return jax.vmap(jax.random.fold_in)(key_B, index_B)


def with_step(codes: jax.Array, step: jax.Array | int) -> jax.Array:
    """The codes drawn at a step; -1 - step, instead of NOT_DRAWN, tells where it was."""
    return jnp.where(codes == NOT_DRAWN, -1 - step, codes)


def check_drawn(
    codes_Bhw: npt.ArrayLike,
    start: int | npt.NDArray[np.int32],
    model: str,
    options: Mapping[str, Any],
) -> None:
    """Check that all codes of images that were drawn could be.

    Args:
      codes_Bhw: of draws with `with_step`.
      start: index of the first image, or of each, int [B].
      model: its name in messages.
      options: of decoding, by name.

    Raises:
      InputError: logits were not finite; names the model, the images, the first step, the options.
    """
    codes_Bhw = np.asarray(codes_Bhw)
    bad = np.flatnonzero((codes_Bhw < 0).any(axis=(1, 2)))
    if not len(bad):
        return
    first = -1 - int(codes_Bhw[codes_Bhw < 0].max())
    index = start[bad] if isinstance(start, np.ndarray) else start + bad
    images = ", ".join(map(str, index[:5])) + (", ..." if len(bad) > 5 else "")
    given = ", ".join(f"{name}={value}" for name, value in options.items()) or "the default ones"
    raise InputError(
        f"{model}: the logits of {len(bad)} of {len(codes_Bhw)} images ({images}) are not finite "
        f"from step {first + 1} on, so that no code can be drawn: either its weights are not "
        f"finite, or the decoding options ({given}) overflow float32"
    )


def categorical(uniform: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A class of each distribution, and its log-probability.

    Inverts the cumulative distribution, in groups of about sqrt(V) classes and then within one: a
    uniform number for each draw, where Gumbel noise would take V.

    Args:
      uniform: [...] in [0, 1).
      logits: float32 [..., V]; -inf is never drawn.

    Returns:
      int32 [...] and float32 [...].
    """
    V = logits.shape[-1]
    G = math.ceil(math.sqrt(V))
    p = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    widths = [(0, 0)] * (p.ndim - 1) + [(0, G * G - V)]
    p_GG = jnp.pad(p, widths).reshape(*p.shape[:-1], G, G)
    p_of_groups = p_GG.sum(axis=-1)
    total = p_of_groups.sum(axis=-1)
    group, rest = _invert(p_of_groups, uniform * total)
    p_G = jnp.take_along_axis(p_GG, group[..., None, None], axis=-2)[..., 0, :]
    place, _ = _invert(p_G, rest)
    chosen = jnp.take_along_axis(p_G, place[..., None], axis=-1)[..., 0]
    return group * G + place, jnp.log(chosen) - jnp.log(total)


def _invert(p: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index where the cumulative sum of p passes the target, and what of the target is left."""
    after = jnp.cumsum(p, axis=-1)
    index = (after <= target[..., None]).sum(axis=-1)
    # Rounding may leave the target beyond the sum; what has no probability is still not drawn.
    index = jnp.minimum(index, jnp.max(jnp.where(p > 0, jnp.arange(p.shape[-1]), 0), axis=-1))
    before = jnp.take_along_axis(after - p, index[..., None], axis=-1)[..., 0]
    return index.astype(jnp.int32), target - before
