"""The steps of the real configs, traced at full size: shapes, dtypes and shardings, no memory."""

import importlib
import math

import jax
import jax.extend
import jax.numpy as jnp
import pytest

from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.pretrained import presets
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_step, tokenizer_stage, tokenizer_step


def check(init, step, batch, config):
    """The step gives a state like the one it took, of float32, and every leaf has a layout.

    And it sums nothing in bfloat16, whose sums stop to grow after some hundred terms.
    """
    before = jax.eval_shape(init)
    traced, (after, metrics) = jax.make_jaxpr(step, return_shape=True)(before, batch)
    assert not bfloat16_sums(traced.jaxpr)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
    assert {leaf.dtype.name for leaf in jax.tree.leaves(before.model)} == {"float32"}
    assert all(value.shape == () for value in metrics.values())
    mesh = sharding.make_mesh(sharding.with_fsdp(config.mesh, config.model.get("dim", 0)))
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    shardings = sharding.state_shardings(before, mesh)
    parts = {
        leaf.size // math.prod(layout.shard_shape(leaf.shape))
        for leaf, layout in zip(jax.tree.leaves(before), jax.tree.leaves(shardings), strict=True)
        if leaf.size > 10**6
    }
    assert parts == {mesh.shape["fsdp"]}
    return before


def bfloat16_sums(jaxpr):
    """The equations of a jaxpr, and of those within it, that sum several bfloat16 numbers."""
    found = []
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("reduce_sum", "cumsum", "scatter-add"):
            terms = equation.invars[0].aval
            several = terms.size > equation.outvars[0].aval.size or name != "reduce_sum"
            found += [str(equation)] if terms.dtype == jnp.bfloat16 and several else []
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found += bfloat16_sums(inner)
    return found


def check_generator(config, network, batch):
    return check(
        lambda: generator_step.init(config, network, None),
        lambda state, batch: generator_step.step(state, generator_step.Frozen(), batch, config),
        batch,
        config,
    )


def config_of(name):
    file, _, argument = name.partition(":")
    return importlib.import_module(f"configs.{file}").get_config(*filter(None, [argument]))


GENERATORS = [
    "b",
    "l",
    "xl",
    "xxl",
    "xxl_512",
    "xxxl",
    "7b",
    "ar_b",
    "both_b",
    "bert_b",
    "bert_b:maskgit",
    "bert_b:halton",
]


@pytest.mark.parametrize("name", GENERATORS)
def test_a_training_step_of_each_generator(name):
    config = config_of(name)
    grid = (config.data.image_size // 16,) * 2
    network = presets.network_config(config.model, 16384, grid, config.loss)
    assert network.dtype == "bfloat16" and config.batch_size == 256
    batch = {
        "codes": jax.ShapeDtypeStruct((config.batch_size, *grid), jnp.int32),
        "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
    }
    check_generator(config, network, batch)


# Of text and speech: parameters, and the tokens of a square.
PROMPTED = {
    "t2i_xl": (757_333_504, 16),
    "t2i_xl:512": (757_333_504, 32),
    "t2i_xl:1024": (757_333_504, 64),
    "s2i_xl:1024": (758_513_152, 64),
}


@pytest.mark.parametrize(
    "name", ["t2i_xl:1024", *(pytest.param(n, marks=pytest.mark.slow) for n in list(PROMPTED)[:-1])]
)
def test_a_training_step_of_each_generator_of_text_or_speech(name):
    config, (parameters, side) = config_of(name), PROMPTED[name]
    assert config.data.image_size == 16 * side
    network = presets.network_config(config.model, 8192, (side, side), config.loss)
    B, T, C = config.batch_size, config.model.condition_tokens, config.model.feature_dim
    batch = {
        "codes": jax.ShapeDtypeStruct((B, side, side), jnp.int32),
        "features": jax.ShapeDtypeStruct((B, T, C), jnp.float32),
        "mask": jax.ShapeDtypeStruct((B, T), jnp.bool_),
    }
    state = check_generator(config, network, batch)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.model)) == parameters


