import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.encoders.gemma import Gemma, GemmaConfig
from maskgil_jax.runtime import sharding
from tests.helpers.tiny_gemma import CONFIG, network

GENERATIONS = [
    dict(),
    dict(generation=1, kv_heads=1, sliding_layers=(), rope_base=10000.0),
]
GEMMA_1_2B = GemmaConfig(
    generation=1,
    layers=18,
    dim=2048,
    heads=8,
    kv_heads=1,
    head_dim=256,
    ffn_dim=16384,
    vocab_size=256000,
    query_pre_attn_scalar=256,
)
GEMMA_3_270M = GemmaConfig(
    generation=3,
    layers=18,
    dim=640,
    heads=4,
    kv_heads=1,
    head_dim=256,
    ffn_dim=2048,
    vocab_size=262144,
    query_pre_attn_scalar=256,
)
FEATURES = jax.jit(Gemma.features)


@pytest.fixture(params=GENERATIONS, ids=["gemma3", "gemma1"])
def generation(request):
    return request.param


def inputs(lengths=(8, 5, 1, 3), tokens=8):
    """Ids, and which of them are not padding on the left."""
    ids = np.random.default_rng(0).integers(1, 400, (len(lengths), tokens)).astype(np.int32)
    mask = np.arange(tokens) >= tokens - np.array(lengths)[:, None]
    return ids, mask


@pytest.mark.parametrize(
    "config, count", [(GEMMA_1_2B, 2_506_172_416), (GEMMA_3_270M, 268_098_176)]
)
def test_parameter_counts_are_the_published_ones(config, count):
    model = jax.eval_shape(lambda: Gemma(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == count


@pytest.mark.parametrize("shift", [3, 0], ids=["left", "right"])
def test_padding_on_either_side_changes_nothing(generation, shift):
    model, (ids, _) = network(**generation), inputs()
    whole = FEATURES(model, ids, np.ones(ids.shape, bool))
    padded = np.pad(ids, ((0, 0), (shift, 3 - shift)), constant_values=7)
    mask = np.pad(np.ones(ids.shape, bool), ((0, 0), (shift, 3 - shift)))
    features = np.asarray(FEATURES(model, padded, mask))
    np.testing.assert_allclose(features[:, shift:][:, :8], whole, atol=1e-4)
    assert not features[~mask].any()


def test_a_token_sees_those_before_it_alone(generation):
    model, (ids, _) = network(**generation), inputs()
    mask, changed = np.ones(ids.shape, bool), ids.copy()
    changed[:, 4] += 1
    difference = np.abs(FEATURES(model, ids, mask) - FEATURES(model, changed, mask)).max(axis=-1)
    assert not difference[:, :4].any() and (difference[:, 4:] > 0).all()


def test_a_sliding_layer_sees_its_window():
    """The token itself, and as many before it as the window has left."""
    model, (ids, _) = network(layers=2, sliding_layers=(0, 1), layer=1), inputs()
    mask, changed = np.ones(ids.shape, bool), ids.copy()
    changed[:, 2] += 1
    difference = np.abs(FEATURES(model, ids, mask) - FEATURES(model, changed, mask)).max(axis=-1)
    assert (difference[:, 2:5] > 0).all() and not difference[:, 5:].any()


@pytest.mark.parametrize("layer", range(-4, 4))
def test_layers_after_the_chosen_one_do_not_matter(layer):
    model, (ids, mask) = network(layer=layer), inputs()
    used = layer % 4
    changed = dict(
        (i, jax.tree.map(lambda leaf, i=i: leaf.at[i].add(1.0), model.blocks)) for i in range(3)
    )
    found = FEATURES(model, ids, mask)
    for i, blocks in changed.items():
        other = jax.tree.map(lambda leaf: leaf, model)
        other.blocks = blocks
        assert np.array_equal(FEATURES(other, ids, mask), found) == (i >= used)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_features_are_the_same_when_sharded(mesh, generation):
    model, (ids, mask) = network(**generation), inputs((8, 5, 1, 3, 2, 8, 7, 6))
    expected = FEATURES(model, ids, mask)
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, mesh, strict=True)))
    shardings = sharding.state_shardings(model, mesh)
    with jax.set_mesh(mesh):
        batch = jax.device_put((ids, mask), jax.NamedSharding(mesh, sharding.BATCH))
        spread = FEATURES(jax.device_put(model, shardings), *batch)
    assert spread.sharding.is_equivalent_to(jax.NamedSharding(mesh, sharding.BATCH), 3)
    np.testing.assert_allclose(spread, expected, atol=1e-5)


def test_every_matrix_is_split():
    mesh = sharding.make_mesh(dict(data=1, fsdp=2, tensor=4))
    model = jax.eval_shape(lambda: Gemma(GEMMA_1_2B, jax.random.key(0)))
    shardings = sharding.state_shardings(model, mesh)
    for leaf, split in zip(jax.tree.leaves(model), jax.tree.leaves(shardings), strict=True):
        assert leaf.size < 1e6 or split.shard_shape(leaf.shape) != leaf.shape


def test_it_runs_inside_another_step(generation):
    """Frozen: the step takes its parameters as an argument, and has gradients of others."""
    model, (ids, mask) = network(**generation), inputs()

    @jax.jit
    def step(scale, model, ids, mask):
        return jax.grad(lambda s: (s * model.features(ids, mask)).sum())(scale)

    expected = FEATURES(model, ids, mask).sum()
    np.testing.assert_allclose(step(jnp.ones(()), model, ids, mask), expected, rtol=1e-4)


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_bfloat16_is_close(generation, param_dtype):
    ids, mask = inputs()
    exact = network(**generation, param_dtype=param_dtype)
    low = network(**generation, param_dtype=param_dtype, dtype="bfloat16")
    expected, found = FEATURES(exact, ids, mask), FEATURES(low, ids, mask)
    assert found.dtype == jnp.bfloat16 and expected.dtype == jnp.float32
    difference = np.abs(np.asarray(expected) - np.asarray(found, np.float32))
    assert 0 < difference.mean() < 0.05 * np.abs(np.asarray(expected)).mean()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(generation=2), r"generation = 2, expected one of \(1, 3\)"),
        (dict(heads=3), "heads = 3, expected a multiple of kv_heads = 2"),
        (dict(layer=4), "layer = 4, expected -4 to 3"),
        (dict(dtype="float16"), "dtype = 'float16'"),
        (dict(head_dim=0), "head_dim = 0, expected 1 or more"),
    ],
)
def test_impossible_networks_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
