"""The mathematics of both training objectives, free of modules and configs.

Letters: B batch, L image tokens, V classes of the head.
"""

import jax
import jax.numpy as jnp

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


def hinge_discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Mean hinge loss of a discriminator whose logits are high for real images."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def feature_distance(real: list[jax.Array], fake: list[jax.Array]) -> jax.Array:
    """Mean L1 distance between the discriminator's features, averaged over its layers.

    Source: Wang et al. 2018 (pix2pixHD), equation 4.
    """
    distances = [
        jnp.mean(jnp.abs(jax.lax.stop_gradient(r) - f)) for r, f in zip(real, fake, strict=True)
    ]
    return jnp.mean(jnp.stack(distances))
