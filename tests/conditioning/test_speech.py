"""Generators of speech, from recordings and images to images of speech, with a tiny encoder."""

import io
import json
import pathlib

import jax
import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.conditioning import choice, speech
from maskgil_jax.data import sources
from maskgil_jax.data.companions import recordings
from maskgil_jax.data.companions.recordings import Recordings
from maskgil_jax.data.sound import audio, utterances
from maskgil_jax.generation import live_speech
from maskgil_jax.generation.live_speech import Timings
from maskgil_jax.models.encoders.whisper import Whisper, WhisperConfig
from maskgil_jax.pretrained.speech_encoder import SpeechEncoder
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, random_weights, tiny, tiny_gemma, tiny_llama

soundfile = pytest.importorskip("soundfile", reason="needs the extra [speech]")
DIGITS = [str(d) for d in range(10)]
CONFIG = WhisperConfig(
    dim=16,
    heads=2,
    mlp_dim=32,
    encoder_layers=2,
    decoder_layers=1,
    mel_bins=80,
    vocabulary=30,
    speech_positions=50,
)


def tone(hertz, seconds=0.3):
    t = np.arange(int(seconds * audio.RATE)) / audio.RATE
    return (0.4 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder(built_once):
    """The directory of a speech encoder."""
    network = random_weights.network(lambda: Whisper(CONFIG, jax.random.key(0)), 0.02)
    return built_once("speech_encoder", SpeechEncoder(network, b"{}").save)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Two recordings of each digit: tones that tell it."""
    folder = tmp_path_factory.mktemp("spoken")
    for digit in range(10):
        (folder / str(digit)).mkdir()
        soundfile.write(folder / str(digit) / "a.wav", tone(200 + 300 * digit), audio.RATE)
        soundfile.write(folder / str(digit) / "b.flac", tone(200 + 300 * digit, 0.2), audio.RATE)
    return folder


def config_of(finished, encoder, spoken, width):
    config = tiny.generator()
    config.data.update(source=f"arrayrecord:{finished}/codes", speech=str(spoken))
    config.encoder = str(encoder)
    config.model.update(num_classes=0, feature_dim=width, condition_tokens=8)
    config.samples.classes = 3
    config.evaluation.reference = ""
    config.steps = 4
    return config


@pytest.fixture(scope="module")
def trained(finished, encoder, spoken, built_once):
    config = config_of(finished, encoder, spoken, 32)
    return built_once("speech", lambda workdir: run_stages(config, workdir))


def test_a_model_of_speech_trains_and_knows_its_encoder(trained, encoder):
    assert len(read_log(trained)) == 4
    model = maskgil_jax.load(trained / "model")
    assert model.encoder["path"] == str(encoder) and model.num_classes == 0
    assert isinstance(choice.encoder_of(model, ""), SpeechEncoder)
    assert (trained / "samples" / "grid.png").exists()


@pytest.mark.slow
def test_log_mel_frames_need_no_encoder(finished, spoken, tmp_path):
    run_stages(config_of(finished, speech.LOG_MEL, spoken, 320), epath.Path(tmp_path))
    model = maskgil_jax.load(tmp_path / "model")
    assert choice.encoder_of(model, "") is None
    found = speech.features(None, [tone(300, 0.1)], 8, 320)
    assert found.features_BTC.shape == (1, 8, 320)
    # 100 ms are 10 frames, four of which are a token.
    assert found.mask_BT.tolist() == [[True] * 3 + [False] * 5]


def test_features_are_those_of_the_encoder_side_by_side(encoder):
    loaded = maskgil_jax.load(encoder)
    waveform = tone(500, 0.25)
    features_BTC, mask_BT = speech.features(loaded, [waveform], 8, 32)
    expected = np.asarray(loaded.features(loaded.log_mel(waveform, 0.32)[None]))  # [1, 16, 16]
    assert mask_BT.tolist() == [[True] * 7 + [False]]
    np.testing.assert_allclose(features_BTC[0, :7], expected.reshape(8, 32)[:7], atol=1e-5)
    assert not np.asarray(features_BTC[0, 7]).any()


def test_recordings_are_of_an_image_or_of_its_class(spoken, tmp_path):
    rng = np.random.default_rng(0)
    of_class = Recordings(str(spoken), DIGITS)
    expected = {path.read_bytes() for path in (spoken / "3").iterdir()}
    assert {of_class.read("any", 3, rng) for _ in range(20)} == expected
    (tmp_path / "x.wav").write_bytes(b"sound")
    of_image = Recordings(str(tmp_path), DIGITS)
    assert of_image.read("/images/x.jpg", 3, rng) == b"sound"
    with pytest.raises(Unreadable, match="no recording y.wav"):
        of_image.read("/images/y.jpg", 3, rng)
    with pytest.raises(InputError, match="ten has none"):
        Recordings(str(spoken), [*DIGITS, "ten"])
    with pytest.raises(InputError, match="no such folder"):
        Recordings(str(tmp_path / "none"), DIGITS)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.feature_dim": 24}, "feature_dim = 24, expected a multiple of 16"),
        ({"model.condition_tokens": 30}, "1.2 s of speech, but the encoder hears 1:"),
        ({"data.speech": ""}, "expected recordings with an encoder of speech"),
    ],
)
def test_what_does_not_fit_is_named_before_training(
    changes, message, finished, encoder, spoken, tmp_path
):
    config = config_of(finished, encoder, spoken, 32)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        run_stages(config, epath.Path(tmp_path))


@pytest.mark.slow
def test_unusable_recordings_are_passed_over_and_counted(finished, encoder, tmp_path):
    source, folder = sources.open_source("embedded"), tmp_path / "spoken"
    folder.mkdir()
    for i in range(len(source)):
        name = source[i].id
        if i % 10 < 7:
            soundfile.write(folder / f"{name}.wav", tone(300, 0.1), audio.RATE)
        elif i % 10 == 7:
            (folder / f"{name}.wav").write_bytes(b"")
        elif i % 10 == 8:
            soundfile.write(folder / f"{name}.wav", np.zeros(0, np.float32), audio.RATE)
    config = config_of(finished, encoder, folder, 32)
    config.data.bad_image_limit = 0.5
    run_stages(config, epath.Path(tmp_path / "run"))
    assert 10 < read_log(tmp_path / "run")[-1]["unreadable_images"] < 4 * 32
    config.data.bad_image_limit = 0.0
    with pytest.raises(InputError, match="bad_image_limit = 0 allows 0"):
        run_stages(config, epath.Path(tmp_path / "other"))


def test_recordings_of_all_kinds_are_drawn_with_their_latency(trained, spoken, tmp_path):
    stereo = np.stack([tone(800), tone(900)], axis=1)
    soundfile.write(tmp_path / "stereo.mp3", stereo, 44_100)
    files = [f"{spoken}/1/a.wav", f"{spoken}/2/b.flac", f"{tmp_path}/stereo.mp3"]
    out = tmp_path / "out"
    options = ("--speech=" + ",".join(files), "--num=2", "--steps=2", f"--output={out}")
    done = commands.call("sample", f"--model={trained}/model", *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "latency.json").read_text())
    assert [row["utterance"] for row in rows] == files
    for row in rows:
        assert list(row["seconds"]) == ["features", "drawing", "decoding", "writing"]
        assert all(0 < seconds < 30 for seconds in row["seconds"].values())
    with np.load(out / "samples.npz") as found:
        assert found["arr_0"].shape == (6, 8, 8, 3) and found["labels"].tolist() == [
            0,
            0,
            1,
            1,
            2,
            2,
        ]
    assert len(list(out.glob("0*.png"))) == 6 and (out / "grid.png").exists()


def measured(model, out, *options):
    of_model = [f"--model={model}"] if model else []
    return commands.call("evaluate", f"--output={out}", *options, *of_model)


@pytest.mark.slow
def test_the_images_of_a_folder_of_recordings_are_measured(trained, spoken, tmp_path):
    metrics = ("--reference=embedded:test", "--metrics=frechet,accuracy")
    options = (f"--speech={spoken}", "--num=20", "--steps=2", "--seed=0", *metrics)
    done = measured(trained / "model", tmp_path / "a.json", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["samples"]["speech"] == f"20 of {spoken}, in turn"
    # They are those that the recordings give one by one, each of the class of its folder.
    files = sorted(spoken.glob("*/*"))
    options = ("--speech=" + ",".join(map(str, files)), "--num=1", "--steps=2", "--seed=0")
    done = commands.call("sample", f"--model={trained}/model", *options, f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    for i, path in enumerate(files):
        folder = tmp_path / "by_class" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / f"{i:05}.png").rename(folder / f"{i:05}.png")
    done = measured(None, tmp_path / "b.json", f"--samples={tmp_path}/by_class", *metrics)
    assert done.returncode == 0, done.stderr
    expected = json.loads((tmp_path / "b.json").read_text())["metrics"]
    assert found["metrics"] == pytest.approx(expected, rel=0.01)


def test_recordings_are_found_with_the_folders_that_name_their_class(spoken, tmp_path):
    found = recordings.find(str(spoken))
    assert [name for _, name in found] == [digit for digit in DIGITS for _ in range(2)]
    assert [path.name for path, _ in found] == ["a.wav", "b.flac"] * 10
    assert [name for _, name in recordings.find(str(spoken / "3"))] == ["", ""]
    with pytest.raises(InputError, match="none: there is no such folder"):
        recordings.find(str(tmp_path / "none"))
    with pytest.raises(InputError, match="expected recordings .*, or sub-folders of them; there a"):
        recordings.find(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "speech, message",
    [
        ("broken", "broken/x.wav: 4 bytes"),
        ("", "expected --prompts=FILE, one a line, --speech=FOLDER"),
    ],
)
def test_bad_recordings_are_refused_before_any_is_measured(speech, message, trained, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.wav").write_bytes(b"RIFF")
    option = [f"--speech={tmp_path}/{speech}"] if speech else []
    done = measured(
        trained / "model", tmp_path / "x.json", "--num=4", "--reference=embedded:test", *option
    )
    assert done.returncode == 1
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert message in line
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["broken"]


def stream(*parts):
    sound = np.concatenate(parts)
    noise = 0.0005 * np.random.default_rng(0).standard_normal(len(sound))
    return (np.clip(sound + noise, -1, 1) * 32767).astype("<i2").tobytes()


def test_a_stream_is_cut_into_its_utterances():
    quiet = np.zeros(audio.RATE, np.float32)
    data = stream(quiet, tone(400, 0.5), quiet, tone(600, 0.3), quiet[:3200], tone(700, 0.3))
    found = list(utterances.from_stream(io.BytesIO(data), 0.6))
    # Up to 0.2 s before each, and the pause that ended it; a shorter one is part of the second.
    assert [round(len(u.waveform) / audio.RATE, 1) for u in found] == [1.3, 1.0]
    assert [round(u.silence, 1) for u in found] == [0.6, 0.0]
    for utterance, seconds in zip(found, (0.5, 0.6), strict=True):
        loud = np.abs(utterance.waveform) > 0.1
        assert loud.sum() > 0.7 * seconds * audio.RATE
    assert not list(utterances.from_stream(io.BytesIO(stream(quiet, quiet)), 0.6))


def test_each_utterance_of_a_stream_is_drawn_when_it_has_ended(trained, tmp_path):
    quiet = np.zeros(audio.RATE, np.float32)
    data = stream(quiet, tone(400, 0.5), quiet, tone(600, 0.3), quiet)
    options = (
        f"--model={trained}/model",
        "--speech=-",
        "--num=1",
        "--steps=2",
        f"--output={tmp_path}",
    )
    done = commands.run("sample", *options, input=data, text=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "latency.json").read_text())
    assert [row["utterance"] for row in rows] == ["utterance 0", "utterance 1"]
    for row in rows:
        assert next(iter(row["seconds"])) == "silence" and 0.59 < row["seconds"]["silence"] < 0.63


@pytest.mark.parametrize(
    "content, message",
    [(b"", "0 bytes"), (b"RIFF", "audio"), (None, "No such file")],
)
def test_bad_recordings_are_refused_by_name(content, message, trained, tmp_path):
    path = pathlib.Path(tmp_path) / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    options = (f"--model={trained}/model", f"--speech={path}", f"--output={tmp_path}/out")
    done = commands.call("sample", *options)
    assert done.returncode == 1
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert line.startswith(f"error: --speech={path}: ") and message in line
    assert not (tmp_path / "out").exists()


def test_a_model_of_speech_needs_no_recogniser(trained, encoder):
    model = maskgil_jax.load(trained / "model")
    with pytest.raises(
        InputError, match="recognizer=.*: the generator is conditioned on speech itself"
    ):
        live_speech.listener_of(model, "", str(encoder))


@pytest.mark.slow
def test_a_model_of_text_hears_what_a_recogniser_writes_down(whisper_tiny, encoder, tmp_path):
    text_encoder = tiny_gemma.encoder()
    text_encoder.save(tmp_path / "gemma")
    model = tiny_llama.masked(num_classes=0, feature_dim=32, condition_tokens=12)
    model.encoder = maskgil_jax.load(tmp_path / "gemma").provenance
    with pytest.raises(InputError, match="conditioned on text: expected recognizer=DIR"):
        live_speech.listener_of(model, "", None)
    with pytest.raises(InputError, match="recognizer=.* is no encoder of speech"):
        live_speech.listener_of(model, "", str(tmp_path / "gemma"))
    listener = live_speech.listener_of(model, "", str(whisper_tiny))
    timings = Timings()
    features, said = listener(tone(440, 1.0), timings)
    assert list(timings.seconds) == ["recognising", "features"]
    assert said == maskgil_jax.load(whisper_tiny).transcribe(tone(440, 1.0))
    expected = text_encoder.features([said], 12)
    np.testing.assert_allclose(features.features_BTC, expected.features_BTC, atol=1e-5)
    np.testing.assert_array_equal(features.mask_BT, expected.mask_BT)
