import functools

import jax
import jax.numpy as jnp
import pytest

from maskgil_jax import config as defaults
from maskgil_jax.interop import engine, llamagen_discriminator, lpips
from maskgil_jax.models.perceptual.discriminator import make
from maskgil_jax.models.perceptual.lpips import LPIPS
from maskgil_jax.training import tokenizer_objective
from tests.helpers import golden

NAME = "llamagen_vq_loss"


def network(prefix, family, init):
    """One of the networks in the golden's weights, through the table of its format."""
    weights = golden.weights(NAME)
    tensors = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    config = family.config(tensors)
    like = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    return engine.load(family.entries(config), tensors, like)


@pytest.fixture(scope="module")
def judges():
    """Discriminator and LPIPS for inputs in double precision.

    One leaky ReLU of the discriminator is given 2e-7 of the deviation of its layer: in float32 the
    kind of CPU decided on which side of 0 that is, and so the gradient.
    """
    discriminator = network("discriminator.", llamagen_discriminator, make)
    with jax.enable_x64(True):
        discriminator = jax.tree.map(lambda x: x.astype("float64"), discriminator)
        yield discriminator, network("perceptual_loss.", lpips, LPIPS)


@functools.partial(jax.jit, static_argnames="changes")
def official_step(discriminator, perceptual, arrays, on, changes):
    """The golden's six numbers and the gradient of its last kernel."""
    images = arrays["image_u8"].transpose(0, 2, 3, 1) / 127.5 - 1
    x = arrays["feature"].transpose(0, 2, 3, 1).repeat(8, axis=1).repeat(8, axis=2)
    kernel = arrays["last_layer"].transpose(2, 3, 1, 0)
    reconstructions, pullback = jax.vjp(
        lambda k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        ),
        kernel,
    )
    settings = defaults.tokenizer().loss
    settings.update(dict(changes))
    loss = tokenizer_objective.image_loss(
        images,
        reconstructions,
        lambda cotangent: pullback(cotangent)[0],
        discriminator,
        perceptual,
        on,
        jax.random.key(0),
        settings,
    )
    zero = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
    of_judge, _ = tokenizer_objective.discriminator_loss(
        discriminator, images, reconstructions, zero, on, settings
    )
    terms = loss.terms
    values = (
        *(terms["reconstruction"], terms["perceptual"], terms["adversarial"]),
        *(loss.adaptive_weight, loss.value + 0.3 + 0.07, of_judge),
    )
    return jnp.stack(values), pullback(loss.cotangent)[0].transpose(3, 2, 0, 1)


OFFICIAL = {
    "hinge_hinge_l2_adaptive": dict(),
    "hinge_hinge_l1_fixed": dict(reconstruction="l1", adaptive_weight=False),
    "vanilla_hinge_l2_adaptive": dict(discriminator="vanilla"),
    "nonsaturating_nonsaturating_l2_adaptive": dict(
        discriminator="non_saturating_released", adversarial="non_saturating_released"
    ),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_losses_and_gradients_are_the_official_ones_before_and_after_the_start(name, judges):
    expected = golden.arrays(NAME)
    inputs = {key: expected[key].astype("float64") for key in ("image_u8", "feature", "last_layer")}
    changes = tuple((dict(adaptive_weight=True) | OFFICIAL[name]).items())
    for row, on in enumerate((0, 1)):
        values, of_last_layer = official_step(*judges, inputs, jnp.float64(on), changes)
        golden.check(NAME, name, values, expected[name][row])
    golden.check(
        NAME, f"{name}_grad_last_layer", of_last_layer, expected[f"{name}_grad_last_layer"]
    )