@pytest.mark.parametrize("name, parameters", [("7B", 7_013_158_912), ("34B", 34_293_522_432)])
def test_a_training_step_of_lumina_mgpt(name, parameters):
    """With norms of queries and keys in Lumina's rows; transformers has one for each head."""
    config = config_of(f"lumina_mgpt:{name}")
    network = presets.network_config(config.model, 8192, (32, 32), config.loss)
    B, T = config.batch_size, config.model.condition_tokens
    batch = {
        "codes": jax.ShapeDtypeStruct((B, 32, 32), jnp.int32),
        "ids": jax.ShapeDtypeStruct((B, T), jnp.int32),
        "mask": jax.ShapeDtypeStruct((B, T), jnp.bool_),
    }
    state = check_generator(config, network, batch)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.model)) == parameters
    assert "expected 7B or 34B" in message_of(lambda: config_of("lumina_mgpt:8B"))


def test_a_size_that_there_is_no_config_of_is_refused_and_the_nearest_named():
    for size, nearest in {"700": "512", "2048": "1024"}.items():
        message = message_of(lambda size=size: config_of(f"t2i_xl:{size}"))
        assert message == (
            f"'{size}' after the colon, expected 256 or 512 or 1024; {nearest} is the nearest"
        )
    assert message_of(lambda: config_of("s2i_xl:big")).endswith("expected 256 or 512 or 1024")


TOKENIZERS = {
    "vq16": 71_883_403,
    "vq8": 70_109_835,
    "maskgit_vq": 72_141_699,
    "maskgit_vq:google": 54_515_587,
    "chameleon_vq": 68_718_467,
    "magvit2": 115_127_829,
    "magvit2:128": 112_021_653,
}


FAST = ("vq16", "maskgit_vq:google", "magvit2")


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TOKENIZERS],
)
def test_a_training_step_of_each_tokenizer(name):
    """Each with LPIPS, and with the published number of parameters."""
    config = config_of(name)
    tokenizer_stage.check_loss(config)
    assert "--config.loss.lpips" in message_of(lambda: tokenizer_stage.check_lpips(config))
    networks = (
        tokenizer_stage.tokenizer_config(config),
        tokenizer_stage.discriminator_config(config),
    )
    lpips = jax.eval_shape(lambda: LPIPS(LPIPSConfig(dtype=config.model.dtype), jax.random.key(0)))
    shape = (config.batch_size, config.data.image_size, config.data.image_size, 3)
    state = check(
        lambda: tokenizer_step.init(config, *networks, {}),
        lambda state, batch: tokenizer_step.step(
            state, batch["lpips"], {"image": batch["image"]}, config
        ),
        {"image": jax.ShapeDtypeStruct(shape, jnp.uint8), "lpips": lpips},
        config,
    )
    tokenizer = state.model["tokenizer"]
    assert sum(leaf.size for leaf in jax.tree.leaves(tokenizer)) == TOKENIZERS[name]


@pytest.mark.parametrize(
    "name, side",
    [
        *(("cifar10", 8), ("cifar10:cpu", 8), ("emoji", 8)),
        *(("imagenette64", 16), ("imagenette64:cpu", 8)),
    ],
)
def test_the_stages_of_a_config_fit_one_another(name, side):
    """The tokenizer gives the grid and the codes that the generator's step takes."""
    stages = config_of(name).stages
    tokenizer, codes, generator = (stages[s] for s in ("tokenizer", "codes", "generator"))
    network = tokenizer_stage.tokenizer_config(tokenizer)
    assert tokenizer.data.image_size == codes.image_size == generator.data.image_size
    assert tokenizer.data.source == codes.source
    assert network.downsample * side == generator.data.image_size
    tokenizer_stage.check_loss(tokenizer)
    of_codes = presets.network_config(
        generator.model, tokenizer.model.codebook_size, (side, side), generator.loss
    )
    B, T, C = generator.batch_size, generator.model.condition_tokens, generator.model.feature_dim
    conditions = {"label": jax.ShapeDtypeStruct((B,), jnp.int32)}
    if C:
        conditions = {
            "features": jax.ShapeDtypeStruct((B, T, C), jnp.float32),
            "mask": jax.ShapeDtypeStruct((B, T), jnp.bool_),
        }
    codes_Bhw = jax.ShapeDtypeStruct((B, side, side), jnp.int32)
    check_generator(generator, of_codes, {"codes": codes_Bhw, **conditions})


def test_a_machine_that_there_is_no_recipe_for_is_refused():
    for name in ("cifar10", "imagenette64"):
        assert message_of(lambda name=name: config_of(f"{name}:tpu")) == (
            "'tpu' after the colon, expected gpu or cpu"
        )


def message_of(call):
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)
