"""Muon: which parameters it moves, how far, and what a run with it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from maskgil_jax.models.perceptual import discriminator
from maskgil_jax.models.token_models.bert import Bert, BertConfig
from maskgil_jax.models.token_models.halton import HaltonConfig, HaltonTransformer
from maskgil_jax.models.token_models.llama import Llama, LlamaConfig
from maskgil_jax.models.token_models.llama_config import CHAMELEON
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import optimizer
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny
from tests.helpers.work_directories import assert_same

RATE = 0.01
TOKENS = dict(layers=2, dim=16, heads=4, codebook_size=8, num_classes=3, grid=(2, 2))
OF_TEXT = CHAMELEON | dict(layers=2, dim=16, heads=4, kv_heads=2, qk_norm_rows=(2, 1))
OF_TEXT |= dict(grid=(2, 2), vocabulary=8900)
TOKENIZER = dict(
    channels=32,
    channel_multipliers=(1, 1),
    res_blocks=1,
    attention=False,
    z_channels=32,
    codebook_size=16,
)
NETWORKS = {
    "llama": lambda key: Llama(LlamaConfig(**TOKENS), key),
    "lumina-mgpt": lambda key: Llama(LlamaConfig(**OF_TEXT), key),
    "bert": lambda key: Bert(BertConfig(**TOKENS, mlp_dim=24), key),
    "halton": lambda key: HaltonTransformer(HaltonConfig(**TOKENS, mlp_dim=24), key),
    "vqgan": lambda key: VQTokenizer(VQConfig(**TOKENIZER, codebook_dim=8), key),
    "magvit2": lambda key: VQTokenizer(
        VQConfig(**TOKENIZER, style="magvit2", quantizer="lookup_free", codebook_dim=4), key
    ),
    "discriminator": lambda key: discriminator.make(
        discriminator.DiscriminatorConfig(channels=8, layers=2), key
    ),
}


def rule(algorithm="muon", **changes):
    settings = dict(learning_rate=RATE, beta1=0.9, beta2=0.95, weight_decay=0.0, clip_norm=0.0)
    settings |= dict(warmup_steps=0, schedule="constant", milestones=(), steps=100)
    return optimizer.make(**settings | changes, algorithm=algorithm)[0]


def first_updates(algorithm, gradients, params):
    made = rule(algorithm)
    updates, _ = jax.jit(made.update)(gradients, made.init(params), params)
    return {sharding.name_of(path): x for path, x in jax.tree.leaves_with_path(updates)}


def as_matrices(name, x):
    """[..., rows, columns] of a parameter: what its input is multiplied by, for each product."""
    end = name.rpartition("/")[2]
    if end == "kernel":
        return x.reshape(-1, x.shape[-1])
    if end == "out":
        return x.reshape(len(x), -1, x.shape[-1])
    if end in ("qkv", "key_value", "gate_up", "modulation"):
        x = jnp.moveaxis(x, 2, 1)
    if end in ("qkv", "key_value", "query"):
        x = x.reshape(*x.shape[:-2], -1)
    return x


@pytest.mark.parametrize("name", NETWORKS)
def test_matrices_of_layers_turn_equally_in_all_directions_and_the_rest_moves_by_adamw(name):
    params = NETWORKS[name](jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    gradients = tree.unflatten(
        [
            jax.random.normal(k, x.shape) * 10.0 ** (i % 9 - 8)
            for i, (k, x) in enumerate(zip(keys, leaves, strict=True))
        ]
    )
    found, adam = (first_updates(a, gradients, params) for a in ("muon", "adamw"))
    turned = set()
    for path, update in found.items():
        if np.array_equal(update, adam[path]):
            continue
        turned.add(path)
        matrices = as_matrices(path, update)
        scale = RATE * 0.2 * np.sqrt(max(matrices.shape[-2:]))
        singular = np.linalg.svd(matrices, compute_uv=False) / scale
        # What is hardly there, as the last direction of a square matrix, is not raised all the way.
        assert np.quantile(singular, 0.1) > 0.5 and singular.max() < 1.3, path
    in_layers = {
        path
        for path, x in found.items()
        if ("blocks/" in path and x.ndim > 2 and not path.endswith(("bias", "scale")))
        or (path.startswith(("encoder/", "decoder/")) and x.ndim == 4 and "conv_" not in path)
    }
    assert turned == in_layers
    assert bool(turned) == (name != "discriminator")


@pytest.mark.parametrize("decay_norms", [True, False])
def test_weight_decay_is_that_of_adamw(decay_norms):
    params = NETWORKS["llama"](jax.random.key(0))
    still = jax.tree.map(jnp.zeros_like, params)
    made = rule(weight_decay=0.5, decay_norms=decay_norms)
    updates, _ = made.update(still, made.init(params), params)
    for (path, update), x in zip(
        jax.tree.leaves_with_path(updates), jax.tree.leaves(params), strict=True
    ):
        decayed = decay_norms or not sharding.name_of(path).endswith(("scale", "bias"))
        np.testing.assert_allclose(update, -RATE * 0.5 * x * decayed, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_a_stopped_run_goes_on_bit_for_bit_and_under_no_other_optimizer(stage, finished, tmp_path):
    config = tiny.get_config(stage)
    if stage == "generator":
        config.data.source = f"arrayrecord:{finished}/codes"
    else:
        config.codebook.restart_every = 2
    config.evaluation.reference, config.optimizer.algorithm = "", "muon"
    config.steps = 6
    run_stages(config, epath.Path(tmp_path / "straight"))
    config.steps = 3
    run_stages(config, epath.Path(tmp_path / "stopped"))
    config.steps = 6
    config.optimizer.algorithm = "adamw"
    with pytest.raises(InputError, match="optimizer.algorithm: muon -> adamw"):
        run_stages(config, epath.Path(tmp_path / "stopped"))
    config.optimizer.algorithm = "muon"
    run_stages(config, epath.Path(tmp_path / "stopped"))
    assert_same(tmp_path / "stopped", tmp_path / "straight")
