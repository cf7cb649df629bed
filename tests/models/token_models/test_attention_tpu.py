"""The TPU's kernels against plain attention in float32, run by Pallas' interpreter."""

import dataclasses

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.models.token_models import attention_tpu, platforms
from maskgil_jax.models.token_models.attention_heads import Shape
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_layers import Block
from maskgil_jax.models.token_models.split_layers import FusedLayer, SplitLayer
from maskgil_jax.runtime import sharding
from tests.helpers import random_weights
from tests.helpers.tiny_llama import TINY, built

CONFIG = dataclasses.replace(TINY, dim=128, heads=2, grid=(8, 16), ffn_multiple=64)


def plain(qkv, real, norms, table, qk_norm):
    """What the kernel makes of queries, keys and values [B, 3, N, T], as it is written in books."""
    (B, _, N, T), K = qkv.shape, norms.shape[1]
    q, k, v = qkv.reshape(B, 3, N // K, K, T).transpose(1, 0, 2, 4, 3)

    def turned(x, scale, bias):
        x = x - x.mean(axis=-1, keepdims=True) if qk_norm == "layer" else x
        if qk_norm != "none":
            rms = jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
            x = x / rms * scale + bias
        a, b, cos, sin = x[..., ::2], x[..., 1::2], table[..., 0], table[..., 1]
        return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)

    q, k = turned(q, *norms[:2]), turned(k, *norms[2:])
    scores = jnp.einsum("bhqk,bhtk->bhqt", q, k) * K**-0.5
    weights = jax.nn.softmax(jnp.where(real[:, None, None], scores, -1e30))
    out = jnp.einsum("bhqt,bhtk->bhkq", weights, v).reshape(B, N, T)
    return jnp.where(real[:, None], out, 0)


