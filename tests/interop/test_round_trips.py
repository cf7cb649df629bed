"""What is exported comes back as it was, without --arg: weights, settings and provenance."""

import dataclasses
import json
import logging
import os

import jax
import numpy as np
import pytest
import safetensors
import torch
from flax import serialization

import maskgil_jax
from maskgil_jax.interop import conversion, description, engine, gemma, recognition, whisper
from maskgil_jax.models.encoders.clip import ClipConfig
from maskgil_jax.models.encoders.gemma import GemmaConfig
from maskgil_jax.models.encoders.whisper import WhisperConfig
from maskgil_jax.models.perceptual.discriminator import DiscriminatorConfig
from maskgil_jax.models.perceptual.lpips import LPIPSConfig
from maskgil_jax.models.token_models.bert import BertConfig
from maskgil_jax.models.token_models.halton import HaltonConfig
from maskgil_jax.models.token_models.llama_config import (
    CHAMELEON,
    LLADA,
    PAPER_OF_FEATURES,
    PRESETS,
    LlamaConfig,
)
from maskgil_jax.models.tokenizers.vq import VQConfig
from maskgil_jax.pretrained import loading, networks
from maskgil_jax.pretrained.generators import make_generator
from maskgil_jax.pretrained.speech_encoder import VOCABULARY as WORDS
from maskgil_jax.pretrained.text_encoder import VOCABULARY as PIECES
from maskgil_jax.runtime.errors import InputError

# Heads of 8, layers of an odd multiple, grids that no size has.
LLAMA = dict(
    layers=2, dim=32, heads=4, codebook_size=20, num_classes=5, grid=(4, 4), ffn_multiple=3
)
FEATURES = dict(num_classes=0, feature_dim=7, condition_tokens=6)
VQ = dict(channels=32, channel_multipliers=(1, 2), codebook_size=64, codebook_dim=6)
BERT = dict(layers=2, dim=16, heads=2, mlp_dim=24, codebook_size=12, num_classes=3, dropout=0.1)

