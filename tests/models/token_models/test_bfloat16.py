"""Every network trains in bfloat16: some layouts of its products are not there on every backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.token_models.bert import BertConfig
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.halton import HaltonConfig
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig
from maskgil_jax.pretrained import networks
from maskgil_jax.training import generator_loss

pytestmark = pytest.mark.gpu

SHAPE = dict(layers=2, dim=128, heads=4, codebook_size=512, grid=(8, 8), dropout=0.1)
CLASSES, FEATURES = dict(num_classes=5), dict(num_classes=0, feature_dim=24, condition_tokens=6)
NETWORKS = {
    "paper": lambda **dtype: LlamaConfig(**SHAPE, **CLASSES, **dtype),
    "released": lambda **dtype: LlamaConfig(
        **SHAPE, **CLASSES, **PRESETS["maskgil_released"], **dtype
    ),
    "causal": lambda **dtype: LlamaConfig(**SHAPE, **CLASSES, **PRESETS["llamagen"], **dtype),
    "text": lambda **dtype: LlamaConfig(
        **SHAPE, **FEATURES, condition_rope="identity", remat="full", **dtype
    ),
    "besnier": lambda **dtype: BertConfig(**SHAPE, **CLASSES, mlp_dim=512, **dtype),
    "maskgit": lambda **dtype: BertConfig(
        **SHAPE, **CLASSES, mlp_dim=512, style="maskgit", attention_dropout=0.1, **dtype
    ),
    "halton": lambda **dtype: HaltonConfig(**SHAPE, **CLASSES, mlp_dim=512, **dtype),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_and_gradients_are_those_of_float32_nearly(name):
    rng = np.random.default_rng(0)
    condition = jnp.array(rng.integers(5, size=4))
    if name == "text":
        features = jnp.array(rng.standard_normal((4, 6, 24), np.float32))
        condition = Features(features, jnp.array(rng.random((4, 6)) < 0.7))
    examples = {
        "codes": jnp.array(rng.integers(512, size=(4, 8, 8))),
        "masked": jnp.array(rng.random((4, 8, 8)) < 0.6),
        "weight": jnp.ones((4, 8, 8)),
        "condition": condition,
    }
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = NETWORKS[name](dtype=dtype)
        like = jax.eval_shape(lambda c=config: networks.init_network(c, jax.random.key(0)))
        draws = np.random.default_rng(1)
        leaves, structure = jax.tree.flatten(like)
        leaves = [0.05 * draws.standard_normal(x.shape, np.float32) + 0.02 for x in leaves]
        network = jax.tree.unflatten(structure, leaves)
        found[dtype] = jax.jit(
            jax.value_and_grad(
                lambda network: generator_loss.weighted_loss(
                    network, examples, jax.random.key(2), label_smoothing=0.1, chunk=16
                )[0]
            )
        )(network)
    (loss, grads), (loss16, grads16) = found["float32"], found["bfloat16"]
    np.testing.assert_allclose(loss16, loss, rtol=0.02)
    flat, flat16 = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(g)]) for g in (grads, grads16)
    )
    assert flat16.dtype == np.float32
    similarity = flat @ flat16 / np.linalg.norm(flat) / np.linalg.norm(flat16)
    assert similarity > 0.98
