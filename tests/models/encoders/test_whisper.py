import dataclasses

import jax
import numpy as np
import pytest
import torch

from maskgil_jax.interop import engine
from maskgil_jax.interop import whisper as table
from maskgil_jax.models.encoders.whisper import Whisper
from tests.helpers.layouts import pieces_of
from tests.helpers.tiny_whisper import END, NO_TIMES, START, TINY, torch_model


@pytest.fixture(scope="module")
def network():
    """A tiny network whose every weight is random; positions and outputs are large."""
    model = jax.jit(Whisper, static_argnums=0)(TINY, jax.random.key(0))
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noise)


@pytest.fixture(scope="module")
def state(network):
    return engine.dump(table.entries(TINY), network)


def mel(frames, batch=3):
    return np.random.default_rng(0).normal(size=(batch, frames, TINY.mel_bins)).astype(np.float32)


@pytest.mark.parametrize("frames", [2, 22, 60])
def test_features_of_any_window_are_those_of_transformers(network, state, frames):
    """Its windows have one length, so that it is built for each with the first positions alone."""
    short = dataclasses.replace(TINY, speech_positions=frames // 2)
    name = "model.encoder.embed_positions.weight"
    model = torch_model(short, state | {name: state[name][: frames // 2]})
    mel_BFM = mel(frames)
    with torch.no_grad():
        expected = model.model.encoder(torch.tensor(mel_BFM).mT).last_hidden_state.numpy()
    found = jax.jit(Whisper.encode)(network, mel_BFM)
    assert found.shape == (3, frames // 2, TINY.dim)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_logits_are_those_of_transformers(network, state):
    mel_BFM, tokens_BS = mel(60), np.random.default_rng(1).integers(0, 50, (3, 24))
    with torch.no_grad():
        outputs = torch_model(TINY, state)(
            input_features=torch.tensor(mel_BFM).mT, decoder_input_ids=torch.tensor(tokens_BS)
        )
    found = jax.jit(lambda n, m, t: n.logits(t, n.encode(m)))(network, mel_BFM, tokens_BS)
    np.testing.assert_allclose(found, outputs.logits.numpy(), atol=1e-4)


def test_greedy_tokens_are_those_of_transformers(network, state):
    """Texts end at different places, one not at all; some tokens are never said."""
    mel_BFM = np.concatenate([mel(60, batch=12), np.zeros((1, 60, 20), np.float32)])
    with torch.no_grad():
        expected = torch_model(TINY, state).generate(torch.tensor(mel_BFM).mT).numpy()
    prompt_P = np.array([START, NO_TIMES])
    found = jax.jit(lambda n, m: n.greedy(n.encode(m), prompt_P, END))(network, mel_BFM)
    lengths = (np.asarray(found) != END).sum(axis=1)
    assert len(set(lengths)) > 2 and lengths.max() == TINY.text_positions
    for row, ours in zip(expected, np.asarray(found), strict=True):
        said = [token for token in row if token not in (START, NO_TIMES, END)]
        assert said == [token for token in ours if token not in (START, NO_TIMES, END)]
        assert not set(said) & set(TINY.suppressed)


def test_windows_that_do_not_fit_are_refused(network):
    for shape in ((1, 3, 20), (1, 62, 20), (1, 0, 20), (1, 60, 80)):
        with pytest.raises(ValueError, match="expected an even number up to 60 and 20"):
            network.encode(np.zeros(shape, np.float32))


def test_sizes_that_do_not_fit_are_refused():
    for change, message in (
        (dict(heads=3), "dim = 64 is no multiple of 2 heads = 6"),
        (dict(decoder_layers=0), "decoder_layers = 0, expected 1 or more"),
        (dict(suppressed=(50,)), "suppressed = \\(50,\\), expected 0 .. 49"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **change)


def test_layers_and_tables_are_split_over_the_mesh():
    shapes = jax.eval_shape(lambda: Whisper(TINY, jax.random.key(0)))
    for name, split in pieces_of(shapes).items():
        if "blocks/" in name and name.endswith(("query", "key_value", "out", "up", "down")):
            assert split == 4, name
        if name.endswith("embedding"):
            assert split == 2, name