CASES = {
    "maskgil-gpt": LlamaConfig(**LLAMA | dict(dropout=0.1), **PRESETS["maskgil_released"]),
    "maskgil-gpt wide": LlamaConfig(
        **LLAMA | dict(grid=(2, 6), dtype="bfloat16"), **PRESETS["maskgil_released"]
    ),
    "llamagen-gpt": LlamaConfig(**LLAMA, **PRESETS["llamagen"]),
    "llamagen-gpt of features": LlamaConfig(
        **LLAMA | FEATURES | dict(grid=(3, 5)), **PRESETS["llamagen"]
    ),
    "maskgil": LlamaConfig(**LLAMA, **PRESETS["paper"]),
    "maskgil unconditional": LlamaConfig(**LLAMA | dict(num_classes=0), **PRESETS["paper"]),
    "llamagen-gpt unconditional": LlamaConfig(**LLAMA | dict(num_classes=0), **PRESETS["llamagen"]),
    "maskgil of features": LlamaConfig(
        **LLAMA | FEATURES, **PRESETS["paper"] | PAPER_OF_FEATURES | dict(qk_norm="rms")
    ),
    "maskgil halton": LlamaConfig(**LLAMA | dict(order="halton"), **PRESETS["llamagen"]),
    "maskgil output": LlamaConfig(**LLAMA, post_norm="output", qk_norm="none", rope="1d"),
    "lumina-mgpt": LlamaConfig(
        **CHAMELEON | dict(post_norm="output"), layers=2, dim=16, heads=4, kv_heads=2, grid=(6, 6),
        qk_norm_rows=(2, 1), vocabulary=8900, mlp_dim=24, context=99, norm_eps=1e-4, rope_base=5e3,
        param_dtype="bfloat16",
    ),
    "lumina-dimoo": LlamaConfig(
        **LLADA, layers=2, dim=16, heads=4, kv_heads=2, grid=(6, 6), vocabulary=134548, mlp_dim=24,
        context=99, norm_eps=1e-4, rope_base=5e3, param_dtype="bfloat16",
    ),
    "maskgit-pytorch": BertConfig(**BERT, grid=(2, 5), attention_dropout=0.2),
    "halton-maskgit": HaltonConfig(**BERT, grid=(3, 2), registers=2),
    "maskgit": BertConfig(**BERT | dict(dropout=0.0), grid=(2, 3), style="maskgit"),
    "llamagen-vq": VQConfig(**VQ, res_blocks=1, z_channels=32),
    "taming-vqgan": VQConfig(**VQ, res_blocks=1, z_channels=64, quantizer="euclidean"),
    "chameleon-vq": VQConfig(
        **VQ, res_blocks=2, z_channels=32, quantizer="euclidean", attention=False
    ),
    "open-magvit2": VQConfig(
        **VQ, res_blocks=1, style="magvit2", quantizer="lookup_free", z_channels=0, attention=False
    ),
    "diffusers-vq": VQConfig(
        **VQ | dict(channels=8), res_blocks=1, style="diffusers", quantizer="euclidean",
        z_channels=12, attention=False, norm_groups=4,
    ),
    "maskgit-vq": VQConfig(
        **VQ, res_blocks=1, style="maskgit", quantizer="euclidean", z_channels=0, attention=False
    ),
    "llamagen-discriminator": DiscriminatorConfig(channels=8, layers=2, image_size=64),
    "lpips": LPIPSConfig(channels=(4, 8, 8, 8, 12), dtype="bfloat16"),
    "gemma": GemmaConfig(
        generation=3, layers=2, dim=16, heads=4, kv_heads=2, head_dim=8, ffn_dim=24, vocab_size=300,
        query_pre_attn_scalar=12, sliding_layers=(1,), sliding_window=3, layer=-1, rope_base=5000.0,
    ),
    "whisper": WhisperConfig(
        dim=24, heads=3, mlp_dim=32, encoder_layers=1, decoder_layers=2, mel_bins=80, vocabulary=30,
        speech_positions=20, text_positions=8, suppressed=(3,), suppressed_first=(4, 5),
    ),
    "clip": ClipConfig(
        width=6, image_size=8, patch_size=4, image_dim=12, image_layers=1, image_heads=3,
        image_mlp_dim=10, text_dim=8, text_layers=2, text_heads=4, text_mlp_dim=12, vocabulary=40,
        text_positions=9, text_end=30, activation="gelu", norm_eps=1e-6, mean=(0.5, 0.25, 0.75),
    ),
}  # fmt: skip
# The only settings that a file of Flax has no room for, so that they are given as arguments.
ARGUMENTS = {"maskgit": {"classes": 3, "grid": (2, 3)}}
KNOWN = dict(
    tokenizer={"path": "/runs/vq", "fingerprint": "0123456789abcdef", "codebook_size": 20},
    class_names=("cat", "dog", "naïve ☂", "d", "e"),
    encoder={"path": "/runs/gemma", "fingerprint": "fedcba9876543210"},
)


def random_network(format_name, config):
    """A network of random numbers, made without running JAX."""
    rng = np.random.default_rng(0)
    entries = conversion.FORMATS[format_name].entries(config)
    tensors = {e.name: rng.standard_normal(e.shape).astype(np.float32) for e in entries}
    if format_name == "halton-maskgit":
        tensors["head.weight"] = tensors["tok_emb.weight"]
    like = jax.eval_shape(lambda: networks.init_network(config, jax.random.key(0)))
    return engine.load(entries, tensors, like)


def words():
    pieces = {f"w{i}": i for i in range(29)} | {"<|startoftext|>": 29, "<|endoftext|>": 30}
    return json.dumps({"model": {"type": "WordLevel", "vocab": pieces, "unk_token": "w0"}}).encode()


def model_directory(case, folder):
    from tests.helpers.tiny_gemma import vocabulary

    format_name = case.split()[0]
    beside = {PIECES: vocabulary(), WORDS: words()}
    files_of = {"gemma": PIECES, "whisper": WORDS, "clip": WORDS}  # CLIP's has the same name
    beside = {name: beside[name] for f, name in files_of.items() if f == case}
    model = loading.wrap(random_network(format_name, CASES[case]), beside)
    if hasattr(model, "class_names"):
        model = make_generator(model.network, **KNOWN)
    model.save(folder)
    return format_name, beside


