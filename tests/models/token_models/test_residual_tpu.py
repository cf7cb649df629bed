"""Residual, dropout and norms as one kernel, interpreted, against plain float32 mathematics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.models.token_models import platforms, residual_tpu
from maskgil_jax.models.token_models.layers import unit_rms
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.runtime import sharding

SEED = residual_tpu.seed_of(jax.random.key(7))


def shape(rate):
    return residual_tpu.Shape(rate=rate, eps=1e-5, interpreted=True)


@functools.cache
def inputs(B, S, D, norms, dtype="float32"):
    keys = jax.random.split(jax.random.key(0), 5)
    x, y, *weights = (jax.random.normal(k, (B, S, D)).astype(dtype) for k in keys[:4])
    scales = 1 + 0.3 * jax.random.normal(keys[4], (norms, D))
    return x, y, scales, weights[:norms]


def outputs_and_gradients(function, x, y, scales, weights):
    """Outputs, and gradients of a weighted sum of them."""

    def loss(x, y, scales):
        outputs = function(x, y, scales)
        pairs = zip(outputs, weights, strict=True)
        return sum((o.astype(jnp.float32) * w).sum() for o, w in pairs), outputs

    gradients, outputs = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(x, y, scales)
    return [*outputs, *gradients]


def plain(keep, rate, x, y, scales):
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    z = unit_rms(y) * scales[0]
    total = x + jnp.where(keep, z / (1 - rate), 0)
    return [total] if len(scales) == 1 else [total, unit_rms(total) * scales[1]]


def kernel(rate, x, y, scales):
    return residual_tpu.added(x, y, scales, SEED, shape(rate))


def kept(x, y, rate):
    """What dropout keeps, found by adding a constant norm to nothing."""
    ones = jnp.ones((1, x.shape[-1]))
    return kernel(rate, jnp.zeros_like(x), jnp.ones_like(y), ones)[0] != 0


@pytest.mark.parametrize("B, S, D, norms", [(3, 256, 128, 2), (1, 512, 384, 2), (5, 256, 384, 1)])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_plain_mathematics(B, S, D, norms, rate):
    assert residual_tpu.fits(D, S)
    given = inputs(B, S, D, norms)
    keep = kept(*given[:2], rate)
    found = outputs_and_gradients(functools.partial(kernel, rate), *given)
    expected = outputs_and_gradients(functools.partial(plain, keep, rate), *given)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * float(jnp.abs(b).max()))


def test_bfloat16_is_within_its_rounding_of_float32():
    exact, rounded = inputs(2, 512, 384, 2), inputs(2, 512, 384, 2, "bfloat16")
    keep = kept(*exact[:2], 0.3)
    found = outputs_and_gradients(functools.partial(kernel, 0.3), *rounded)
    expected = outputs_and_gradients(functools.partial(plain, keep, 0.3), *exact)
    for a, b in zip(found, expected, strict=True):
        error = jnp.abs(a.astype(jnp.float32) - b)
        assert error.max() < 0.03 * jnp.abs(b).max() and error.mean() < 0.01 * jnp.abs(b).mean()


def test_dropout_keeps_its_share_everywhere_and_another_seed_keeps_others():
    x, y, *_ = inputs(3, 2048, 128, 2)
    keep = np.asarray(kept(x, y, 0.3))
    assert abs(keep.mean() - 0.7) < 3e-3
    assert np.abs(keep.mean(axis=(0, 1)) - 0.7).max() < 0.05  # of each channel
    ones = jnp.ones((1, 128))
    other = residual_tpu.added(x * 0, y * 0 + 1, ones, SEED + 1, shape(0.3))[0] != 0
    assert abs((keep == np.asarray(other)).mean() - (0.7**2 + 0.3**2)) < 5e-3
    assert abs((keep[0] == keep[1]).mean() - (0.7**2 + 0.3**2)) < 5e-3


@pytest.mark.slow
def test_on_a_mesh_it_gives_the_same_and_drops_the_same():
    given = inputs(8, 512, 384, 2)
    expected = outputs_and_gradients(functools.partial(kernel, 0.3), *given)
    mesh = sharding.make_mesh(dict(data=2, fsdp=2, tensor=2))
    by_batch, whole = NamedSharding(mesh, sharding.BATCH), NamedSharding(mesh, P())
    with jax.set_mesh(mesh):
        x, y, scales, weights = given
        laid_out = jax.device_put((x, y), by_batch)
        found = outputs_and_gradients(
            functools.partial(kernel, 0.3),
            *laid_out,
            jax.device_put(scales, whole),
            jax.device_put(weights, by_batch),
        )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.slow
def test_a_network_with_it_and_its_gradients_are_those_of_the_plain_one(monkeypatch):
    config = LlamaConfig(
        layers=1, dim=128, heads=2, codebook_size=20, num_classes=3, grid=(4, 4), dropout=0.2
    )
    model = Llama(config, jax.random.key(0))
    model.head = nnx.Param(jax.random.normal(jax.random.key(1), model.head.shape))
    codes = jax.random.randint(jax.random.key(2), (2, 4, 4), 0, 21)

    def loss(model, key=None):
        x_BLD = model.backbone(codes, jnp.array([0, 3]), key)
        return (model.classify(model.normed(x_BLD)) ** 2).mean()

    expected = jax.jit(jax.value_and_grad(loss))(model)
    row = dataclasses.replace(
        platforms.current(), splits_sequence=True, fused_additions=True, fused_attention=""
    )
    monkeypatch.setattr(platforms, "current", lambda: row)
    monkeypatch.setattr(residual_tpu, "MOST_ROWS", 16)
    calls = []
    added = residual_tpu.added
    monkeypatch.setattr(residual_tpu, "added", lambda *a: calls.append(a) or added(*a))
    found = jax.jit(jax.value_and_grad(loss))(model)
    assert [len(norms) for _, _, norms, *_ in calls[:2]] == [2, 1]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))
    with_key = jax.jit(loss)
    dropped = [float(with_key(model, jax.random.key(k))) for k in (3, 3, 4)]
    assert dropped[0] == dropped[1] != dropped[2] and dropped[0] != float(found[0])


def test_what_does_not_fit_is_left_to_the_compiler():
    assert residual_tpu.fits(1536, 256) and residual_tpu.fits(1280, 1024)
    assert residual_tpu.fits(128, 256) and not residual_tpu.fits(96, 256)
    assert not residual_tpu.fits(1536, 257)
    assert not residual_tpu.fits(1536, 1)


@pytest.mark.slow
@pytest.mark.parametrize("topology, D", [("v5e:2x2", 1536), ("v5p:2x2x1", 4096), ("v6e:2x2", 1280)])
def test_the_kernel_compiles_for_tpus_split_over_the_batch(topology, D):
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import programs

    mesh = sharding.make_mesh(dict(data=1, fsdp=2, tensor=2), programs.devices_of(topology))

    def loss(x, y, norms, seed):
        on_chip = residual_tpu.Shape(rate=0.1, eps=1e-5, interpreted=False)
        outputs = residual_tpu.added(x, y, norms, seed, on_chip)
        return sum((o.astype(jnp.float32) ** 2).sum() for o in outputs)

    arguments = [
        jax.ShapeDtypeStruct(size, dtype, sharding=NamedSharding(mesh, spec))
        for size, dtype, spec in (
            ((4, 256, D), jnp.bfloat16, P("fsdp")),
            ((4, 256, D), jnp.bfloat16, P("fsdp")),
            ((2, D), jnp.float32, P()),
            ((2,), jnp.int32, P()),
        )
    ]
    with jax.set_mesh(mesh):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arguments)
        text = traced.lower(lowering_platforms=("tpu",)).compile().as_text()
    assert text.count("tpu_custom_call") >= 2
