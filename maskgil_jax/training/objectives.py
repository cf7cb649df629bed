"""The mathematics of both training objectives, free of modules and configs.

Letters: B batch, L image tokens, V classes of the head.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from maskgil_jax.runtime import sharding

Tree = TypeVar("Tree")

# Share of masked tokens of an image, for u uniform in [0, 1).
MASK_RATIOS = {
    "arccos": lambda u: jnp.arccos(u) * 2 / jnp.pi,  # MaskGIL; mean 2 / pi
    "cosine": lambda u: jnp.cos(u * jnp.pi / 2),
    "linear": lambda u: 1 - u,
    "square": lambda u: 1 - u**2,
}


def random_masks(key: jax.Array, shape: tuple[int, int], schedule: str) -> jax.Array:
    """Bool [B, L], true where masked: a ratio per image, then a coin per token.

    Source: synbol/MaskGIL, Trainer/vit.py, `get_mask_code`.
    """
    ratio_key, token_key = jax.random.split(key)
    ratio_B = MASK_RATIOS[schedule](jax.random.uniform(ratio_key, shape[:1]))
    return jax.random.uniform(token_key, shape) < ratio_B[:, None]


# Tokens of a causal prefix, int32 in 1 .. L, for u uniform in [0, 1).
SPLITS = {
    "uniform": lambda u, tokens: 1 + jnp.floor(u * tokens).astype(jnp.int32).clip(0, tokens - 1),
    "all": lambda u, tokens: jnp.full(u.shape, tokens, jnp.int32),
}


def random_splits(key: jax.Array, shape: tuple[int, int], share: float, split: str) -> jax.Array:
    """Tokens of each image's causal prefix, int32 [B]; 0, so none, of 1 - `share` of the images.

    Args:
      key: draws.
      shape: (B, L).
      share: of images with a prefix.
      split: key of SPLITS.
    """
    u_2B = jax.random.uniform(key, (2, shape[0]))
    return jnp.where(u_2B[0] < share, SPLITS[split](u_2B[1], shape[1]), 0)


def cross_entropy(
    logits_BLV: jax.Array, targets_BL: jax.Array, label_smoothing: float
) -> tuple[jax.Array, jax.Array]:
    """Loss of predictions, and whether they are right.

    Args:
      logits_BLV: float32.
      targets_BL: int32 in 0 .. V - 1.
      label_smoothing: share of the mass of a target that is spread over all V.

    Returns:
      -log p of the targets, float32 [B, L]; whether all other classes have smaller logits, bool.
    """
    log_z_BL = log_normalizer(logits_BLV)
    target_BL = jnp.take_along_axis(logits_BLV, targets_BL[..., None], axis=-1)[..., 0]
    mean_BL = logits_BLV.mean(axis=-1)
    losses_BL = log_z_BL - (1 - label_smoothing) * target_BL - label_smoothing * mean_BL
    # Not by argmax, which is slow and gives the first class to a head that is still zero.
    reaching_BL = (logits_BLV >= target_BL[..., None]).sum(axis=-1)
    return losses_BL, reaching_BL == 1


def log_normalizer(logits_BLV: jax.Array) -> jax.Array:
    """Logarithm of the sum of the exponentials of logits, float32 [B, L]."""
    largest_BL = jax.lax.stop_gradient(logits_BLV.max(axis=-1))
    return largest_BL + jnp.log(jnp.exp(logits_BLV - largest_BL[..., None]).sum(axis=-1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def summed_in_chunks(
    fn: Callable[..., tuple[jax.Array, Tree]],
    chunk: int,
    params: Any,
    x_BLD: jax.Array,
    *constants_BL: jax.Array,
) -> tuple[jax.Array, Tree]:
    """`fn` of at most `chunk` positions at a time, summed: what it makes exists for one chunk only.

    The gradient of a chunk is taken together with its value, so that nothing, the logits above
    all, is kept for the backward pass or recomputed.

    Args:
      fn: (params, x [B, n, D], constants [B, n] ...) -> (loss [], tree of other numbers []).
      chunk: positions; the largest divisor of L up to it is taken.
      params: tree of arrays.
      x_BLD: float [B, L, D]. The chunks are cut along L, since B is spread over devices.
      *constants_BL: [B, L] or [B, L, ...], without a gradient.

    Returns:
      The sums of the loss, differentiable by params and x_BLD, and of the other numbers.

    Source: the idea is of Liger Kernel's fused linear cross-entropy (Hsu et al. 2024, section 3.2).
    """
    chunks = _chunks(chunk, x_BLD, *constants_BL)
    results = jax.lax.map(lambda arrays: fn(params, *arrays), chunks)
    return jax.tree.map(lambda x: x.sum(axis=0), results)


def _summed_forward(
    fn: Callable[..., tuple[jax.Array, Tree]],
    chunk: int,
    params: Any,
    x_BLD: jax.Array,
    *constants_BL: jax.Array,
) -> tuple[tuple[jax.Array, Tree], tuple[Any, jax.Array, int]]:
    gradient = jax.value_and_grad(fn, argnums=(0, 1), has_aux=True)

    def of_examples(params: Any, x_BLD: jax.Array, *constants_BL: jax.Array) -> Any:
        def add(d_params: Any, arrays: tuple[jax.Array, ...]) -> tuple[Any, Any]:
            results, (more, dx) = gradient(params, *arrays)
            return jax.tree.map(jnp.add, d_params, more), (results, dx)

        zeros = jax.tree.map(jnp.zeros_like, params)
        d_params, (results, dx) = jax.lax.scan(add, zeros, _chunks(chunk, x_BLD, *constants_BL))
        sums = jax.tree.map(lambda x: x.sum(axis=0), results)
        return (sums, d_params), jnp.moveaxis(dx, 0, 1).reshape(x_BLD.shape)

    # The gradient of the parameters is exchanged once, not for each chunk.
    layout = -1, sharding.split_dimensions(params)
    (sums, d_params), dx_BLD = sharding.sum_over_devices(
        of_examples, layout, params, x_BLD, *constants_BL
    )
    return sums, (d_params, dx_BLD, len(constants_BL))


def _summed_backward(
    fn: Callable[..., Any], chunk: int, residuals: tuple[Any, jax.Array, int], cotangents: Any
) -> tuple[Any, ...]:
    d_params, dx_BLD, constants = residuals
    d_loss, _ = cotangents
    scaled = jax.tree.map(lambda g: (g * d_loss).astype(g.dtype), (d_params, dx_BLD))
    return (*scaled, *(None,) * constants)


summed_in_chunks.defvjp(_summed_forward, _summed_backward)


def in_chunks(fn: Callable[..., jax.Array], chunk: int, *arrays_BL: jax.Array) -> jax.Array:
    """`fn` of at most `chunk` positions at a time: what it makes exists for one chunk only.

    Args:
      fn: (arrays [B, n, ...] ...) -> [B, n, ...].
      chunk: as in `summed_in_chunks`.
      *arrays_BL: [B, L, ...].

    Returns:
      What `fn` gives of all positions, [B, L, ...].
    """
    result = jax.lax.map(lambda arrays: fn(*arrays), _chunks(chunk, *arrays_BL))
    result = jnp.moveaxis(result, 0, 1)
    return result.reshape(*arrays_BL[0].shape[:2], *result.shape[3:])


def _chunks(chunk: int, *arrays_BL: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays [B, L, ...] cut along L: [L / n, B, n, ...]."""
    B, L = arrays_BL[0].shape[:2]
    n = next(n for n in range(min(chunk, L), 0, -1) if L % n == 0)
    return tuple(jnp.moveaxis(x.reshape(B, L // n, n, *x.shape[2:]), 1, 0) for x in arrays_BL)


# Distance between originals and reconstructions.
PIXEL_LOSSES = {
    "l2": lambda x, y: jnp.mean((x - y) ** 2),
    "l1": lambda x, y: jnp.mean(jnp.abs(x - y)),
}

# Constants of LlamaGen's "non-saturating" losses, which give cross-entropy the constant as the
# logit and the discriminator's output as the target: linear in that output.
_SWAPPED_REAL = 1 + math.log1p(math.exp(-1))
_SWAPPED_FAKE = math.log(2)

# Loss of a discriminator from its logits [B, patches] of real and fake images.
DISCRIMINATOR_LOSSES = {
    "hinge": lambda real, fake: (
        0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))
    ),
    # Cross-entropy, the discriminator's side of the non-saturating game.
    "vanilla": lambda real, fake: (
        0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))
    ),
    "non_saturating_released": lambda real, fake: (
        0.5 * (_SWAPPED_REAL - jnp.mean(real) + _SWAPPED_FAKE)
    ),
}

