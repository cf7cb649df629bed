"""Lumina-mGPT through the public path: snapshot, import, load; and back."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.interop import conversion, safetensors_files
from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import CHAMELEON, SIZES, LlamaConfig
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained import loading
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime.errors import InputError
from tests.helpers import golden, random_weights, tiny_lumina
from tests.helpers.tiny import SMALL_VQ


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    made = {}

    def one(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            source = tiny_lumina.of_golden(name, folder / "snapshot")
            conversion.import_model("lumina-mgpt", str(source), str(folder / "model"), {})
            made[name] = folder / "model"
        return made[name]

    return one


@pytest.mark.parametrize("name", ["lumina_mgpt", "lumina_mgpt_34b"])
def test_logits_are_the_official_ones(name, imported):
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    assert model.kind == "causal" and model.codebook_size == 8192 and model.grid == (32, 32)
    with jax.default_matmul_precision("highest"):
        for which in "abu":
            logits = np.asarray(model.token_logits(expected[f"ids_{which}"][None]))[0]
            golden.check(
                name,
                f"logits_{which}",
                logits[:, expected["columns"]],
                expected[f"logits_{which}"],
            )
            lse = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
            golden.check(name, f"lse_{which}", lse, expected[f"lse_{which}"])


@pytest.mark.parametrize("run", ["p0", pytest.param("p1", marks=pytest.mark.slow)])
def test_greedy_draws_are_the_official_ones(run, imported):
    name = "lumina_mgpt_sampling"
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    spec = golden.spec(name)["runs"][run]
    grid = (spec["height"] // 16, spec["width"] // 16)
    prompt = [expected[f"{run}_prompt"]]
    with jax.default_matmul_precision("highest"):
        codes = model.sample(prompt, 0, grid=grid, guidance=spec["cfg"], temperature=0.0)
        np.testing.assert_array_equal(codes[0], expected[f"{run}_codes"])
        plain = model.sample(prompt, 0, grid=grid, guidance=1.0, temperature=0.0)
    tokens = expected[f"{run}_tokens_cfg1"]
    np.testing.assert_array_equal(
        np.asarray(plain).ravel() + 4, tokens[(tokens >= 4) & (tokens < 8196)]
    )


@pytest.mark.parametrize("rows", ["lumina", "transformers"])
def test_export_gives_the_same_tensors(rows, tmp_path):
    """Of both generations of files, in bfloat16 as the released ones."""
    state = {
        name: tensor.astype(ml_dtypes.bfloat16)
        for name, tensor in golden.weights("lumina_mgpt_34b").items()
    }
    if rows == "transformers":
        heads = {"q": 8, "k": 4}
        state = {
            name: np.repeat(x, heads[name.split("_norm")[0][-1]] // 2, 0) if "_norm." in name else x
            for name, x in state.items()
        }
    config = golden.spec("lumina_mgpt_34b")["config"]
    dropped = {"model.vqmodel.encoder.weight": np.ones(3, np.float32)}
    source = tiny_lumina.snapshot(tmp_path / "snapshot", state | dropped, config, 3)
    conversion.import_model("lumina-mgpt", str(source), str(tmp_path / "model"), {})
    model = maskgil_jax.load(tmp_path / "model")
    kept = {x.dtype.name for x in jax.tree.leaves(model.network)}
    assert kept == {"bfloat16"} and model.network.config.dtype == "bfloat16"
    conversion.export_model("lumina-mgpt", str(tmp_path / "model"), str(tmp_path / "x.safetensors"))
    written, _ = safetensors_files.read(str(tmp_path / "x.safetensors"))
    assert set(written) == set(state)
    for name, tensor in state.items():
        assert written[name].tobytes() == tensor.tobytes() and written[name].dtype == tensor.dtype


def test_logits_are_those_of_transformers(tmp_path):
    """Of a random Chameleon with shared keys; it always masks the ids of images."""
    transformers = pytest.importorskip("transformers", reason="needs the extra [test]")
    torch = pytest.importorskip("torch", reason="needs the extra [test]")
    names = {"<image>": 8711} | {lumina_sequence.name_of_code(k): 4 + k for k in range(8192)}
    config = transformers.ChameleonConfig(
        vocab_size=8900,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
        rms_norm_eps=1e-3,
        vocabulary_map=names,
        vq_config=dict(
            embed_dim=16, num_embeddings=8192, latent_channels=16, base_channels=32,
            channel_multiplier=[1], num_res_blocks=1, resolution=16,
        ),
        attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    official = transformers.ChameleonForConditionalGeneration(config).eval()
    for parameter in official.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    official.save_pretrained(tmp_path / "snapshot")
    conversion.import_model(
        "lumina-mgpt", str(tmp_path / "snapshot"), str(tmp_path / "model"), {"grid": (48, 48)}
    )
    model = maskgil_jax.load(tmp_path / "model")
    assert model.grid == (48, 48) and model.network.config.qk_norm_rows == (6, 3)
    ids = np.random.default_rng(0).integers(8200, 8900, (2, 12))
    with torch.no_grad():
        expected = official(torch.from_numpy(ids)).logits.numpy()
    with jax.default_matmul_precision("highest"):
        found = np.asarray(model.token_logits(ids))
    np.testing.assert_allclose(found[..., 8196:], expected[..., 8196:], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[..., :4], expected[..., :4], rtol=0, atol=1e-4)


PUBLISHED = {
    7_013_666_816: dict(**SIZES["7B"], qk_norm_rows=(32, 32)),
    34_294_308_864: dict(
        layers=48, dim=8192, heads=64, kv_heads=8, qk_norm_rows=(64, 8), post_norm="output"
    ),
}


@pytest.mark.parametrize("parameters", PUBLISHED)
def test_parameter_counts_are_the_published_ones(parameters):
    config = LlamaConfig(**CHAMELEON | PUBLISHED[parameters], vocabulary=65536, grid=(32, 32))
    network = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(network)) == parameters


@pytest.fixture(scope="module")
def state():
    return golden.weights("lumina_mgpt")


def refused(state, folder, change=None, arguments=None, **settings):
    config = golden.spec("lumina_mgpt")["config"] | settings
    source = tiny_lumina.snapshot(folder / "snapshot", state, config, 2)
    if change:
        change(source)
    with pytest.raises(InputError) as caught:
        conversion.import_model("lumina-mgpt", str(source), str(folder / "model"), arguments or {})
    return str(caught.value)


def test_half_a_snapshot_is_named(state, tmp_path):
    def lose(source):
        (source / "model-00002-of-00002.safetensors").unlink()

    assert "names model-00002-of-00002.safetensors, which" in refused(state, tmp_path, lose)


def test_missing_layers_are_named(state, tmp_path):
    assert "settings say 3: some are missing" in refused(state, tmp_path, num_hidden_layers=3)


def test_other_settings_are_named(state, tmp_path):
    message = refused(state, tmp_path, rope_scaling={"type": "linear"})
    assert "config.json has rope_scaling = {'type': 'linear'}, expected None" in message


def test_other_ids_are_named(state, tmp_path):
    message = refused(state, tmp_path, vocabulary_map={"IMGIMGBCZ": 17})
    assert "IMGIMGBCZ has the id 17, expected 16" in message


def test_a_tokenizer_of_another_model_is_named(state, tmp_path):
    def other(source):
        data = json.loads(tiny_lumina.vocabulary().decode().replace("<racm3:break>", "<b>"))
        (source / "tokenizer.json").write_text(json.dumps(data))

    message = refused(state, tmp_path, other)
    assert "tokenizer.json is of another model: has no <racm3:break>" in message
    assert "Lumina-mGPT-7B-768" in message


def test_weights_that_cannot_draw_are_named(state, tmp_path, caplog):
    zeroed = dict(state, **{"lm_head.weight": state["lm_head.weight"].copy()})
    zeroed["lm_head.weight"][4:8196] = 0
    source = tiny_lumina.snapshot(tmp_path / "s", zeroed, golden.spec("lumina_mgpt")["config"])
    with caplog.at_level("WARNING"):
        conversion.import_model("lumina-mgpt", str(source), str(tmp_path / "model"), {})
    assert "as in Chameleon as Meta released it" in caplog.text
    model = maskgil_jax.load(tmp_path / "model")
    with pytest.raises(InputError, match="cannot draw: the rows of image codes in its head are z"):
        model.sample([[0, 8710]], 0, grid=(2, 2))


def test_the_tokenizer_of_codes_is_recorded(state, tmp_path):
    config = VQConfig(**SMALL_VQ | dict(codebook_size=8192, quantizer="euclidean"))
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(0)))
    tokenizer = Tokenizer(network)
    tokenizer.save(tmp_path / "vq")
    source = tiny_lumina.snapshot(tmp_path / "s", state, golden.spec("lumina_mgpt")["config"])
    arguments = conversion.parse_arguments([f"tokenizer={tmp_path}/vq"])
    conversion.import_model("lumina-mgpt", str(source), str(tmp_path / "model"), arguments)
    model, decoder = loading.load_pair(tmp_path / "model", "")
    assert model.tokenizer["fingerprint"] == decoder.fingerprint == tokenizer.fingerprint
