import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import token_sampling
from tests.helpers import golden

RULES = golden.arrays("sampling_rules")
FILTERS = [(0, 0.9), (10, 1), (1, 1), (200, 1), (10, 0.7), (0, 0.05), (3, 0.5), (50, 0.95)]


@pytest.mark.parametrize("top_k, top_p", FILTERS)
def test_filters_are_the_official_ones(top_k, top_p):
    logits, name = RULES["logits"], f"k{top_k}_p{top_p}"
    found = token_sampling.filtered(jnp.asarray(logits), top_k, top_p)
    # Row 1 has ties, of which PyTorch's sort keeps any: its values are compared, not their places.
    np.testing.assert_array_equal(np.sort(found), np.sort(RULES[f"filtered_{name}"]))
    p = jax.nn.softmax(token_sampling.filtered(jnp.asarray(logits) / 0.7, top_k, top_p))
    np.testing.assert_allclose(np.sort(p), np.sort(RULES[f"probs_{name}_t0.7"]), atol=1e-6)
    unique = [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(found[unique,], RULES[f"filtered_{name}"][unique])


@pytest.mark.parametrize("classes", [7, 16, 1000])
def test_draws_follow_the_distribution(classes):
    logits = 2 * jax.random.normal(jax.random.key(0), (classes,))
    logits = logits.at[::3].set(-jnp.inf)
    uniform = (jnp.arange(200_000) + 0.5) / 200_000
    tokens, log_p = jax.vmap(lambda u: token_sampling.categorical(u, logits))(uniform)
    expected = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(np.bincount(tokens, minlength=classes) / 2e5, expected, atol=2e-5)
    np.testing.assert_allclose(log_p, np.log(expected[tokens]), atol=1e-4)


def test_what_has_no_probability_is_never_drawn():
    logits = jnp.array([-jnp.inf, 0.0, -jnp.inf, -jnp.inf, 0.0, -jnp.inf])
    uniform = jnp.array([0.0, 0.4999999, 0.5, np.nextafter(np.float32(1), np.float32(0))])
    tokens, _ = token_sampling.categorical(uniform, jnp.tile(logits, (4, 1)))
    assert tokens.tolist() == [1, 1, 4, 4]


@pytest.mark.parametrize("k", [1, 2, 50, 100])
def test_the_kth_largest_is_that_of_a_sort(k):
    x = np.random.default_rng(0).standard_normal((5, 100)).astype(np.float32)
    x[0, :10], x[1], x[2, 3], x[3, :60] = 0.0, -1.5, np.inf, -np.inf
    x[4, ::2] = -0.0
    np.testing.assert_array_equal(
        token_sampling.kth_largest(jnp.asarray(x), k), -np.sort(-x)[:, k - 1]
    )
