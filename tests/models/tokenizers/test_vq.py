import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.tokenizers import quantizers, vq
from tests.helpers import random_weights


def test_vq16_has_the_published_number_of_parameters():
    model = jax.eval_shape(lambda: vq.VQTokenizer(vq.VQConfig(), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == 71_883_403


def small():
    config = vq.VQConfig(
        channels=32, channel_multipliers=(1, 1), res_blocks=1, z_channels=32, codebook_size=16
    )
    return random_weights.network(lambda: vq.VQTokenizer(config, jax.random.key(0)))


def test_gradients_pass_straight_through_the_codebook():
    model = small()
    z = jax.random.normal(jax.random.key(1), (1, 2, 2, 8))
    weights = jax.random.normal(jax.random.key(2), z.shape)
    through = jax.jit(jax.grad(lambda z, m: (m.quantize(z).z_BhwC * weights).sum()))(z, model)
    without = jax.grad(lambda z: (quantizers.normalize(z) * weights).sum())(z)
    np.testing.assert_allclose(through, without, atol=1e-6)


def test_the_codebook_loss_moves_the_codebook_and_commitment_the_encoder():
    model, z = small(), jax.random.normal(jax.random.key(1), (1, 2, 2, 8))

    def grads(loss):
        of_loss = jax.grad(lambda m, z: getattr(m.quantize(z), loss), argnums=(0, 1))
        return jax.jit(of_loss)(model, z)

    of_model, of_z = grads("codebook_loss")
    assert jnp.abs(of_model.codebook[...]).max() > 0 and not of_z.any()
    of_model, of_z = grads("commitment_loss")
    assert not of_model.codebook[...].any() and jnp.abs(of_z).max() > 0


def test_encode_gives_the_codes_that_training_sees():
    model = small()
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3), minval=-1)
    encode = jax.jit(lambda m, x: (m.encode(x), m.quantize(m.latents(x)).codes_Bhw))
    np.testing.assert_array_equal(*encode(model, images))


def test_channels_that_groupnorm_cannot_divide_are_refused():
    with pytest.raises(ValueError, match="channels = 48, expected a multiple of 32"):
        vq.VQConfig(channels=48)