def there_and_back(case, suffix, folder, **arguments):
    format_name, beside = model_directory(case, folder / "model")
    path = folder / f"x.{suffix}"
    conversion.export_model(format_name, str(folder / "model"), str(path))
    for name, data in beside.items():
        (folder / name).write_bytes(data)
    source = ",".join([str(path), *(str(folder / name) for name in beside)])
    conversion.import_model(format_name, source, str(folder / "back"), arguments)
    return [json.loads((folder / d / "model.json").read_text()) for d in ("model", "back")]


def suffixes(case):
    if case.split()[0] in ("maskgit", "maskgit-vq"):
        return ["msgpack"]
    bare = case == "lumina-mgpt" or ("gpt" not in case and case != "maskgil")
    return ["safetensors"] if bare else ["safetensors", "pt"]


@pytest.mark.parametrize("case, suffix", [(case, s) for case in CASES for s in suffixes(case)])
def test_what_is_exported_comes_back(case, suffix, tmp_path):
    before, after = there_and_back(case, suffix, tmp_path, **ARGUMENTS.get(case, {}))
    if suffix == "msgpack":  # official programs take all of such a file for weights
        for name in KNOWN:
            before.pop(name, None), after.pop(name, None)
    assert after == before


def test_every_format_that_is_exported_has_its_round_trip():
    exported = {n for n, family in conversion.FORMATS.items() if hasattr(family, "STATE_DICT_KEYS")}
    assert exported == {case.split()[0] for case in CASES} | {"fid-inception"}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_generator_that_came_back_draws_the_same(suffix, tmp_path):
    there_and_back("maskgil-gpt", suffix, tmp_path)
    options = dict(rng=3, steps=2, guidance=2.0)
    first, second = (
        np.asarray(maskgil_jax.load(tmp_path / d).sample([0, 4], **options))
        for d in ("model", "back")
    )
    assert first.shape == (2, 4, 4)
    np.testing.assert_array_equal(first, second)


def test_arguments_are_taken_before_what_the_file_says(tmp_path):
    _, after = there_and_back("llamagen-gpt", "safetensors", tmp_path, heads=2, grid=(2, 8))
    assert (after["arguments"]["heads"], after["arguments"]["grid"]) == (2, [2, 8])
    assert after["class_names"] == list(KNOWN["class_names"])