def example(T, condition, K, heads, scale=1.0):
    """Random queries, keys and values, a mask of the condition's tokens, norms and rotations.

    Of the first example's condition all but one token are padding, of the second's half of them.
    """
    rng = np.random.default_rng(T)
    qkv = jnp.asarray(rng.standard_normal((2, 3, heads * K, T)), jnp.float32)
    real = np.ones((2, T), bool)
    real[0, 1:condition] = False
    real[1, condition // 2 : max(condition - 1, 0)] = False
    norms = scale * jnp.asarray(1 + 0.3 * rng.standard_normal((4, K)), jnp.float32)
    angles = rng.standard_normal((T, K // 2)).astype(np.float32)
    return qkv, jnp.asarray(real), norms, np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def of_kernel(qkv, real, norms, table, qk_norm):
    shape = Shape(norms.shape[1], qk_norm)
    return attention_tpu.attention(qkv, None, real, norms, table, shape)[0]


def with_gradients(attend, dtype, qkv, real, norms, table, qk_norm):
    """Of queries, keys, values and norms, and of a loss that weighs each output."""

    def loss(qkv, norms):
        out = attend(qkv.astype(dtype), real, norms, table, qk_norm).astype(jnp.float32)
        return (out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)).sum(), out

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(qkv, norms)


def largest_error(found, expected):
    """Norm of the difference over the norm, of the worst array."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    norms = ((np.linalg.norm(np.float32(a) - np.float32(b)), np.linalg.norm(b)) for a, b in pairs)
    return max(float(difference / max(norm, 1e-6)) for difference, norm in norms)


@pytest.mark.parametrize(
    "T, condition, K, heads, qk_norm",
    [
        pytest.param(1024 + 120, 120, 128, 1, "rms", id="three tiles"),
        pytest.param(77, 9, 80, 1, "none", id="less than a register"),
        pytest.param(300, 1, 64, 2, "layer", marks=pytest.mark.slow),
        pytest.param(1024 + 120, 120, 64, 2, "layer", marks=pytest.mark.slow),
        pytest.param(257, 0, 64, 4, "none", marks=pytest.mark.slow),
        pytest.param(700, 256, 80, 2, "layer", marks=pytest.mark.slow, id="two tiles"),
    ],
)
def test_the_kernel_and_its_gradients_are_those_of_plain_attention(T, condition, K, heads, qk_norm):
    given = (*example(T, condition, K, heads), qk_norm)
    found, exact = (with_gradients(f, "float32", *given) for f in (of_kernel, plain))
    assert largest_error(found, exact) < 1e-5


def test_large_scores_are_as_exact():
    """Of two tiles, where the bound of the scores would let all weights vanish."""
    given = example(700, 9, 80, 1, scale=6.0)
    found, exact = (
        jax.jit(lambda *arrays, f=f: f(*arrays, "layer"))(*given) for f in (of_kernel, plain)
    )
    assert largest_error(found, exact) < 1e-4


@pytest.mark.slow
def test_the_kernel_in_bfloat16_rounds_as_bfloat16_does():
    given = (*example(1024 + 120, 120, 64, 2), "layer")
    exact = with_gradients(plain, "float32", *given)
    assert largest_error(with_gradients(of_kernel, "bfloat16", *given), exact) < 0.01


def test_where_nothing_is_differentiated_no_statistics_are_made():
    given = (*example(77, 0, 64, 2), "none")
    qkv, *others = given

    def loss(qkv):
        return of_kernel(qkv, *others).sum()

    assert [len(one.outvars) for one in kernels_in(jax.make_jaxpr(loss)(qkv).jaxpr)] == [1]
    both = kernels_in(jax.make_jaxpr(jax.grad(loss))(qkv).jaxpr)
    assert [len(one.outvars) for one in both] == [2, 2]


def kernels_in(jaxpr):
    found = []
    for one in jaxpr.eqns:
        if one.primitive.name == "pallas_call":
            found.append(one)
        else:
            for inner in jax.extend.core.jaxprs_in_params(one.params):
                found += kernels_in(inner)
    return found


def test_a_model_of_captions_runs_on_it_and_padding_is_not_seen(monkeypatch):
    model = built(
        dim=128,
        heads=2,
        feature_dim=8,
        condition_tokens=5,
        num_classes=0,
        condition_rope="identity",
    )
    rng = np.random.default_rng(0)
    codes = jnp.asarray(rng.integers(0, 21, (2, 10, 11)))
    mask = jnp.arange(5) < jnp.array([[1], [3]])
    features = jnp.asarray(rng.standard_normal((2, 5, 8)), jnp.float32)
    run = lambda features: model(codes, Features(features, mask))  # noqa: E731
    expected = jax.jit(run)(features)
    row = platforms.PLATFORMS["tpu"]
    monkeypatch.setattr(platforms, "current", lambda: row)
    called = []
    real = attention_tpu.attention
    monkeypatch.setattr(attention_tpu, "attention", lambda *a: called.append(a) or real(*a))
    changed = jnp.where(mask[..., None], features, 9.0)
    found = jax.jit(lambda features: run(features))(changed)
    assert called
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def of_layer(made, dtype, **changes):
    """Outputs of a layer over two parts, and gradients of its random weights and inputs."""
    config = dataclasses.replace(CONFIG, dtype=dtype, **changes)
    block = random_weights.network(lambda: Block(config, jax.random.key(0)), 0.1)
    lengths = (1, 128) if config.condition_position == "first" else (128, 1)
    rng = np.random.default_rng(1)
    x = tuple(jnp.asarray(rng.standard_normal((2, n, config.dim)), jnp.float32) for n in lengths)
    network = random_weights.network(lambda: Llama(config, jax.random.key(2)))
    tables = tuple(np.split(network.rotations(8, 16), [lengths[0]]))

    def loss(block, x):
        y = made(block).over_parts(tuple(part.astype(dtype) for part in x), tables, None)
        weighed = [
            (p.astype(jnp.float32) * jnp.cos(jnp.arange(p.size)).reshape(p.shape)) for p in y
        ]
        return sum(w.sum() for w in weighed), y

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(block, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        dict(dim=256, heads=4),
        dict(qk_norm="rms", condition_position="last"),
        dict(qk_norm="none", condition_rope="identity", post_norm="none"),
        dict(heads=1),
    ],
)
def test_a_fused_layer_and_its_gradients_are_those_of_a_layer(changes):
    exact, found = (of_layer(made, "float32", **changes) for made in (SplitLayer, FusedLayer))
    assert largest_error(found, exact) < 1e-4


@pytest.mark.slow
def test_a_fused_layer_in_bfloat16_is_as_exact_as_a_layer():
    exact = of_layer(SplitLayer, "float32")
    plain_error, fused = (
        largest_error(of_layer(made, "bfloat16"), exact) for made in (SplitLayer, FusedLayer)
    )
    assert fused < 1.2 * plain_error < 0.03


def test_what_the_kernels_do_not_fit_is_left_to_the_compiler():
    assert attention_tpu.fits_parts(head_dim=64, heads=24, tokens=256, few=1)
    for change in (dict(head_dim=100), dict(heads=3), dict(tokens=64), dict(few=120)):
        assert not attention_tpu.fits_parts(
            **{**dict(head_dim=64, heads=24, tokens=256, few=1), **change}
        )
    assert attention_tpu.fits(head_dim=80, heads=3, tokens=4096 + 256)
    for change in (dict(head_dim=100), dict(heads=3), dict(tokens=10_000)):
        assert not attention_tpu.fits(**{**dict(head_dim=64, heads=20, tokens=4352), **change})


def traced(topology, tokens, few):
    """The kernels, forward and backward, of 4 images and 4 heads of 64, on 4 chips."""
    from maskgil_jax.planning import programs

    devices = programs.devices_of(topology)
    mesh = sharding.make_mesh(dict(data=1, fsdp=2, tensor=2), devices)
    real = jnp.ones((4, tokens + few), bool)
    table = np.ones((tokens + few, 32, 2), np.float32)

    def loss(image, few, norms):
        out = attention_tpu.attention(image, few, real, norms, table, Shape(64, "layer"))
        return sum(x.astype(jnp.float32).sum() for x in jax.tree.leaves(out))

    arguments = [
        jax.ShapeDtypeStruct(size, dtype, sharding=NamedSharding(mesh, spec))
        for size, dtype, spec in (
            ((4, 3, 256, tokens), jnp.bfloat16, P("fsdp", None, "tensor")),
            ((4, 3, few, 256), jnp.bfloat16, P("fsdp", None, None, "tensor")),
            ((4, 64), jnp.float32, P()),
        )
    ]
    if not few:
        arguments[1] = None
    with jax.set_mesh(mesh):
        return jax.jit(jax.grad(loss, argnums=(0, 2))).trace(*arguments)


@pytest.mark.parametrize(
    "topology, tokens, few",
    [
        ("v5p:2x2x1", 256, 1),
        ("v5e:2x2", 1024 + 120, 0),
        pytest.param("v6e:2x2", 256, 1, marks=pytest.mark.slow),
        pytest.param("v5p:2x2x1", 4096 + 256, 0, marks=pytest.mark.slow),
        pytest.param("v6e:2x2", 8192, 0, marks=pytest.mark.slow),
    ],
)
def test_the_kernels_compile_for_tpus_split_over_batch_and_heads(topology, tokens, few):
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import hlo, kernels
    from maskgil_jax.planning.chips import CHIPS

    program = traced(topology, tokens, few)
    text = program.lower(lowering_platforms=("tpu",)).compile().as_text()
    works = kernels.traced(program.jaxpr.jaxpr, CHIPS[topology[:3]])
    found = kernels.compiled(hlo.parse(text), works)
    assert len(found) == 2 and all(one.times == 1 for one in found)
    # Of a chip: two images, two heads; at least the products of a head with all others.
    scores = 2 * 2 * (tokens + few) ** 2
    assert all(one.work.flops > scores * 2 * 2 * 64 for one in found)
    assert all(one.work.exponentials >= scores for one in found)