# Loss of what fools it, from the logits [B, patches] of its images.
GENERATOR_LOSSES = {
    "hinge": lambda fake: -jnp.mean(fake),
    # Of an image's mean logit: TencentARC/SEED-Voken, Open_MAGVIT2 vqperceptual.py.
    "non_saturating": lambda fake: jnp.mean(jax.nn.softplus(-fake.mean(axis=1))),
    "non_saturating_released": lambda fake: _SWAPPED_REAL - jnp.mean(fake),
}


def adaptive_weight(d_nll: jax.Array, d_adversarial: jax.Array) -> jax.Array:
    """Weight that balances two gradients of the decoder's last kernel, in 0 .. 1e4.

    Source: Esser et al. 2021, equation 7; CompVis/taming-transformers, vqperceptual.py.
    """
    ratio = jnp.linalg.norm(d_nll) / (jnp.linalg.norm(d_adversarial) + 1e-4)
    return jnp.clip(ratio, 0.0, 1e4)


def lecam(
    real: jax.Array, fake: jax.Array, mean_real: jax.Array, mean_fake: jax.Array
) -> jax.Array:
    """Regulariser that pulls logits towards the running means of the other side's.

    Source: Tseng et al. 2021, equation 3; SEED-Voken, Open_MAGVIT2 vqperceptual.py, `lecam_reg`.
    """
    return jnp.mean(jax.nn.relu(real - mean_fake) ** 2) + jnp.mean(
        jax.nn.relu(mean_real - fake) ** 2
    )


def feature_distance(real: list[jax.Array], fake: list[jax.Array]) -> jax.Array:
    """Mean L1 distance between the discriminator's features, averaged over its layers.

    Source: Wang et al. 2018 (pix2pixHD), equation 4.
    """
    distances = [
        jnp.mean(jnp.abs(jax.lax.stop_gradient(r) - f)) for r, f in zip(real, fake, strict=True)
    ]
    return jnp.mean(jnp.stack(distances))