@pytest.mark.parametrize(
    "name", ["maskgil-gpt", "llamagen-gpt", "maskgit-pytorch", "halton-maskgit"]
)
def test_what_foreign_tensors_do_not_tell_is_said(name, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    model_directory(name, tmp_path / "model")
    conversion.export_model(name, str(tmp_path / "model"), str(tmp_path / "x.safetensors"))
    with safetensors.safe_open(tmp_path / "x.safetensors", "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(tensors, tmp_path / "foreign.safetensors")
    config = CASES[name]
    given = {} if "gpt" in name else {"grid": config.grid}
    given |= {"classes": 3} if name == "maskgit-pytorch" else {}
    source = str(tmp_path / "foreign.safetensors")
    heads = {"maskgit-pytorch": 16}.get(name, 1)
    if name == "maskgit-pytorch":  # its 16 heads would be of one number each
        heads = 16
    conversion.import_model(name, source, str(tmp_path / "m"), given)
    assert f"assumed arg=heads={heads}" in caplog.text
    if "gpt" in name:
        assert "arg=grid=16x16" in caplog.text
    given |= {"heads": config.heads, "grid": config.grid}
    conversion.import_model(name, source, str(tmp_path / "given"), given)
    assert maskgil_jax.load(tmp_path / "given").network.config.heads == config.heads


def test_the_official_program_finds_its_weights_and_strings_beside(tmp_path):
    model_directory("llamagen-gpt", tmp_path / "model")
    conversion.export_model("llamagen-gpt", str(tmp_path / "model"), str(tmp_path / "x.pt"))
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    assert set(content) == {"model", description.KEY}
    assert json.loads(content[description.KEY])["arguments"]["heads"] == 4


def test_features_that_are_normed_are_not_exported_to_code_that_does_not():
    config = dataclasses.replace(CASES["llamagen-gpt of features"], feature_norm=True)
    with pytest.raises(InputError, match="llamagen-gpt has feature_norm = False"):
        conversion.FORMATS["llamagen-gpt"].entries(config)


def test_older_files_of_our_format_are_read(tmp_path):
    config = CASES["maskgil"]
    network = random_network("maskgil", config)
    family = conversion.FORMATS["maskgil"]
    state = engine.dump(family.entries(config), network)
    state = {name: torch.from_numpy(x) for name, x in state.items()}
    torch.save({"model": state, **family.metadata(config)}, tmp_path / "x.pt")
    conversion.import_model("maskgil", str(tmp_path / "x.pt"), str(tmp_path / "m"), {})
    assert maskgil_jax.load(tmp_path / "m").network.config == config


DAMAGED = {
    "not json": "{",
    "a list": "[]",
    "another network": '{"class": "vq", "arguments": {}}',
    "no network": '{"class": "unet", "arguments": {}}',
    "no arguments": '{"class": "llama"}',
    "unknown argument": '{"class": "llama", "arguments": {"depth": 3}}',
    "missing arguments": '{"class": "llama", "arguments": {"layers": 2}}',
    "very many layers": '{"class": "llama", "arguments": {"layers": 1000000000}}',
    "layers as text": '{"class": "llama", "arguments": {"layers": "2"}}',
    "names as text": '{"class": "llama", "arguments": {}, "class_names": "cat"}',
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_description_is_refused(what, tmp_path):
    state = {"output.weight": torch.zeros(21, 32)}
    torch.save({"model": state, description.KEY: DAMAGED[what]}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="x.pt.* (has a damaged description|holds a)"):
        conversion.import_model("maskgil-gpt", str(tmp_path / "x.pt"), str(tmp_path / "m"), {})


@pytest.mark.parametrize(
    "pairs, message",
    [
        (["head=4"], "arg: unknown 'head', maskgil-gpt takes grid, heads, weights"),
        (["heads=4x4"], r"arg=heads: \(4, 4\), expected a number"),
        (["heads=four"], "arg=heads: 'four', expected a number"),
        (["heads=0"], "arg=heads: 0, expected 1 or more"),
        (["heads=-1"], "arg=heads: -1, expected 1 or more"),
        (["grid=4"], "arg=grid: 4, expected HxW"),
        (["heads=3"], "as maskgil-gpt: dim = 32 over heads = 3"),
        (["heads=4", "heads=2"], "arg=heads=2: heads is given twice"),
        (["heads"], "arg=heads: expected NAME=NUMBER, NAME=HxW or NAME=WORD"),
    ],
)
def test_wrong_arguments_are_named(pairs, message, tmp_path):
    family = conversion.FORMATS["maskgil-gpt"]
    entries = family.entries(CASES["maskgil-gpt"])
    state = {e.name: torch.zeros(e.shape) for e in entries}
    torch.save({"model": state}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        arguments = conversion.parse_arguments(pairs)
        conversion.import_model(
            "maskgil-gpt", str(tmp_path / "x.pt"), str(tmp_path / "m"), arguments
        )


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "msgpack"])
def test_files_have_the_permissions_that_new_files_have(suffix, tmp_path):
    case = "maskgit" if suffix == "msgpack" else "maskgil-gpt"
    umask = os.umask(0o027)
    try:
        there_and_back(case, suffix, tmp_path, **ARGUMENTS.get(case, {}))
    finally:
        os.umask(umask)
    for folder, folders, names in os.walk(tmp_path):
        for name in names:
            assert os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o640, name
        for name in folders:
            assert os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o750, name


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    model_directory("maskgil-gpt", tmp_path / "model")
    (tmp_path / "file").write_text("")
    output = str(tmp_path / "file" / "x.pt")
    with pytest.raises(InputError, match="output=.*x.pt cannot be written"):
        conversion.export_model("maskgil-gpt", str(tmp_path / "model"), output)
    with pytest.raises(InputError, match="expected .safetensors or .pt or .pth"):
        conversion.export_model("maskgil-gpt", str(tmp_path / "model"), str(tmp_path / "x.npz"))


# --- snapshots that are not complete


def snapshot(name, folder, given=None, drop=()):
    """A directory as Hugging Face keeps it; `drop`: beginnings of names that are not there."""
    config, family = CASES[name], {"gemma": gemma, "whisper": whisper}[name]
    rng = np.random.default_rng(0)
    tensors = {
        e.name: rng.standard_normal(e.shape).astype(np.float32)
        for e in family.entries(config)
        if not e.name.startswith(tuple(drop))
    }
    folder.mkdir()
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / (PIECES if name == "gemma" else WORDS)).write_bytes(b"words")
    settings = {
        "gemma": {"model_type": "gemma3_text", "num_hidden_layers": 2, "num_attention_heads": 4},
        "whisper": {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 3},
    }
    (folder / "config.json").write_text(json.dumps(settings[name] | (given or {})))
    return str(folder)


def read(name, source, **arguments):
    family = {"gemma": gemma, "whisper": whisper}[name]
    content = family.read(source)
    return recognition.recognise(name, family, source, content, arguments, "")[0]


def test_heads_and_layers_are_those_of_the_settings(tmp_path):
    config = read("whisper", snapshot("whisper", tmp_path / "w"))
    assert (config.heads, config.encoder_layers, config.decoder_layers) == (3, 1, 2)
    assert read("gemma", snapshot("gemma", tmp_path / "g")).heads == 4


@pytest.mark.parametrize("name, layer", [("gemma", "model."), ("whisper", "model.decoder.")])
def test_a_snapshot_without_its_last_layer_is_refused(name, layer, tmp_path):
    source = snapshot(name, tmp_path / "s", drop=[f"{layer}layers.1."])
    with pytest.raises(InputError, match="layers.* settings say 2"):
        read(name, source)


@pytest.mark.parametrize("name", ["gemma", "whisper"])
def test_an_index_of_a_snapshot_counts(name, tmp_path):
    source = snapshot(name, tmp_path / "s")
    index = {"weight_map": {"model.layers.7.x": "model-00002-of-00002.safetensors"}}
    (tmp_path / "s" / "model.safetensors.index.json").write_text(json.dumps(index))
    for given in (source, f"{source}/model.safetensors.index.json"):
        with pytest.raises(InputError, match="names model-00002-of-00002.safetensors, which are"):
            read(name, given)
    index["weight_map"] = {"model.layers.7.x": "model.safetensors"}
    (tmp_path / "s" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="model.layers.7.x is in model.safetensors, which does"):
        read(name, source)


def test_layers_of_other_formats_are_counted_too(tmp_path):
    model_directory("llamagen-gpt", tmp_path / "model")
    (tmp_path / "s").mkdir()
    path = tmp_path / "s" / "x.safetensors"
    conversion.export_model("llamagen-gpt", str(tmp_path / "model"), str(path))
    tensors = safetensors.numpy.load_file(path)
    tensors = {name: x for name, x in tensors.items() if not name.startswith("layers.1.")}
    safetensors.numpy.save_file(tensors, path)
    (tmp_path / "s" / "config.json").write_text('{"n_layer": 2, "n_head": 4}')
    with pytest.raises(InputError, match="tensors of 1 layers, but its settings say 2"):
        conversion.import_model("llamagen-gpt", str(tmp_path / "s"), str(tmp_path / "m"), {})


def test_a_layer_of_a_very_large_number_is_refused_at_once(tmp_path):
    state = {e.name: torch.zeros(e.shape) for e in _entries("llamagen-gpt")}
    state["layers.99999999999.norm.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(InputError, match="unknown: layers.99999999999.norm.weight"):
        conversion.import_model("llamagen-gpt", str(tmp_path / "x.pt"), str(tmp_path / "m"), {})


def _entries(case):
    return conversion.FORMATS[case].entries(CASES[case])


def test_msgpack_that_is_cut_is_refused(tmp_path):
    tree = serialization.msgpack_serialize({"params": {"a": np.ones(100, np.float32)}})
    for cut in range(0, len(tree), 7):
        (tmp_path / "x.msgpack").write_bytes(tree[:cut])
        with pytest.raises(InputError, match="x.msgpack"):
            conversion.import_model(
                "maskgit-vq", str(tmp_path / "x.msgpack"), str(tmp_path / "m"), {}
            )
