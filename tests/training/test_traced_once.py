"""Runs of one process that agree on what a step reads share its program."""

import pytest
from etils import epath

from maskgil_jax.training import generator_step, traced_once
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny, tiny_shards


@pytest.fixture
def traces(monkeypatch):
    """A list that grows by the seed of each step that is traced."""
    traced, healthy = [], generator_step.step

    def step(state, frozen, batch, config):
        traced.append(config.seed)
        return healthy(state, frozen, batch, config)

    monkeypatch.setattr(generator_step, "step", step)
    return traced


def run(folder, **changes):
    config = tiny.generator()
    config.data.source = f"arrayrecord:{tiny_shards.write(folder / 'codes')}"
    config.samples.update(classes=1, per_class=1, steps=1)
    config.evaluation.reference = ""
    config.model.layers, config.steps = 1, 2
    config.update(changes)
    run_stages(config, epath.Path(folder / "run"))
    return [line["loss"] for line in read_log(folder / "run")]


def test_a_step_is_traced_again_only_for_what_it_reads(traces, tmp_path):
    losses = run(tmp_path / "a")
    assert run(tmp_path / "b", steps=3, log_every=1, checkpoint_every=3)[:2] == losses
    assert traces == [0]
    assert run(tmp_path / "c", seed=1) != losses
    assert traces == [0, 1]


@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_settings_are_what_a_program_may_depend_on(stage):
    config = tiny.get_config(stage)
    settings = traced_once.settings(config)
    config.data.source, config.log_every, config.steps = "folder:elsewhere", 7, 99
    assert traced_once.settings(config) == settings
    assert hash(traced_once.settings(config)) == hash(settings)
    for name, value in (("seed", 5), ("ema_decay", 0.5), ("accumulate_steps", 2)):
        other = tiny.get_config(stage)
        other[name] = value
        assert traced_once.settings(other) != settings
    config.optimizer.schedule = "cosine"  # the only one that knows the last step
    assert traced_once.settings(config).steps == 99
    assert "data" not in settings  # a step that reads it fails
