"""The PyTorch module that the package ships gives our logits, whatever the switches."""

import jax
import numpy as np
import pytest
import torch

import maskgil_jax
from maskgil_jax.interop import conversion, maskgil_torch
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import (
    PAPER_OF_FEATURES,
    PRESETS,
    SIZES,
    LlamaConfig,
)
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError
from tests.helpers import random_weights

SHAPE = dict(layers=2, dim=32, heads=2, codebook_size=20, grid=(3, 4), ffn_multiple=16)
CLASSES, FEATURES = dict(num_classes=5), dict(num_classes=0, feature_dim=7, condition_tokens=6)
CASES = {
    "paper": CLASSES | PRESETS["paper"],
    "released": CLASSES | PRESETS["maskgil_released"],
    "llamagen": CLASSES | PRESETS["llamagen"],
    "halton order": CLASSES | PRESETS["llamagen"] | dict(order="halton", post_norm="sandwich"),
    "output norm": CLASSES | dict(post_norm="output", qk_norm="rms"),
    "interpolated": CLASSES | dict(rope_positions="interpolated", rope_grid=(2, 3)),
    "identity": CLASSES | dict(condition_rope="identity", condition_position="last"),
    "first, 1d": CLASSES | dict(rope="1d", mask_logit=True, joint_embedding=True),
    "causal, joint": CLASSES | dict(causal=True, joint_embedding=True, qk_norm="none"),
    "causal prefix": CLASSES | dict(causal_prefix=True, order="halton"),
    "its causal reading": CLASSES | dict(causal_prefix=True, causal=True, order="halton"),
    "factors": CLASSES | dict(factors=(4, 5)),
    "three factors": CLASSES | dict(factors=(2, 5, 2), condition_position="last"),
    "causal, factors": CLASSES | PRESETS["llamagen"] | dict(factors=(5, 4)),
    "unconditional": dict(num_classes=0) | PRESETS["paper"],
    "text": FEATURES | PRESETS["paper"] | PAPER_OF_FEATURES,
    "text, last": FEATURES | dict(condition_position="last"),
    "text, causal": FEATURES | PRESETS["llamagen"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, suffix", [*((case, "safetensors") for case in CASES), ("paper", "pt")]
)
def test_the_torch_module_gives_our_logits(case, suffix, tmp_path):
    config = LlamaConfig(**SHAPE, **CASES[case])
    rng = np.random.default_rng(0)
    network = jax.tree.map(
        lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32),
        random_weights.network(lambda: Llama(config, jax.random.key(0)), 0.02),
    )
    loading.wrap(network).save(tmp_path / "model")
    path = str(tmp_path / f"model.{suffix}")
    conversion.export_model("maskgil", str(tmp_path / "model"), path)
    module = maskgil_torch.load(path)

    codes = rng.integers(20 + (not config.causal), size=(3, 3, 4))
    condition, given = rng.integers(config.num_classes + 1, size=3), None
    if config.feature_dim:
        condition = rng.standard_normal((3, 6, 7), np.float32)
        given = rng.random((3, 6)) < 0.7
    ours = condition if given is None else (condition, given)
    with jax.default_matmul_precision("highest"):
        expected = maskgil_jax.load(tmp_path / "model").logits(codes, ours)
    with torch.inference_mode():
        mask = None if given is None else torch.from_numpy(given)
        logits = module(torch.from_numpy(codes), torch.from_numpy(condition), mask)
    np.testing.assert_allclose(logits, expected, atol=2e-5)

    conversion.import_model("maskgil", path, str(tmp_path / "back"), {})
    back = maskgil_jax.load(tmp_path / "back")
    assert back.network.config == config
    for a, b in zip(jax.tree.leaves(back.network), jax.tree.leaves(network), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_torch_module_gives_our_logits_at_full_size(preset, tmp_path):
    """Of B, at 256 pixels, with random weights, the head too."""
    shape = dict(codebook_size=16384, num_classes=1000, grid=(16, 16))
    config = LlamaConfig(**SIZES["B"], **shape, **PRESETS[preset])
    network = random_weights.network(lambda: Llama(config, jax.random.key(0)), 0.02)
    loading.wrap(network).save(tmp_path / "model")
    path = str(tmp_path / "model.safetensors")
    conversion.export_model("maskgil", str(tmp_path / "model"), path)
    rng = np.random.default_rng(0)
    codes, classes = rng.integers(16384, size=(2, 16, 16)), np.array([207, 1000])
    if not config.causal:
        codes[rng.random(codes.shape) < 0.6] = 16384
    with torch.inference_mode():
        logits = maskgil_torch.load(path)(torch.from_numpy(codes), torch.from_numpy(classes))
    expected = maskgil_jax.load(tmp_path / "model").logits(codes, classes)
    scale = float(np.abs(logits).max())
    assert scale > 1
    np.testing.assert_allclose(logits, expected, atol=2e-5 * scale)


def test_a_file_without_a_config_is_refused(tmp_path):
    torch.save({"model": {"norm.weight": torch.zeros(3)}}, tmp_path / "bare.pt")
    with pytest.raises(InputError, match="is not maskgil: it has no 'config'"):
        conversion.import_model("maskgil", str(tmp_path / "bare.pt"), str(tmp_path / "m"), {})


def test_another_network_is_refused(tmp_path):
    from maskgil_jax.models.token_models.bert import Bert, BertConfig

    shape = dict(layers=1, dim=16, heads=2, mlp_dim=32, codebook_size=8, num_classes=2)
    config = BertConfig(**shape, grid=(2, 2))
    network = random_weights.network(lambda: Bert(config, jax.random.key(0)))
    loading.wrap(network).save(tmp_path / "bert")
    with pytest.raises(InputError, match="is a Bert, but maskgil holds a Llama"):
        conversion.export_model("maskgil", str(tmp_path / "bert"), str(tmp_path / "o.pt"))
