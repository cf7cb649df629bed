import sys
import time

import numpy as np
import pytest

from maskgil_jax.data.sound import audio
from maskgil_jax.runtime.errors import InputError
from tests.helpers.sounds import sound, written

soundfile = pytest.importorskip("soundfile", reason="needs the extra [speech]")


FORMATS = [
    ("WAV", "PCM_16", 8_000, False),
    ("WAV", "FLOAT", 44_100, True),
    ("FLAC", "PCM_16", 44_100, True),
    ("FLAC", "PCM_24", 8_000, False),
    ("MP3", None, 44_100, True),
    ("MP3", None, 8_000, False),
    ("OGG", "VORBIS", 44_100, True),
]


@pytest.mark.parametrize("kind, subtype, rate, stereo", FORMATS)
def test_the_same_sound_from_any_file_is_heard_alike(kind, subtype, rate, stereo):
    mono = sound(rate)
    data = written(np.stack([1.5 * mono, 0.5 * mono], 1) if stereo else mono, rate, kind, subtype)
    waveform = audio.decode(data)
    assert waveform.dtype == np.float32 and abs(len(waveform) - 2 * audio.RATE) <= 2
    heard, expected = audio.log_mel(waveform, 2), audio.log_mel(sound(audio.RATE), 2)
    loud = expected > expected.max() - 0.75  # 30 dB below the loudest
    assert loud.mean() > 0.05
    limit = 0.1 if kind in ("MP3", "OGG") else 0.01
    assert np.abs(heard - expected)[loud].mean() < limit


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("window", [5, 30])
def test_the_log_mel_is_that_of_transformers(bins, window):
    transformers = pytest.importorskip("transformers", reason="needs the extra [test]")
    extractor = transformers.WhisperFeatureExtractor(feature_size=bins, chunk_length=window)
    waveform = sound(audio.RATE, 7) + np.random.default_rng(0).normal(0, 1e-2, 7 * audio.RATE)
    kept = np.zeros(window * audio.RATE, np.float32)
    kept[: min(len(kept), len(waveform))] = waveform[: len(kept)]
    found = audio.log_mel(waveform, window, bins)
    assert found.shape == (100 * window, bins) and found.dtype == np.float32
    exact = extractor._np_extract_fbank_features([kept], "cpu")[0].T
    np.testing.assert_allclose(found, exact, atol=1e-5)
    # As users call it: with PyTorch's transform, in float32.
    given = extractor(waveform.astype(np.float32), sampling_rate=audio.RATE)["input_features"][0].T
    np.testing.assert_allclose(found, given, atol=1e-4)


def bad_files():
    wav, flac = (written(sound(8_000), 8_000, kind) for kind in ("WAV", "FLAC"))
    mp3, ogg = (written(sound(44_100), 44_100, kind) for kind in ("MP3", "OGG"))
    infinite = sound(8_000)
    infinite[100] = np.inf
    return {
        "of no bytes": (b"", "0 bytes that are not readable audio"),
        "a text": (b"a caption\n" * 100, "1000 bytes that are not readable audio"),
        "of 0 s": (written(np.zeros(0), 8_000, "WAV"), "0 s of audio"),
        "a cut wav": (wav[:9_000], "truncated: 9000 bytes of 32044"),
        "a cut flac": (flac[: len(flac) // 2], "not readable audio"),
        "a cut mp3": (mp3[: len(mp3) // 2], "truncated: .* samples of 88200"),
        "a cut ogg": (ogg[: len(ogg) // 2], "without its last page"),
        "an ogg cut in its last page": (ogg[:-100], "without its last page"),
        "not finite": (written(infinite, 8_000, "WAV", "FLOAT"), "not finite"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_bad_audio_is_refused(name):
    data, message = bad_files()[name]
    with pytest.raises(audio.UnreadableAudio, match=message):
        audio.decode(data)


@pytest.mark.parametrize("kind", ["FLAC", "MP3"])
def test_an_hour_is_refused_by_its_header(kind, monkeypatch):
    data = written(np.zeros(3600 * 8_000, np.float32), 8_000, kind)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    start = time.monotonic()
    with pytest.raises(audio.UnreadableAudio, match="3600 s of audio, expected 600 or less"):
        audio.decode(data)
    assert time.monotonic() - start < 1


def test_a_window_that_no_transform_fits_is_refused():
    for waveform, seconds in ((np.zeros((2, 100)), 1), (np.zeros(100), 0.02), (np.zeros(9), -1)):
        with pytest.raises(InputError, match="expected \\[samples\\] and 0.025 s or more"):
            audio.log_mel(waveform, seconds)


@pytest.mark.parametrize("library", ["soundfile", "soxr"])
def test_a_missing_library_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=f"needs {library}: pip install 'maskgil_jax\\[speech\\]'"):
        audio.decode(b"")
