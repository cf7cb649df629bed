"""Losses of tokenizer and discriminator on a batch, and their gradients.

The tokenizer is differentiated once: the losses give a cotangent on the reconstructions, in which
the adaptive weight balances the adversarial part, and that is pulled back through the network.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from maskgil_jax.models.perceptual.discriminator import Discriminator
from maskgil_jax.models.perceptual.lpips import LPIPS
from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.training import objectives

LECAM_DECAY = 0.999
Terms = dict[str, jax.Array]


def is_judged(settings: ConfigDict) -> bool:
    """Whether config.loss has a term of the discriminator, which is trained only then."""
    return bool(settings.adversarial_weight or settings.feature_weight)


class ImageLoss(NamedTuple):
    """Loss of reconstructions as images.

    Attributes:
      value: weighted sum of the terms.
      cotangent: its gradient with respect to the reconstructions.
      terms: the terms by name, not weighted.
      adaptive_weight: of the adversarial term; 1 where it is switched off.
      moments: see discriminator.Judgement.
    """

    value: jax.Array
    cotangent: jax.Array
    terms: Terms
    adaptive_weight: jax.Array
    moments: list[Any]


def image_loss(
    images: jax.Array,
    reconstructions: jax.Array,
    kernel_gradient: Callable[[jax.Array], jax.Array],
    discriminator: Discriminator,
    lpips: LPIPS | None,
    on: jax.Array,
    key: jax.Array,
    settings: ConfigDict,
) -> ImageLoss:
    """Pixel, perceptual, feature and adversarial terms.

    Args:
      images, reconstructions: float32 [B, H, W, 3] in [-1, 1], the second not clipped.
      kernel_gradient: (gradient of the reconstructions) -> that of the decoder's last kernel.
      discriminator: judges the reconstructions.
      lpips: None where its weight is 0.
      on: 1 where the adversarial term has started, else 0.
      key: of LPIPS' dropout.
      settings: config.loss.

    Source: LlamaGen, tokenizer/tokenizer_image/vq_loss.py.
    """
    if settings.feature_weight:
        real_features = discriminator(images, train=True).features

    def losses(y: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[Terms, list[Any]]]:
        terms = {"reconstruction": objectives.PIXEL_LOSSES[settings.reconstruction](images, y)}
        if lpips is not None:
            distances_B = lpips(images, y, key if settings.lpips_dropout else None)
            terms["perceptual"] = jnp.mean(distances_B)
        if not is_judged(settings):
            return (weighted(terms, settings), jnp.zeros(())), (terms, [])
        judgement = discriminator(y, train=True)
        if settings.feature_weight:
            terms["feature"] = objectives.feature_distance(real_features, judgement.features)
        adversarial = objectives.GENERATOR_LOSSES[settings.adversarial](judgement.logits)
        return (weighted(terms, settings), adversarial), (terms, judgement.moments)

    (nll, adversarial), pullback, (terms, moments) = jax.vjp(losses, reconstructions, has_aux=True)
    zero, one = jnp.zeros(()), jnp.ones(())
    balance, weight = one, on * settings.adversarial_weight
    if settings.adaptive_weight and is_judged(settings):
        (d_nll,), (d_adversarial,) = pullback((one, zero)), pullback((zero, one))
        balance = objectives.adaptive_weight(kernel_gradient(d_nll), kernel_gradient(d_adversarial))
        weight *= balance
        cotangent = d_nll + weight * d_adversarial
    else:
        (cotangent,) = pullback((one, weight))
    return ImageLoss(
        value=nll + weight * adversarial,
        cotangent=cotangent,
        terms=terms | ({"adversarial": adversarial} if is_judged(settings) else {}),
        adaptive_weight=balance,
        moments=moments,
    )


class DiscriminatorLoss(NamedTuple):
    """What `discriminator_loss` computes besides its value.

    Attributes:
      lecam: running means of the logits of real and fake images.
      moments: of the real, then of the fake images; see discriminator.Judgement.
    """

    lecam: Terms
    moments: list[list[Any]]


def discriminator_loss(
    discriminator: Discriminator,
    images: jax.Array,
    reconstructions: jax.Array,
    lecam: Terms,
    on: jax.Array,
    settings: ConfigDict,
) -> tuple[jax.Array, DiscriminatorLoss]:
    """Loss of the discriminator on originals and reconstructions; the arguments as above.

    Args:
      lecam: the running means before this batch, {"real": [], "fake": []}.
    """
    real, fake = discriminator(images, train=True), discriminator(reconstructions, train=True)
    loss = settings.discriminator_weight * objectives.DISCRIMINATOR_LOSSES[settings.discriminator](
        real.logits, fake.logits
    )
    logits = {"real": real.logits, "fake": fake.logits}
    lecam = {
        side: jax.lax.stop_gradient(LECAM_DECAY * mean + (1 - LECAM_DECAY) * logits[side].mean())
        for side, mean in lecam.items()
    }
    if settings.lecam_weight:
        loss += settings.lecam_weight * objectives.lecam(
            real.logits, fake.logits, lecam["real"], lecam["fake"]
        )
    if settings.r1_weight:
        at_real = jax.grad(lambda x: discriminator(x, train=True).logits.mean(axis=1).sum())(images)
        loss += settings.r1_weight * jnp.mean(jnp.sum(at_real**2, axis=(1, 2, 3)))
    return on * loss, DiscriminatorLoss(lecam, [real.moments, fake.moments])


class Result(NamedTuple):
    """What a micro-batch gives, to be averaged over micro-batches.

    Attributes:
      gradients: of "tokenizer", and of "discriminator" where it judges.
      metrics: scalars.
      lecam: running means after it.
      moments: of the discriminator's three passes, fake, real, fake; of none where it does not.
    """

    gradients: dict[str, Any]
    metrics: Terms
    lecam: Terms
    moments: list[list[Any]]


class Reconstruction(NamedTuple):
    """A forward pass of the tokenizer.

    Attributes:
      features: of the decoder before its last convolution.
      codes_Bhw: int32.
      latents_BhwC: float32, comparable to rows of the codebook.
      terms: losses of the quantizer by name, not weighted.
    """

    features: jax.Array
    codes_Bhw: jax.Array
    latents_BhwC: jax.Array
    terms: Terms


def gradients(
    model: dict[str, Any],
    lecam: Terms,
    lpips: LPIPS | None,
    images: jax.Array,
    on: jax.Array,
    key: jax.Array,
    settings: ConfigDict,
) -> tuple[Result, tuple[jax.Array, jax.Array]]:
    """Gradients of both networks, the discriminator's on the same reconstructions.

    Args:
      model: "tokenizer" and "discriminator".
      lecam: running means before this batch.
      lpips: None where its weight is 0.
      images: float32 [B, H, W, 3] in [-1, 1].
      on: 1 where adversarial training has started, else 0.
      key: of all that is random.
      settings: config.loss.

    Returns:
      The result, and (codes int32 [B, h, w], comparable latents float32 [B, h, w, C]).
    """
    tokenizer, discriminator = model["tokenizer"], model["discriminator"]
    (reconstructions, quantizer_loss), pullback, forward = jax.vjp(
        functools.partial(reconstruct, images=images, settings=settings), tokenizer, has_aux=True
    )

    def kernel_gradient(cotangent: jax.Array) -> jax.Array:
        _, last = jax.vjp(lambda t: t.pixels(forward.features), tokenizer)
        return last(cotangent)[0].decoder.conv_out.kernel[...]

    loss = image_loss(
        images, reconstructions, kernel_gradient, discriminator, lpips, on, key, settings
    )
    (d_tokenizer,) = pullback((loss.cotangent, jnp.ones(())))
    metrics = {f"{name}_loss": value for name, value in (forward.terms | loss.terms).items()}
    metrics |= {
        "loss": loss.value + quantizer_loss,
        "mean_squared_error": jnp.mean((images - reconstructions) ** 2),
    }
    result = Result({"tokenizer": d_tokenizer}, metrics, lecam, [])
    if is_judged(settings):
        (judge_loss, judged), d_discriminator = jax.value_and_grad(
            discriminator_loss, has_aux=True
        )(discriminator, images, reconstructions, lecam, on, settings)
        metrics |= {"discriminator_loss": judge_loss, "adaptive_weight": loss.adaptive_weight}
        both = {"tokenizer": d_tokenizer, "discriminator": d_discriminator}
        result = Result(both, metrics, judged.lecam, [loss.moments, *judged.moments])
    return result, (forward.codes_Bhw, forward.latents_BhwC)


def reconstruct(
    tokenizer: VQTokenizer, images: jax.Array, settings: ConfigDict
) -> tuple[tuple[jax.Array, jax.Array], Reconstruction]:
    """The tokenizer's output, what has to be differentiated first.

    Args:
      tokenizer: encodes and decodes.
      images: float32 [B, H, W, 3] in [-1, 1].
      settings: config.loss.

    Returns:
      (reconstructions [B, H, W, 3], weighted sum of the quantizer's losses), and the rest.
    """
    latents = tokenizer.latents(images)
    quantized = tokenizer.quantize(latents)
    terms = {"codebook": quantized.codebook_loss, "commitment": quantized.commitment_loss}
    if settings.entropy_weight:
        terms["entropy"] = tokenizer.entropy_loss(latents)
    features = tokenizer.features(quantized.z_BhwC)
    outputs = tokenizer.pixels(features), weighted(terms, settings)
    comparable = tokenizer.comparable(latents)
    return outputs, Reconstruction(features, quantized.codes_Bhw, comparable, terms)


def weighted(terms: Terms, settings: ConfigDict) -> jax.Array:
    """Sum of terms, each times its weight in config.loss; the weight of pixels is 1."""
    total = jnp.zeros(())
    for name, value in terms.items():
        total += value if name == "reconstruction" else settings[f"{name}_weight"] * value
    return total
