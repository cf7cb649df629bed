"""The networks that MaskGIL is compared with, through the public path: file, import, load."""

import jax
import numpy as np
import pytest
import torch
from flax import serialization, traverse_util

import maskgil_jax
from maskgil_jax.interop import conversion
from maskgil_jax.models.token_models.bert import Bert, BertConfig
from maskgil_jax.models.token_models.halton import SIZES, HaltonConfig, HaltonTransformer
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError
from tests.goldens import recipe
from tests.helpers import golden, random_weights

ARGUMENTS = {
    "besnier_mask_transformer": ("maskgit-pytorch", {"heads": 4, "classes": 10}),
    "halton_transformer": ("halton-maskgit", {"heads": 4}),
    "google_maskgit_transformer": ("maskgit", {"classes": 10}),
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    found = {}
    for name, (format_name, arguments) in ARGUMENTS.items():
        folder = tmp_path_factory.mktemp(name)
        state = golden.weights(name)
        if format_name == "maskgit":
            path = folder / "official_checkpoint"
            path.write_bytes(serialization.msgpack_serialize(recipe.nest(state)))
        else:
            path = folder / "current.pth"
            tensors = {f"module.{key}": torch.from_numpy(x) for key, x in state.items()}
            torch.save({"iter": 3, "model_state_dict": tensors}, path)
        conversion.import_model(format_name, str(path), str(folder / "model"), arguments)
        found[name] = folder / "model"
    return found


@pytest.mark.parametrize("name", ["besnier_mask_transformer", "halton_transformer"])
def test_the_official_logits(name, imported):
    expected, model = golden.arrays(name), maskgil_jax.load(imported[name])
    assert model.mask_id == 64 and model.grid == (16, 16) and model.kind == "masked"
    condition = np.where(expected["drop"], model.null_condition(4), expected["label"])
    with jax.default_matmul_precision("highest"):
        logits = model.logits(expected["code"], condition)
    golden.check(name, "logits", logits[:, ::2], expected["logits"])


def test_the_official_logits_of_google(imported):
    name = "google_maskgit_transformer"
    expected, model = golden.arrays(name), maskgil_jax.load(imported[name])
    ids = expected["input_ids"]
    codes = np.where(ids[:, 1:] == -1, model.mask_id, ids[:, 1:]).reshape(-1, 16, 16)
    with jax.default_matmul_precision("highest"):
        logits = model.logits(codes, ids[:, 0] - 64)
    # Every second position of a sequence whose first is the class.
    golden.check(name, "logits", logits[:, 1::2], expected["logits"][:, 1:, :64])
    with pytest.raises(InputError, match="no null condition"):
        model.sample([1], 0, guidance=2.0)
    with pytest.raises(InputError, match="class ids from 10 to 10"):
        model.logits(codes[:1], [10])
    assert (np.asarray(model.sample([1], 0, guidance=1.0, rule="maskgit", steps=2)) < 64).all()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_export_gives_the_same_tensors(name, imported, tmp_path):
    format_name = ARGUMENTS[name][0]
    path = tmp_path / ("out.msgpack" if format_name == "maskgit" else "out.pth")
    conversion.export_model(format_name, str(imported[name]), str(path))
    if format_name == "maskgit":
        tree = serialization.msgpack_restore(path.read_bytes())
        written = traverse_util.flatten_dict(tree, sep="/")
    else:
        loaded = torch.load(path, weights_only=True)["model_state_dict"]
        written = {key: tensor.numpy() for key, tensor in loaded.items()}
    expected = golden.weights(name)
    assert set(written) == set(expected)
    for key, tensor in expected.items():
        np.testing.assert_array_equal(written[key], tensor)


HALTON = {
    "T": (23_031_425, 23_154_305),
    "S": (69_344_769, 69_508_609),
    "B": (142_224_641, 142_470_401),
    "L": (479_656_961, 479_984_641),
}


@pytest.mark.parametrize("size", SIZES)
def test_halton_parameter_counts_are_the_published_ones(size):
    for side, expected in zip((16, 24), HALTON[size], strict=True):
        shape = SIZES[size]
        mlp_dim = -(-int(8 * shape["dim"] / 3) // 256) * 256
        config = HaltonConfig(
            **shape, mlp_dim=mlp_dim, codebook_size=16384, num_classes=1000, grid=(side, side)
        )
        network = jax.eval_shape(lambda c=config: HaltonTransformer(c, jax.random.key(0)))
        assert sum(leaf.size for leaf in jax.tree.leaves(network)) == expected


@pytest.mark.parametrize(
    "style, layers, codes, expected",
    [
        ("besnier", 12, 1024, 89_106_410),
        ("besnier", 24, 1024, 174_160_874),
        ("besnier", 24, 16384, 189_904_874),
        ("maskgit", 24, 1024, 172_457_193),
    ],
)
def test_bert_parameter_counts_are_the_published_ones(style, layers, codes, expected):
    config = BertConfig(
        layers=layers,
        dim=768,
        heads=16,
        mlp_dim=3072,
        codebook_size=codes,
        num_classes=1000,
        grid=(16, 16),
        style=style,
    )
    network = jax.eval_shape(lambda: Bert(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(network)) == expected


def tiny(kind):
    shape = dict(layers=2, dim=32, heads=2, mlp_dim=64, codebook_size=20, num_classes=5)
    shape["grid"] = (3, 4)
    if kind == "halton":
        return HaltonTransformer(HaltonConfig(**shape, dropout=0.5), jax.random.key(0))
    config = BertConfig(**shape, style=kind, dropout=0.5, attention_dropout=0.5)
    return Bert(config, jax.random.key(0))


@pytest.mark.parametrize("kind", ["besnier", "maskgit", "halton"])
def test_a_baseline_samples_and_drops_out_with_a_key_only(kind):
    rng = np.random.default_rng(0)
    network = random_weights.network(lambda: tiny(kind))
    network = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), network)
    model = loading.wrap(network)
    guidance = 1.0 if kind == "maskgit" else 3.0
    known = np.full((2, 3, 4), model.mask_id)
    known[:, 0] = 7
    codes = np.asarray(model.sample([0, 3], 0, codes=known, guidance=guidance, steps=2))
    assert (codes[:, 0] == 7).all() and (codes < 20).all()
    classes = np.array([0, 3])
    hidden = jax.jit(lambda network, key: network.backbone(codes, classes, key))
    one, two = (hidden(network, key) for key in jax.random.split(jax.random.key(1)))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(hidden(network, None), hidden(network, None))
    with pytest.raises(ValueError, match="codes of .2, 2. tokens, expected .3, 4."):
        network.backbone(codes[:, :2, :2], classes)
