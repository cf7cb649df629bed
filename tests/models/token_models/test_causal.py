"""LlamaGen's causal models, through the public path: file, import, load."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import maskgil_jax
from maskgil_jax.interop import conversion
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import PRESETS, SIZES, LlamaConfig
from maskgil_jax.pretrained import generators
from maskgil_jax.runtime.errors import InputError
from tests.helpers import golden, random_weights

ARGUMENTS = {"heads": 4, "grid": (4, 4)}


def imported(name, folder):
    state = {key: torch.from_numpy(x) for key, x in golden.weights(name).items()}
    torch.save({"model": state}, folder / "official.pt")
    conversion.import_model(
        "llamagen-gpt", str(folder / "official.pt"), str(folder / "model"), ARGUMENTS
    )
    return folder / "model"


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    return imported("llamagen_gpt_c2i", tmp_path_factory.mktemp("c2i"))


@pytest.fixture(scope="module")
def of_text(tmp_path_factory):
    return imported("llamagen_gpt_t2i", tmp_path_factory.mktemp("t2i"))


def check_cached(name, prefix, network, codes, condition):
    """Logits token by token, with a cache, against those that the official cache gave."""
    expected = golden.arrays(name)

    @jax.jit
    def run(network, codes_BL, condition):
        blocks, cache, x_BD = network.start(condition)
        cache = cache.with_room(network.config.condition_tokens + 5)
        found = [x_BD]
        for i in range(5):
            cache, x_BD = network.step(
                blocks, cache, codes_BL[:, i], jnp.array(i), condition, network.config.grid
            )
            found.append(x_BD)
        return network.classify(network.normed(jnp.stack(found, axis=1)))

    logits = run(network, jnp.asarray(codes.reshape(len(codes), -1)), condition)
    for step in (0, 1, 5):
        golden.check(name, f"{prefix}{step}", logits[:, step], expected[f"{prefix}{step}"])


def test_llamagen_gives_the_official_logits(of_classes):
    model, expected = maskgil_jax.load(of_classes), golden.arrays("llamagen_gpt_c2i")
    assert model.kind == "causal" and model.grid == (4, 4) and model.codebook_size == 128
    codes = expected["idx"].reshape(-1, 4, 4)
    with jax.default_matmul_precision("highest"):
        logits = model.logits(codes, expected["cond"])
        golden.check("llamagen_gpt_c2i", "logits", logits, expected["logits"][:, :16])
        condition = jnp.asarray(expected["cond"])
        check_cached("llamagen_gpt_c2i", "kv_step", model.network, codes, condition)
        greedy = model.sample(expected["cond"][:2], 0, guidance=2.0, temperature=0.0)
    np.testing.assert_array_equal(greedy.reshape(2, 16), expected["greedy_cfg2"])


def test_llamagen_of_text_gives_the_official_logits(of_text):
    model, expected = maskgil_jax.load(of_text), golden.arrays("llamagen_gpt_t2i")
    codes = expected["idx"].reshape(-1, 4, 4)
    features = expected["caption_f16"].astype(np.float32)
    mask = expected["emb_mask"].astype(bool)
    with jax.default_matmul_precision("highest"):
        logits = model.logits(codes, features)
        golden.check("llamagen_gpt_t2i", "logits", logits, expected["logits"][:, :16])
        logits = model.logits(codes, (features, mask))
        golden.check("llamagen_gpt_t2i", "masked_logits", logits, expected["masked_logits"][:, :16])
        condition = Features(jnp.asarray(features), jnp.asarray(mask))
        check_cached("llamagen_gpt_t2i", "kv_masked_step", model.network, codes, condition)
        projected = model.network.project(jnp.asarray(features))[:, ::8, ::16]
        golden.check("llamagen_gpt_t2i", "cap_embed", projected, expected["cap_embed"])
        masked = features * mask[..., None]
        greedy = model.sample((masked, mask), 0, guidance=2.0, temperature=0.0, tokens=12)
    np.testing.assert_array_equal(greedy.reshape(2, 16)[:, :12], expected["greedy_cfg2_masked"])
    assert (greedy.reshape(2, 16)[:, 12:] == model.mask_id).all()


@pytest.mark.parametrize("name", ["llamagen_gpt_c2i", "llamagen_gpt_t2i"])
def test_export_gives_the_same_tensors(name, of_classes, of_text, tmp_path):
    source = of_classes if name.endswith("c2i") else of_text
    conversion.export_model("llamagen-gpt", str(source), str(tmp_path / "out.pt"))
    written = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    expected = golden.weights(name)
    assert set(written) == set(expected)
    for key, tensor in expected.items():
        np.testing.assert_array_equal(written[key].numpy(), tensor)


PUBLISHED = {
    "B": 110_888_448,
    "L": 342_910_976,
    "XL": 774_699_520,
    "XXL": 1_410_972_672,
    "XXXL": 3_893_027_840,
    "1B": 1_199_616_000,
    "3B": 3_096_659_200,
    "7B": 6_614_589_440,
}


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_are_the_published_ones(size):
    config = LlamaConfig(
        **SIZES[size], codebook_size=16384, num_classes=1000, grid=(16, 16), **PRESETS["llamagen"]
    )
    network = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(network)) == PUBLISHED[size]


def built(**changes):
    """A tiny network whose every weight is random, the head too."""
    settings = dict(layers=2, dim=32, heads=2, codebook_size=20, num_classes=5, grid=(3, 4))
    config = LlamaConfig(**settings, **PRESETS["llamagen"], ffn_multiple=16, **changes)
    network = random_weights.network(lambda: Llama(config, jax.random.key(0)), 0.02)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), network)


@pytest.mark.parametrize("order", ["raster", "halton"])
def test_a_token_depends_on_those_before_it_alone(order):
    network = built(order=order)
    places = network.order(3, 4)
    codes = np.random.default_rng(0).integers(20, size=(1, 3, 4))
    before = generators.CausalGenerator(network).logits(codes, [2])[0]
    changed = codes.reshape(1, 12).copy()
    changed[0, places[5]] = (changed[0, places[5]] + 1) % 20
    after = generators.CausalGenerator(network).logits(changed.reshape(1, 3, 4), [2])[0]
    differs = np.abs(np.asarray(before - after)).max(axis=1) > 1e-6
    assert not differs[places[:6]].any() and differs[places[6:]].all()


@pytest.mark.parametrize("order", ["raster", "halton"])
def test_the_cache_changes_nothing(order):
    """Greedy decoding with the cache finds the tokens that the full forward pass finds best."""
    model = generators.CausalGenerator(built(order=order))
    codes = model.sample([1, 3], 0, temperature=0.0, guidance=1.0)
    logits = model.logits(codes, [1, 3])
    np.testing.assert_array_equal(logits.argmax(axis=-1).reshape(2, 3, 4), codes)


def test_an_image_depends_neither_on_its_batch_nor_on_more_tokens():
    model = generators.CausalGenerator(built())
    both = model.sample([1, 3], 7, top_k=5, guidance=1.5)
    np.testing.assert_array_equal(model.sample([3], 7, start=1, top_k=5, guidance=1.5)[0], both[1])
    part = model.sample([1, 3], 7, top_k=5, guidance=1.5, tokens=5).reshape(2, 12)
    np.testing.assert_array_equal(part[:, :5], both.reshape(2, 12)[:, :5])
    assert (part[:, 5:] == model.mask_id).all()
    assert (np.asarray(model.sample([1, 3], 8, top_k=5)) != np.asarray(both)).any()


def test_guidance_ends_after_its_interval():
    model = generators.CausalGenerator(built())
    options = dict(temperature=0.0, guidance=4.0)
    guided, plain, none = (
        model.sample([1, 2], 0, **options, guidance_interval=n).reshape(2, 12) for n in (-1, 3, 0)
    )
    np.testing.assert_array_equal(guided[:, :4], plain[:, :4])
    network = model.network
    logits = model.logits(plain.reshape(2, 3, 4), [1, 2])
    np.testing.assert_array_equal(plain[:, 4:], logits.argmax(axis=-1)[:, 4:])
    null = model.logits(plain.reshape(2, 3, 4), network.config.num_classes * np.ones(2, int))
    mixed = null + 4.0 * (logits - null)
    np.testing.assert_array_equal(plain[:, :4], mixed.argmax(axis=-1)[:, :4])
    assert none.shape == (2, 12)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(tokens=13), "tokens = 13, expected 0 to 12"),
        (dict(top_p=2.0), "top_p = 2.0"),
        (dict(steps=8), "steps"),
        (dict(temperature=-1.0), "temperature = -1.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        generators.CausalGenerator(built()).sample([0], 0, **options)


def test_bad_features_are_named(of_text):
    model = maskgil_jax.load(of_text)
    with pytest.raises(
        InputError, match="features are float32 .1, 7, 48., expected floats .B, 120"
    ):
        model.sample(np.zeros((1, 7, 48), np.float32), 0)
    with pytest.raises(InputError, match="mask of features is .1, 7."):
        model.sample((np.zeros((1, 120, 48), np.float32), np.ones((1, 7), bool)), 0)


def test_the_null_condition_is_the_one_of_the_file(of_text):
    model = maskgil_jax.load(of_text)
    null = model.null_condition(3)
    expected = golden.weights("llamagen_gpt_t2i")["cls_embedding.uncond_embedding"]
    for features in null.features_BTC:
        np.testing.assert_array_equal(features, expected)
    assert null.mask_BT.all()
