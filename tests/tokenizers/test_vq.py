import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.tokenizers import quantizers, vq
from maskgil_jax.tokenizers.discriminator import PatchGAN


def test_vq16_has_the_published_number_of_parameters():
    model = jax.eval_shape(lambda: vq.VQTokenizer(vq.VQConfig(), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == 71_883_403


def test_patchgan_has_the_published_number_of_parameters():
    model = jax.eval_shape(lambda: PatchGAN(64, 3, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == 2_765_633 + 0
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    assert jax.eval_shape(model.__class__.__call__, model, images)[0].shape == (2, 30, 30)


@pytest.mark.parametrize("block", [1, 18 * 7, 10**6])
def test_nearest_is_the_nearest_and_ties_go_to_the_first(block):
    rng = np.random.default_rng(0)
    z, table = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(50, 4))
    table[30] = table[7]
    found = quantizers.nearest(*(jnp.asarray(x, jnp.float32) for x in (z, table)), block)
    distances = ((z[..., None, :] - table) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(found, distances.argmin(axis=-1))
    assert quantizers.nearest(jnp.asarray(table[30], jnp.float32)[None, None, None], table, 20) == 7


def small():
    config = vq.VQConfig(
        channels=32, channel_multipliers=(1, 1), res_blocks=1, z_channels=32, codebook_size=16
    )
    return vq.VQTokenizer(config, jax.random.key(0))


def test_gradients_pass_straight_through_the_codebook():
    model = small()
    z = jax.random.normal(jax.random.key(1), (1, 2, 2, 8))
    weights = jax.random.normal(jax.random.key(2), z.shape)
    through = jax.grad(lambda z: (model.quantize(z).z_BhwC * weights).sum())(z)
    without = jax.grad(lambda z: (quantizers.normalize(z) * weights).sum())(z)
    np.testing.assert_allclose(through, without, atol=1e-6)


def test_the_codebook_loss_moves_the_codebook_and_commitment_the_encoder():
    model, z = small(), jax.random.normal(jax.random.key(1), (1, 2, 2, 8))

    def grads(loss):
        return jax.grad(lambda m, z: getattr(m.quantize(z), loss), argnums=(0, 1))(model, z)

    of_model, of_z = grads("codebook_loss")
    assert jnp.abs(of_model.codebook[...]).max() > 0 and not of_z.any()
    of_model, of_z = grads("commitment_loss")
    assert not of_model.codebook[...].any() and jnp.abs(of_z).max() > 0


def test_encode_gives_the_codes_that_training_sees():
    model = small()
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3), minval=-1)
    np.testing.assert_array_equal(
        model.encode(images), model.quantize(model.latents(images)).codes_Bhw
    )


def test_normalize_is_finite_at_zero():
    value, grad = jax.value_and_grad(lambda x: quantizers.normalize(x).sum())(jnp.zeros((2, 3)))
    assert value == 0 and jnp.isfinite(grad).all()


def test_channels_that_groupnorm_cannot_divide_are_refused():
    with pytest.raises(ValueError, match="channels = 48, expected a multiple of 32"):
        vq.VQConfig(channels=48)
