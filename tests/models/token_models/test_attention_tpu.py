"""The TPU's kernel against attention as it is written elsewhere, run by Pallas' interpreter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.models.token_models import attention_tpu
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_layers import Block
from maskgil_jax.models.token_models.split_layers import FusedLayer, SplitLayer
from maskgil_jax.runtime import sharding
from tests.helpers import random_weights
from tests.helpers.tiny_llama import TINY

CONFIG = dataclasses.replace(TINY, dim=128, heads=2, grid=(8, 16), ffn_multiple=64)


def outputs_and_gradients(made, dtype, **changes):
    """Of a layer, its random weights and inputs, and a loss that weighs each output."""
    config = dataclasses.replace(CONFIG, dtype=dtype, **changes)
    block = random_weights.network(lambda: Block(config, jax.random.key(0)), 0.1)
    lengths = (1, 128) if config.condition_position == "first" else (128, 1)
    rng = np.random.default_rng(1)
    x = tuple(jnp.asarray(rng.standard_normal((2, n, config.dim)), jnp.float32) for n in lengths)
    network = random_weights.network(lambda: Llama(config, jax.random.key(2)))
    rotations = network.rotations(8, 16)
    tables = tuple(np.split(rotations, [lengths[0]]))

    def loss(block, x):
        parts = tuple(part.astype(dtype) for part in x)
        y = made(block).over_parts(parts, tables, None)
        weighed = [
            (p.astype(jnp.float32) * jnp.cos(jnp.arange(p.size)).reshape(p.shape)) for p in y
        ]
        return sum(w.sum() for w in weighed), y

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(block, x)


def largest_error(found, expected):
    """Norm of the difference over the norm, of the worst array."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    norms = ((np.linalg.norm(np.float32(a) - np.float32(b)), np.linalg.norm(b)) for a, b in pairs)
    return max(float(difference / max(norm, 1e-6)) for difference, norm in norms)


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
    exact, found = (
        outputs_and_gradients(made, "float32", **changes) for made in (SplitLayer, FusedLayer)
    )
    assert largest_error(found, exact) < 1e-4


@pytest.mark.slow
def test_a_fused_layer_in_bfloat16_is_as_exact_as_a_layer():
    exact = outputs_and_gradients(SplitLayer, "float32")
    plain, fused = (
        largest_error(outputs_and_gradients(made, "bfloat16"), exact)
        for made in (SplitLayer, FusedLayer)
    )
    assert fused < 1.2 * plain < 0.03


def test_what_the_kernel_does_not_fit_is_left_to_the_compiler():
    assert attention_tpu.fits(head_dim=64, heads=24, tokens=256, few=1)
    for change in (dict(head_dim=100), dict(heads=3), dict(tokens=64), dict(few=120)):
        assert not attention_tpu.fits(
            **{**dict(head_dim=64, heads=24, tokens=256, few=1), **change}
        )


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_kernel_compiles_for_tpus_split_over_batch_and_heads(topology):
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import hlo, kernels, programs
    from maskgil_jax.planning.chips import CHIPS

    devices = programs.devices_of(topology)
    mesh = sharding.make_mesh(dict(data=1, fsdp=2, tensor=2), devices)
    shape = attention_tpu.Shape(head_dim=64, qk_norm="layer", few=1)

    def loss(image, few, norms):
        tables = (jnp.ones((256, 32, 2)), jnp.ones((1, 32, 2)))
        out = attention_tpu.attention(image, few, norms, tables, shape)
        return sum(x.astype(jnp.float32).sum() for x in out)

    arguments = [
        jax.ShapeDtypeStruct(size, dtype, sharding=NamedSharding(mesh, spec))
        for size, dtype, spec in (
            ((4, 3, 256, 256), jnp.bfloat16, P("fsdp", None, "tensor")),
            ((4, 3, 1, 256), jnp.bfloat16, P("fsdp", None, None, "tensor")),
            ((4, 64), jnp.float32, P()),
        )
    ]
    with jax.set_mesh(mesh):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arguments)
        text = traced.lower(lowering_platforms=("tpu",)).compile().as_text()
    works = kernels.traced(traced.jaxpr.jaxpr, CHIPS[topology[:3]])
    found = kernels.compiled(hlo.parse(text), works)
    assert found and all(one.times == 1 for one in found)
    # Of a chip: two images, two heads; at least the products of a head with all others.
    assert all(one.work.flops > 2 * 2 * 2 * 2 * 257 * 257 * 64 for one in found)
    assert all(one.work.exponentials >= 2 * 2 * 257 * 257 for one in found)
