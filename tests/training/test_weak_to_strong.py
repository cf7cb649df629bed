"""A generator goes on from a model directory, on a larger grid."""

import dataclasses

import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.runtime import trees
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_start
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny


@pytest.fixture(scope="module")
def larger(finished):
    """A config of images twice as large, so of twice the grid, that starts from `finished`."""
    config = tiny.generator()
    config.data.source, config.data.image_size = "embedded", 16
    config.tokenizer = f"{finished}/tokenizer/model"
    config.start_from.generator = f"{finished}/model"
    config.samples.update(classes=1, per_class=1)
    config.evaluation.reference = ""
    return config


@pytest.mark.slow
def test_it_starts_from_the_weights_of_the_smaller_grid_and_trains(larger, finished, tmp_path):
    config = larger.copy_and_resolve_references()
    config.steps, config.optimizer.learning_rate = 1, 1e-30  # the weights stay
    run_stages(config, epath.Path(tmp_path / "as_it_was"))
    small = maskgil_jax.load(finished / "model")
    large = maskgil_jax.load(tmp_path / "as_it_was" / "model")
    assert large.grid == tuple(2 * side for side in small.grid)
    a, b = trees.flatten(small.network), trees.flatten(large.network)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)
    codes = large.sample(np.arange(2), rng=0, steps=2)
    assert codes.shape == (2, *large.grid)
    config = larger.copy_and_resolve_references()
    run_stages(config, epath.Path(tmp_path / "trained"))
    trained = maskgil_jax.load(tmp_path / "trained" / "model")
    moved = trees.flatten(trained.network)["head"]
    assert np.abs(np.asarray(moved) - np.asarray(a["head"])).max() > 1e-6


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(layers=3), "layers: 2 -> 3"),
        (dict(preset="maskgil_released"), "rope: 2d -> 1d"),
        (dict(preset="besnier"), "network: LlamaConfig -> BertConfig"),
    ],
)
def test_another_network_is_refused(change, message, larger, tmp_path):
    config = larger.copy_and_resolve_references()
    config.model.update(change)
    with pytest.raises(
        InputError, match="config.start_from.generator = .* is another network"
    ) as e:
        run_stages(config, epath.Path(tmp_path))
    assert message in str(e.value)


def test_positions_are_interpolated_from_the_grid_of_the_start_and_no_other(finished):
    start = maskgil_jax.load(finished / "model")
    assert start.grid == (4, 4)
    given = f"{finished}/model", start.tokenizer, start.encoder
    changes: dict = dict(grid=(8, 8), rope_positions="interpolated")
    network = dataclasses.replace(start.network.config, **changes, rope_grid=(4, 4))
    trained = generator_start.load_start(given[0], network, *given[1:])
    for name, weights in trees.flatten(start.network).items():
        np.testing.assert_array_equal(trees.flatten(trained)[name], weights)
    network = dataclasses.replace(start.network.config, **changes, rope_grid=(6, 6))
    message = (
        r"was trained on a grid of 4 x 4 tokens, but positions are interpolated from "
        r"config.model.rope_grid = \(6, 6\): expected \(4, 4\)"
    )
    with pytest.raises(InputError, match=message):
        generator_start.load_start(given[0], network, *given[1:])


def test_codes_of_another_tokenizer_are_refused(finished):
    model = maskgil_jax.load(finished / "model")
    other = dict(model.tokenizer, fingerprint="0" * 16)
    with pytest.raises(InputError, match="was trained on codes of tokenizer .*: expected the same"):
        generator_start.load_start(f"{finished}/model", model.network.config, other, {})


def test_a_tokenizer_is_no_start(finished):
    with pytest.raises(InputError, match="holds a tokenizer, expected a generator"):
        generator_start.load_start(f"{finished}/tokenizer/model", None, {}, {})


@pytest.mark.slow
def test_learned_positions_fit_one_grid(finished, tmp_path):
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.model.preset = "besnier"
    config.samples.update(classes=1, per_class=1)
    config.evaluation.reference = ""
    config.steps = 1
    run_stages(config, epath.Path(tmp_path))
    model = maskgil_jax.load(tmp_path / "model")
    larger = dataclasses.replace(model.network.config, grid=(8, 8))
    with pytest.raises(InputError, match="learned positions for a grid of"):
        generator_start.load_start(tmp_path / "model", larger, model.tokenizer, {})
