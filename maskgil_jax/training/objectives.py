"""The mathematics of both training objectives, free of modules and configs.

Letters: B batch, L image tokens, V classes of the head.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")

# Share of hidden tokens of an image, for u uniform in [0, 1).
MASK_RATIOS = {
    "arccos": lambda u: jnp.arccos(u) * 2 / jnp.pi,  # MaskGIL; mean 2 / pi
    "cosine": lambda u: jnp.cos(u * jnp.pi / 2),
    "linear": lambda u: 1 - u,
    "square": lambda u: 1 - u**2,
}


def random_masks(key: jax.Array, shape: tuple[int, int], schedule: str) -> jax.Array:
    """Bool [B, L], true where hidden: a ratio per image, then a coin per token.

    Source: synbol/MaskGIL, Trainer/vit.py, `get_mask_code`.
    """
    ratio_key, token_key = jax.random.split(key)
    ratio_B = MASK_RATIOS[schedule](jax.random.uniform(ratio_key, shape[:1]))
    return jax.random.uniform(token_key, shape) < ratio_B[:, None]


def cross_entropy(
    logits_BLV: jax.Array, targets_BL: jax.Array, label_smoothing: float
) -> jax.Array:
    """-log p of the targets, `label_smoothing` of whose mass is spread over all V: [B, L]."""
    log_z_BL = jax.nn.logsumexp(logits_BLV, axis=-1)
    target_BL = jnp.take_along_axis(logits_BLV, targets_BL[..., None], axis=-1)[..., 0]
    mean_BL = logits_BLV.mean(axis=-1)
    return log_z_BL - (1 - label_smoothing) * target_BL - label_smoothing * mean_BL


def in_chunks(fn: Callable[..., Tree], chunk: int, *arrays_BL: jax.Array) -> Tree:
    """`fn` of at most `chunk` positions at a time: the same values and gradients in less memory.

    What `fn` makes on its way is made again for the gradient, so that only one chunk of it exists.

    Args:
      fn: arrays [B, n, ...] to a tree of arrays [B, n, ...], position by position.
      chunk: positions; the largest divisor of L up to it is taken.
      *arrays_BL: [B, L, ...]. The chunks are cut along L, since B is spread over devices.
    """
    B, L = arrays_BL[0].shape[:2]
    n = next(n for n in range(min(chunk, L), 0, -1) if L % n == 0)
    if n == L:
        return fn(*arrays_BL)
    parts = [jnp.moveaxis(x.reshape(B, L // n, n, *x.shape[2:]), 1, 0) for x in arrays_BL]
    found = jax.lax.map(lambda part: jax.checkpoint(fn)(*part), parts)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(B, L, *x.shape[3:]), found)


# Distance between originals and reconstructions.
PIXEL_LOSSES = {
    "l2": lambda x, y: jnp.mean((x - y) ** 2),
    "l1": lambda x, y: jnp.mean(jnp.abs(x - y)),
}

# Of LlamaGen's "non-saturating" losses, which give cross-entropy the constant as the logit and the
# discriminator's output as the target: linear in that output. Here for its numbers' sake.
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


def adaptive_weight(of_nll: jax.Array, of_adversarial: jax.Array) -> jax.Array:
    """Weight that balances two gradients of the decoder's last kernel, in 0 .. 1e4.

    Source: Esser et al. 2021, equation 7; CompVis/taming-transformers, vqperceptual.py.
    """
    ratio = jnp.linalg.norm(of_nll) / (jnp.linalg.norm(of_adversarial) + 1e-4)
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
