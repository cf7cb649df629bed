import dataclasses
import pathlib
import re
import sys

import jax
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.data.sound import audio
from maskgil_jax.models.encoders.whisper import Whisper
from maskgil_jax.pretrained.speech_encoder import SpeechEncoder
from maskgil_jax.runtime.errors import InputError
from tests.helpers import random_weights
from tests.helpers.tiny_whisper import TINY

PAIRS = pathlib.Path(__file__).parents[3] / "shared/data/pairs_small"


@pytest.fixture(scope="module")
def model(whisper_tiny):
    return maskgil_jax.load(whisper_tiny)


def words(text):
    return re.sub("[^a-z0-9 ]", "", text.lower()).split()


def word_errors(expected, found):
    """Insertions, deletions and replacements."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(expected):
        before, row[0] = row[0], i + 1
        for j, other in enumerate(found):
            before, row[j + 1] = (
                row[j + 1],
                min(row[j + 1] + 1, row[j] + 1, before + (word != other)),
            )
    return row[-1]


@pytest.mark.skipif(not PAIRS.exists(), reason="needs ../shared/data/pairs_small")
def test_spoken_captions_are_written_down(model, record_property):
    errors = total = 0
    for path in sorted(PAIRS.glob("*.wav"))[:5]:
        caption = words(path.with_suffix(".txt").read_text().splitlines()[0])
        errors += word_errors(caption, words(model.transcribe(audio.decode(path.read_bytes()))))
        total += len(caption)
    record_property("word_error_rate", errors / total)
    assert errors / total < 0.05


@pytest.mark.skipif(not PAIRS.exists(), reason="needs ../shared/data/pairs_small")
def test_longer_speech_is_written_down_window_by_window(model):
    first, second = (audio.decode(p.read_bytes()) for p in sorted(PAIRS.glob("*.wav"))[:2])
    apart = np.concatenate([np.pad(first, (0, 30 * audio.RATE - len(first))), second])
    assert model.transcribe(apart) == f"{model.transcribe(first)} {model.transcribe(second)}"


@pytest.fixture(scope="module")
def tiny():
    """Of random weights, and of the tokens of a network of many languages."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra [speech]")
    names = ("endoftext", "startoftranscript", "en", "de", "transcribe", "notimestamps")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.add_special_tokens([f"<|{name}|>" for name in names])
    config = dataclasses.replace(TINY, vocabulary=51_865)
    network = random_weights.network(lambda: Whisper(config, jax.random.key(0)), 0.02)
    return SpeechEncoder(network, tokenizer.to_str().encode())


def test_features_of_short_windows(tiny):
    mel_FM = tiny.log_mel(np.zeros(100), 0.5)
    features = tiny.features(np.stack([mel_FM, mel_FM]))
    assert mel_FM.shape == (50, 20) and features.shape == (2, 25, tiny.width)
    under_jit = jax.jit(tiny.features)(np.stack([mel_FM, mel_FM]))
    np.testing.assert_allclose(under_jit, features, atol=1e-5)
    for shape in ((50, 20), (1, 49, 20), (1, 50, 80), (1, 62, 20)):
        with pytest.raises(InputError, match="a log-mel"):
            tiny.features(np.zeros(shape, np.float32))


def test_saved_and_loaded_it_is_the_same(tiny, tmp_path):
    tiny.save(tmp_path / "saved")
    loaded = maskgil_jax.load(tmp_path / "saved")
    assert loaded.kind == tiny.kind == "speech_encoder"
    assert loaded.provenance == tiny.provenance | {"path": str(tmp_path / "saved")}
    mel_BFM = tiny.log_mel(np.zeros(9), 0.5)[None]
    np.testing.assert_array_equal(loaded.features(mel_BFM), tiny.features(mel_BFM))
    (tmp_path / "saved" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="saved is not whole: it has no tokenizer.json"):
        maskgil_jax.load(tmp_path / "saved")


def test_in_bfloat16_features_are_nearly_the_same(tiny, tmp_path):
    tiny.save(tmp_path / "saved")
    half = maskgil_jax.load(tmp_path / "saved", dtype="bfloat16")
    mel_BFM = tiny.log_mel(np.sin(np.arange(8_000)), 0.5)[None]
    features = half.features(mel_BFM)
    assert features.dtype == "bfloat16"
    np.testing.assert_allclose(features.astype(np.float32), tiny.features(mel_BFM), atol=0.1)


def test_the_prompt_of_many_languages_names_one(tiny):
    assert tiny._prompt("en") == [1, 2, 4, 5] and tiny._prompt("de") == [1, 3, 4, 5]
    with pytest.raises(InputError, match="no token <|xx|>"):
        tiny.transcribe(np.zeros(100), language="xx")


def test_what_cannot_be_written_down_is_refused(model, tiny, monkeypatch):
    with pytest.raises(InputError, match="'de': this network knows English alone"):
        model.transcribe(np.zeros(100), language="de")
    with pytest.raises(InputError, match="expected \\[samples\\]"):
        tiny.transcribe(np.zeros((2, 100)))
    with pytest.raises(InputError, match="tokenizer.json is not readable"):
        SpeechEncoder(tiny.network, b"{}").transcribe(np.zeros(100))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match="pip install 'maskgil_jax\\[speech\\]'"):
        SpeechEncoder(tiny.network, b"{}").transcribe(np.zeros(100))
