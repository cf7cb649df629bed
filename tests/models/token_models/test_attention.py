import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.token_models import attention as attention_module
from maskgil_jax.models.token_models.attention import (
    attention,
    attention_heads_first,
    attention_of_parts,
    fused_attention,
)

pytestmark = pytest.mark.gpu


def heads(seed, count=3, shape=(2, 7, 3, 4)):
    return [jax.random.normal(k, shape) for k in jax.random.split(jax.random.key(seed), count)]


def compared(q, k, v, mask, boundary):
    """Outputs and gradients of our attention and of JAX's, of a loss that weighs each query."""

    def loss(function):
        weights = jnp.arange(1.0, 1 + q.shape[1])[:, None, None]
        return lambda *qkv: (weights * function(*qkv) ** 2).sum()

    heads_first = lambda x: x.transpose(0, 2, 1, 3)  # noqa: E731
    functions = (
        lambda *qkv: heads_first(attention_heads_first(*map(heads_first, qkv), mask, boundary)),
        lambda *qkv: jax.nn.dot_product_attention(*qkv, mask=mask),
    )
    return [jax.value_and_grad(loss(f), argnums=(0, 1, 2))(q, k, v) for f in functions]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("boundary", [0, 1, 3, 6])
def test_attention_and_its_gradients_are_those_of_jax_wherever_it_is_cut(boundary, masked):
    # Every row sees a key, not all of them its own.
    mask = jnp.tril(jnp.ones((7, 7), bool), 2)[None, None] if masked else None
    found, expected = compared(*heads(1), mask, boundary)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tokens, masked", [(7, False), (8, False), (8, True)])
def test_the_fused_attention_of_gpus_is_the_same(tokens, masked):
    q, k, v = heads(2, shape=(2, 3, tokens, 8))
    mask = jnp.tril(jnp.ones((tokens, tokens), bool), 2)[None, None] if masked else None

    def loss(attend):
        weights = jnp.arange(1.0, 1 + tokens)[:, None]
        return lambda *qkv: (weights * attend(*qkv, mask) ** 2).sum()

    fused = functools.partial(fused_attention, implementation="xla")  # in cuDNN's place
    found, expected = (
        jax.value_and_grad(loss(attend), argnums=(0, 1, 2))(q, k, v)
        for attend in (fused, attention_heads_first)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_the_last_queries_of_a_cache_get_what_all_would():
    q, k, v = (x.transpose(0, 2, 1, 3) for x in heads(2))
    mask = jnp.tril(jnp.ones((7, 7), bool))[None, None]
    (found,) = attention_of_parts((q[:, :, 5:],), (k,), (v,), mask[:, :, 5:])
    expected = attention_of_parts((q,), (k,), (v,), mask)[0][:, :, 5:]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_of_tokens_times_tokens_is_kept_for_the_derivative():
    q, k, v = heads(3, shape=(1, 129, 2, 8))
    _, derivative = jax.vjp(lambda *qkv: attention(*qkv, boundary=1), q, k, v)
    assert max(x.size for x in jax.tree.leaves(derivative)) <= q.size


@pytest.mark.parametrize("batch, tokens, width", [(1, 13, 16), (3, 101, 64), (2, 257, 32)])
@pytest.mark.parametrize("boundary", [0, 1, -1, 4])
def test_attention_is_there_in_bfloat16_in_every_shape(batch, tokens, width, boundary):
    qkv = heads(3, shape=(batch, tokens, 2, width))

    def loss(*qkv):
        return (attention(*qkv, boundary=boundary % tokens).astype(jnp.float32) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    expected = gradient(*qkv)
    found = gradient(*(x.astype(jnp.bfloat16) for x in qkv))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        error = np.linalg.norm(np.asarray(a, np.float32) - b) / np.linalg.norm(b)
        assert error < 0.02


@pytest.mark.parametrize("tokens", [64, 61])
@pytest.mark.parametrize("masked", [False, True])
def test_queries_in_chunks_get_what_all_do_and_no_array_is_of_tokens_times_tokens(
    masked, tokens, monkeypatch
):
    q, k, v = (x.transpose(0, 2, 1, 3) for x in heads(4, shape=(2, tokens, 3, 8)))
    mask = jnp.tril(jnp.ones((tokens, tokens), bool), 2)[None, None] if masked else None
    parts = [(x[:, :, :3], x[:, :, 3:]) for x in (q, k, v)]

    def run():
        def attend(*parts):
            return jnp.concatenate(attention_of_parts(*parts, mask), axis=2)

        largest = max(x.size for x in arrays(jax.make_jaxpr(attend)(*parts).jaxpr))
        return jax.jit(attend)(*parts), largest

    whole, of_whole = run()
    monkeypatch.setattr(attention_module, "SCORES", 4 * tokens)
    chunked, of_chunks = run()
    np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)
    assert of_whole == 2 * 3 * (tokens - 3) ** 2 and of_chunks < of_whole / 4


def arrays(jaxpr):
    """All arrays that a trace makes, those within its loops too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from arrays(inner)
