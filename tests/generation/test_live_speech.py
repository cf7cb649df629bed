"""Speech becomes images at once; their directory is marked as unfinished until all are there."""

import numpy as np
import pytest

from maskgil_jax.data.sound.utterances import Utterance
from maskgil_jax.evaluation import image_sets
from maskgil_jax.generation import live_speech
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.runtime.errors import InputError
from tests.helpers.plain_tokenizer import Tokenizer, names, numbered

FINISHED = ["grid.png", "latency.json", "samples.npz"]


def listener(waveform, timings):
    with timings("features"):
        return Features(np.full((1, 1, 1), waveform[0]), np.ones((1, 1), bool)), f"{waveform[0]:g}"


def sampler_of(conditions):
    return lambda labels, start: np.broadcast_to(
        conditions(labels)[0][..., None].astype(int)[:, :, 0], (len(labels), 2, 3)
    )


def said(*values, then=None):
    for value in values:
        yield f"{value}.wav", Utterance(np.array([value], np.float32), 0.0)
    if then:
        raise then


def sample(output, utterances, live=False):
    model = live_speech.SpeechModel(listener, sampler_of, Tokenizer())
    live_speech.sample_utterances(utterances, model, output, settings={"a": 1}, count=2, live=live)


def test_samples_of_fewer_remove_the_rest_of_the_first(tmp_path):
    sample(tmp_path, said(3, 9, 4))
    assert names(tmp_path) == [*numbered(6), *FINISHED]
    sample(tmp_path, said(3))
    assert names(tmp_path) == [*numbered(2), *FINISHED]
    assert len(image_sets.open_images(str(tmp_path))) == 2


def test_a_microphone_ends_by_ctrl_c_and_files_do_not(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "live", said(3, 9, then=KeyboardInterrupt()), live=True)
    assert names(tmp_path / "live") == [*numbered(4), *FINISHED]
    for stop in (KeyboardInterrupt(), InputError("not finite")):
        with pytest.raises(type(stop)):
            sample(tmp_path / "files", said(3, 9, 5, then=stop))
        assert names(tmp_path / "files") == [*numbered(6), "latency.json", "unfinished.json"]
        with pytest.raises(InputError, match="is unfinished"):
            image_sets.open_images(str(tmp_path / "files"))


def test_silence_leaves_no_mark(tmp_path):
    sample(tmp_path, said())
    assert names(tmp_path) == ["latency.json"]
