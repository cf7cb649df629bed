import os
import struct

import numpy as np
import pytest

from maskgil_jax.data.companions import recordings
from maskgil_jax.data.sound import audio, containers
from maskgil_jax.runtime.errors import Unreadable
from tests.helpers.sounds import sound, written

TONE = sound(16_000, 0.5)
PCM = np.round(TONE * 32767).astype("<i2").tobytes()
UNKNOWN = 0xFFFFFFFF


def wav(body=PCM, riff=None, size=None, form=(1, 1, 16_000, 32_000, 2, 16), after=b""):
    """A wav of any claims: sizes in its header, and the fields of its format."""
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, *form)
    size = len(body) if size is None else size
    content = head + b"data" + struct.pack("<I", size) + body + after
    return b"RIFF" + struct.pack("<I", len(content) if riff is None else riff) + content


def rf64(claimed, mark=b"RF64"):
    sizes = b"ds64" + struct.pack("<IQQQI", 28, claimed + 80, claimed, claimed // 2, 0)
    head = b"WAVE" + sizes + wav()[12:36]
    return mark + struct.pack("<I", UNKNOWN) + head + b"data" + struct.pack("<I", UNKNOWN) + PCM


GOOD = audio.decode(wav())


@pytest.mark.parametrize("riff", [0, 36, UNKNOWN, 0x7FFFFFFF, 0x7FFFF024, None])
@pytest.mark.parametrize("size", [0, UNKNOWN, 0x7FFFFFFF, 0x7FFFF000, None])
def test_a_wav_whose_sizes_were_never_filled_in_is_read(riff, size):
    np.testing.assert_array_equal(audio.decode(wav(riff=riff, size=size)), GOOD)


@pytest.mark.parametrize("mark", [b"RF64", b"BW64"])
@pytest.mark.parametrize("claimed", [len(PCM), 0, 2**63])
def test_large_wavs_are_read(mark, claimed):
    np.testing.assert_array_equal(audio.decode(rf64(claimed, mark)), GOOD)


def test_chunks_around_the_sound_are_passed_over():
    after = b"LIST" + struct.pack("<I", 40_000) + bytes(40_000)
    np.testing.assert_array_equal(audio.decode(wav(after=after)), GOOD)
    np.testing.assert_array_equal(audio.decode(wav(after=b"\0" * 100)), GOOD)
    before = wav()[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + wav()[12:]
    np.testing.assert_array_equal(audio.decode(before), GOOD)


@pytest.mark.parametrize("body", [b"", b"", bytes(7)])
def test_a_wav_without_sound_is_refused(body):
    with pytest.raises(audio.UnreadableAudio, match="0 s of audio"):
        audio.decode(wav(b"", after=body))


CUT = {
    "wav": wav()[: len(PCM) // 2],
    "wav, by its data": wav(PCM[:8000], riff=0, size=len(PCM)),
    "rf64": rf64(len(PCM))[: len(PCM) // 2],
    "wav that says less than there is": wav(size=100),
    "ogg": written(TONE, 16_000, "OGG")[:-200],
    "a chained ogg": written(TONE, 16_000, "OGG") + written(TONE, 16_000, "OGG")[:-200],
    "an ogg that goes on too early": written(TONE, 16_000, "OGG")[:4000]
    + written(TONE, 16_000, "OGG"),
    "joined flac": written(TONE, 16_000, "FLAC") * 2,
    "joined mp3": written(sound(44_100), 44_100, "MP3") * 2,
    "joined wav": wav() * 2,
}


@pytest.mark.parametrize("name", CUT)
def test_what_ends_too_early_or_goes_on_is_refused(name):
    with pytest.raises(audio.UnreadableAudio):
        audio.decode(CUT[name])


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "WAVEX", "RF64", "FLAC", "MP3"])
def test_half_a_file_is_refused_whatever_its_kind(kind):
    whole = written(sound(16_000), 16_000, kind)
    assert len(audio.decode(whole)) >= 2 * audio.RATE
    with pytest.raises(audio.UnreadableAudio):
        audio.decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chained_ogg_is_read_whole(subtype):
    one, other = written(TONE, 16_000, "OGG", subtype), written(2 * TONE, 48_000, "OGG", subtype)
    found = audio.decode(one + other + one)
    parts = [audio.decode(data) for data in (one, other, one)]
    np.testing.assert_array_equal(found, np.concatenate(parts))
    assert len(containers.streams(one)) == 1
    np.testing.assert_array_equal(audio.decode(one + b"junk" * 9), parts[0])


def test_metadata_around_an_mp3_does_no_harm():
    mp3 = written(sound(44_100), 44_100, "MP3")
    tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    np.testing.assert_array_equal(audio.decode(tag + mp3 + b"TAG" + bytes(125)), audio.decode(mp3))
    with pytest.raises(audio.UnreadableAudio):
        audio.decode(b"junk" * 100 + mp3)


@pytest.mark.parametrize("rate", [0, 1, 999, 10**9, 2**31])
def test_rates_that_no_recording_has_are_refused(rate):
    with pytest.raises(audio.UnreadableAudio):
        audio.decode(wav(form=(1, 1, rate, 0, 2, 16)))


@pytest.mark.parametrize("channels", [0, 65535])
def test_odd_numbers_of_channels_are_refused(channels):
    with pytest.raises(audio.UnreadableAudio):
        audio.decode(wav(form=(1, channels, 16_000, 0, 2, 16)))


FLOATS = (3, 1, 16_000, 64_000, 4, 32)


@pytest.mark.parametrize("scale", [127, 32_767, 2**23, 2**31])
def test_floats_in_the_range_of_integers_are_refused_with_their_peak(scale):
    body = (TONE * scale).astype("<f4").tobytes()
    peak = np.abs(TONE).max() * scale
    with pytest.raises(audio.UnreadableAudio, match=f"a peak of {peak:,.0f}"[:14]):
        audio.decode(wav(body, form=FLOATS))
    loud = audio.decode(wav((TONE * 8).astype("<f4").tobytes(), form=FLOATS))  # only too loud
    np.testing.assert_allclose(loud, 8 * GOOD, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_enough(value):
    body = TONE.copy()
    body[7] = value
    with pytest.raises(audio.UnreadableAudio, match="not finite"):
        audio.decode(wav(body.astype("<f4").tobytes(), form=FLOATS))


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW", "MS_ADPCM"]
)
def test_every_coding_of_samples_is_heard_alike(subtype):
    found = audio.decode(written(TONE, 16_000, "WAV", subtype))
    assert np.abs(found[: len(TONE)] - TONE).max() < 0.05


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize("share", [-1.0, -0.98])
def test_channels_that_cancel_are_not_silence(kind, share):
    stereo = np.stack([TONE, share * TONE], 1)
    np.testing.assert_allclose(audio.decode(written(stereo, 16_000, kind)), GOOD, atol=1e-3)


def test_other_channels_are_mixed():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (8000, 6)).astype(np.float32)
    for channels in (noise[:, :2], noise, np.stack([TONE, 0 * TONE], 1), np.stack([TONE, TONE], 1)):
        found = audio.decode(written(channels, 16_000, "WAV", "FLOAT"))
        np.testing.assert_allclose(found, channels.mean(axis=1), atol=1e-5)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "good.wav").write_bytes(wav())
    assert audio.read_file(tmp_path / "good.wav") == wav()
    for name in ("pipe.wav", "zero.wav", "missing.wav", "."):
        with pytest.raises(Unreadable):
            audio.read_file(tmp_path / name)
    found = recordings.Recordings(str(tmp_path), ())
    assert found.read("x/good.jpg", 0, np.random.default_rng(0)) == wav()
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(Unreadable):
            found.read(name, 0, np.random.default_rng(0))
