"""Recordings that lie in the tars of the images, and in code shards that are made of these."""

import functools
import io
import tarfile

import numpy as np
import pytest
from etils import epath

from maskgil_jax import config as defaults
from maskgil_jax.conditioning import choice, speech
from maskgil_jax.data import sources
from maskgil_jax.data.companions.pairing import Images
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.data.sound import audio
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, tiny
from tests.helpers.sounds import written

pytest.importorskip("soundfile", reason="needs the extra [speech]")
COUNT = 40
KINDS = [("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG")]


@functools.cache  # files of Ogg have random numbers
def recording(digit, kind):
    t = np.arange(audio.RATE // 5) / audio.RATE
    return written(0.4 * np.sin(2 * np.pi * (200 + 300 * digit) * t), audio.RATE, kind)


def add(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A tar of digits with a recording of each but the third, whose file is damaged."""
    digits = sources.open_source("embedded:test")
    path = tmp_path_factory.mktemp("tars") / "spoken.tar"
    with tarfile.open(path, "w") as archive:
        for i in range(COUNT):
            suffix, kind = KINDS[i % 3]
            add(archive, f"{i:02}.png", digits[i].image)
            add(archive, f"{i:02}.cls", str(digits[i].label).encode())
            data = b"no sound" if i == 2 else recording(digits[i].label, kind)
            add(archive, f"{i:02}.{suffix}", data)
        add(archive, "alone.mp3", b"sound")
    return path


def config_of(**data):
    config = defaults.generator()
    config.data.update(image_size=8, speech=speech.INSIDE, **data)
    config.model.update(num_classes=0, feature_dim=320, condition_tokens=8)
    config.encoder = speech.LOG_MEL
    return config


def test_a_tar_gives_each_image_the_recording_of_its_key(spoken):
    source = sources.open_source(f"tar:{spoken}")
    assert len(source) == COUNT
    assert "40 images have a recording beside them" in source.census.notes
    assert source.census.passed_over["recording without an image"].count == 1
    for i in range(6):
        expected = b"no sound" if i == 2 else recording(source[i].label, KINDS[i % 3][1])
        assert source[i].read_recording() == expected
    with pytest.raises(Unreadable, match="it has no recording"):
        sources.open_source("embedded")[0].read_recording()


def test_the_condition_is_that_of_the_recording(spoken):
    spec = f"tar:{spoken}"
    source = sources.open_source(spec)
    made = choice.of_config(config_of(), source.class_names, Images([spec], [source]), [(4, 4)])
    rng, record = np.random.default_rng(0), source[0]
    example = made.read(record, rng, 0)
    window = speech.window_of(None, 8, 320)
    expected = window.prompt(audio.decode(record.read_recording()))
    for name in ("prompt", "mask"):
        np.testing.assert_array_equal(example[name], expected[name])
    with pytest.raises(Unreadable):
        made.read(source[2], rng, 0)


@pytest.mark.slow
def test_code_shards_keep_recordings_and_train_as_the_tars_do(spoken, finished, tmp_path):
    tokenizer = str(finished / "tokenizer" / "model")
    options = (f"--tokenizer={tokenizer}", f"--data=tar:{spoken}", "--image_size=8")
    for name, more in (("with", ("--recordings",)), ("without", ())):
        done = commands.call("tokenize", *options, *more, f"--output={tmp_path}/{name}")
        assert done.returncode == 0, done.stderr
    source, shards = sources.open_source(f"tar:{spoken}"), CodeShards(f"{tmp_path}/with")
    kept = {record.id: record.recording for record in map(shards.__getitem__, range(len(shards)))}
    whole = {source[i].id: source[i].read_recording() for i in range(COUNT) if i != 2}
    assert kept == whole  # the damaged one is left out, and named
    assert "02.png" in (epath.Path(tmp_path) / "with" / "index.json").read_text()
    assert len(CodeShards(f"{tmp_path}/without")) == COUNT

    losses = []
    for name, data in (
        ("codes", dict(source=f"arrayrecord:{tmp_path}/with")),
        ("images", dict(source=f"tar:{spoken}", crop="center", flip=False, bad_image_limit=0.1)),
    ):
        config = tiny.generator()
        config.tokenizer, config.encoder = tokenizer, speech.LOG_MEL
        config.data.update(speech=speech.INSIDE, **data)
        config.model.update(num_classes=0, feature_dim=320, condition_tokens=8)
        config.samples.classes, config.evaluation.reference = 2, ""
        run_stages(config, epath.Path(tmp_path / f"run_{name}"))
        losses.append([line["loss"] for line in read_log(tmp_path / f"run_{name}")])
    assert all(np.isfinite(found).all() and found[-1] < found[0] for found in losses)

    config.data.update(source=f"arrayrecord:{tmp_path}/without", bad_image_limit=0.01)
    with pytest.raises(InputError, match="hold no recordings: expected a folder of them"):
        run_stages(config, epath.Path(tmp_path / "none"))
