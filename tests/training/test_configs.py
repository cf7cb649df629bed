"""The steps of the real configs, traced at full size: shapes, dtypes and shardings, no memory."""

import importlib

import jax
import jax.numpy as jnp
import pytest

from maskgil_jax import sharding
from maskgil_jax.training import generator_stage, tokenizer_stage


def check(init, step, batch, config):
    """The step gives a state like the one it took, of float32, and every leaf has a layout."""
    before = jax.eval_shape(init)
    after, metrics = jax.eval_shape(step, before, batch)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
    assert {leaf.dtype.name for leaf in jax.tree.leaves(before.model)} == {"float32"}
    assert all(value.shape == () for value in metrics.values())
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    shardings = sharding.state_shardings(before, mesh)
    parts = {
        leaf.size // int(jnp.prod(jnp.array(layout.shard_shape(leaf.shape))))
        for leaf, layout in zip(jax.tree.leaves(before), jax.tree.leaves(shardings), strict=True)
        if leaf.size > 10**6
    }
    assert parts == {mesh.shape["fsdp"]}


@pytest.mark.parametrize("name", ["b", "l", "xl", "xxl"])
def test_a_training_step_of_each_generator(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    network = generator_stage.network_config(config.model, 16384, (16, 16))
    assert network.dtype == "bfloat16" and config.batch_size == 256
    batch = {
        "codes": jax.ShapeDtypeStruct((config.batch_size, 16, 16), jnp.int32),
        "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
    }
    check(
        lambda: generator_stage.init(config, network),
        lambda state, batch: generator_stage.step(state, None, batch, config),
        batch,
        config,
    )


def test_a_training_step_of_the_tokenizer():
    config = importlib.import_module("configs.vq16").get_config()
    shape = (config.batch_size, 256, 256, 3)
    check(
        lambda: tokenizer_stage.init(config, tokenizer_stage.tokenizer_config(config)),
        lambda state, batch: tokenizer_stage.step(state, batch, config),
        {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)},
        config,
    )
