import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.tokenizers import quantizers
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.training import codebook
from tests.helpers import golden, random_weights


@pytest.mark.parametrize("block", [1, 18 * 7, 10**6])
def test_nearest_is_the_nearest_and_ties_go_to_the_first(block):
    rng = np.random.default_rng(0)
    z, table = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(50, 4))
    table[30] = table[7]
    found = quantizers.nearest(*(jnp.asarray(x, jnp.float32) for x in (z, table)), block)
    distances = ((z[..., None, :] - table) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(found, distances.argmin(axis=-1))
    assert quantizers.nearest(jnp.asarray(table[30], jnp.float32)[None, None, None], table, 20) == 7


def test_normalize_is_finite_at_zero():
    value, grad = jax.value_and_grad(lambda x: quantizers.normalize(x).sum())(jnp.zeros((2, 3)))
    assert value == 0 and jnp.isfinite(grad).all()


def tokenizer(quantizer, codebook_size, codebook_dim):
    """The smallest network with this quantizer."""
    config = VQConfig(
        channels=32,
        channel_multipliers=(1,),
        res_blocks=1,
        z_channels=0,
        attention=False,
        quantizer=quantizer,
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        search_block=100,  # several blocks
    )
    return random_weights.network(lambda: VQTokenizer(config, jax.random.key(0)))


@pytest.mark.parametrize("quantizer, name", [("cosine", ""), ("euclidean", "plain_")])
def test_vector_quantisation_is_the_official_one(quantizer, name):
    """LlamaGen's, with and without l2 normalisation: losses, usage, codes, gradients."""
    arrays = golden.arrays("llamagen_vq_loss")
    table = arrays["quantizer_codebook"] * (0.5 if name else 1)
    model = tokenizer(quantizer, *table.shape)
    model.codebook[...] = jnp.asarray(table)
    z = jnp.asarray(arrays["quantizer_z"].transpose(0, 2, 3, 1))

    @jax.jit
    def official(model, z):
        def loss(model, z):
            found = model.quantize(z)
            terms = (found.codebook_loss, 0.25 * found.commitment_loss)
            terms += (0.1 * model.entropy_loss(z) if quantizer == "cosine" else jnp.zeros(()),)
            return (found.z_BhwC**2).sum() + sum(terms), (terms, found.codes_Bhw)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(model, z)

    (of_model, of_z), (terms, codes) = official(model, z)
    np.testing.assert_array_equal(codes, arrays[f"quantizer_{name}indices"].reshape(codes.shape))
    # The plain golden was made in eval mode, where the official code counts no usage.
    usage = 0.0
    if quantizer == "cosine":
        window = codebook.push(jnp.zeros(65536, jnp.int32), codes)
        usage = codebook.used(window, len(table)).mean()
    expected = f"quantizer_{name}terms"
    golden.check("llamagen_vq_loss", expected, np.array([*terms, usage]), arrays[expected])
    if quantizer == "cosine":
        gradients = {"z": of_z.transpose(0, 3, 1, 2), "codebook": of_model.codebook[...]}
        for key, found in gradients.items():
            expected = f"quantizer_grad_{key}"
            golden.check("llamagen_vq_loss", expected, found, arrays[expected])


def test_lookup_free_quantisation_is_the_official_one():
    """Open-MAGVIT2's: codes, entropies, commitment, gradient."""
    arrays = golden.arrays("lfq_loss")
    model = tokenizer("lookup_free", 256, 8)
    z = jnp.asarray(arrays["z"].transpose(0, 2, 3, 1))

    @jax.jit
    def official(model, z):
        def loss(z):
            found, entropies = model.quantize(z), quantizers.sign_entropies(z)
            terms = jnp.stack([*entropies, found.commitment_loss, model.entropy_loss(z)])
            return model.entropy_loss(z) + 0.25 * found.commitment_loss, (terms, found)

        return jax.grad(loss, has_aux=True)(z)

    of_z, (terms, found) = official(model, z)
    np.testing.assert_array_equal(found.codes_Bhw, arrays["indices"])
    golden.check("lfq_loss", "quantised", found.z_BhwC.transpose(0, 3, 1, 2), arrays["quantised"])
    golden.check("lfq_loss", "terms", terms, arrays["terms"])
    golden.check("lfq_loss", "grad_z", of_z.transpose(0, 3, 1, 2), arrays["grad_z"])


@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_entropies_do_not_depend_on_the_block(block):
    z, table = jax.random.normal(jax.random.key(0), (2, 3, 3, 4)), jnp.eye(13, 4) + 0.1
    squares = ((z.reshape(-1, 1, 4) - table) ** 2).sum(axis=-1)
    p = jax.nn.softmax(-squares / quantizers.TEMPERATURE, axis=-1)
    mean = p.mean(axis=0)
    expected = (
        -jax.scipy.special.xlogy(p, p).sum(axis=-1).mean(),
        -(mean * jnp.log(mean + 1e-5)).sum(),
    )
    np.testing.assert_allclose(quantizers.entropies(z, table, block), expected, atol=1e-4)


SIZES = {"sign vectors": 2**18, "codebook rows": 2**18}


@pytest.mark.parametrize("kind", SIZES)
def test_entropy_over_262144_codes_needs_no_number_for_each_position_and_code(kind):
    """One such array of float32 would take 16 GiB, and the backward pass would hold several."""
    positions, codes = 16384, SIZES[kind]
    z = jax.ShapeDtypeStruct((64, 16, 16, 18), jnp.float32)
    table = jax.ShapeDtypeStruct((codes, 18), jnp.float32)
    assert z.size // 18 == positions and 4 * positions * codes > 8 * 2**30
    block = VQConfig().search_block

    def loss(z, table):
        if kind == "sign vectors":
            of_positions, of_mean = quantizers.sign_entropies(z)
        else:
            of_positions, of_mean = quantizers.entropies(z, table, block)
        return of_positions - of_mean

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(z, table).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < (2**28 if kind == "sign vectors" else 8 * 4 * block), temporary
