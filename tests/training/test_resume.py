"""A run that was stopped, by whatever, ends in the very bits of one that was not."""

import json
import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest
from etils import epath

from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, tiny
from tests.helpers.work_directories import assert_same, final_state, losses, wait_for


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_resume_gives_identical_parameters_and_losses(stage, finished, tmp_path):
    config = tiny.get_config(stage)
    straight = finished if stage == "generator" else finished / "tokenizer"
    if stage == "generator":
        config.data.source = f"arrayrecord:{finished}/codes"
    config.evaluation.reference = ""
    config.steps = 3
    run_stages(config, epath.Path(tmp_path))
    if stage == "tokenizer":  # by a version that had this field
        path = tmp_path / "config.json"
        older = json.loads(path.read_text())
        older["loss"]["reconstruction_weight"] = 1.0
        path.write_text(json.dumps(older))
    config.steps = 6
    run_stages(config, epath.Path(tmp_path))
    assert_same(tmp_path, straight)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_does_not(finished, tmp_path):
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.evaluation.reference = ""
    run_stages(config, epath.Path(tmp_path / "same"))
    assert_same(tmp_path / "same", finished)
    config.seed, config.steps = 1, 1
    run_stages(config, epath.Path(tmp_path / "other"))
    assert losses(tmp_path / "other")[0] != losses(finished)[0]


def start(workdir, *options, steps=6):
    """The whole tiny job in a process of its own, on one device."""
    config = ("--config=tests/helpers/tiny.py", f"--config.stages.generator.steps={steps}")
    return commands.start("main", *config, f"--workdir={workdir}", *options)


@pytest.mark.slow
@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_and_the_same_command_goes_on(signum, code, finished, tmp_path):
    options = (
        "--config=tests/helpers/tiny.py:generator",
        f"--config.data.source=arrayrecord:{finished}/codes",
        "--config.checkpoint_every=100000",
        "--config.evaluation.reference=",
    )

    def run(steps):
        where = (f"--workdir={tmp_path}", *options, f"--config.steps={steps}")
        return commands.start("main", *where, stdout=None, stderr=subprocess.PIPE)

    process = run(100000)
    wait_for(process, lambda: len(read_log(tmp_path)) >= 3)
    process.send_signal(signum)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == code
    assert "run the same command to go on" in error and "Traceback" not in error
    stopped = int(final_state(tmp_path)["step"])
    assert stopped >= 3 and f"stopped at step {stopped}" in error
    process = run(stopped + 1)
    assert process.communicate(timeout=240)[1].count("resuming from step") == 1
    assert process.returncode == 0
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, stopped + 2))


@pytest.mark.slow(seconds=90)
def test_killed_at_random_moments_it_ends_in_the_same_bits(tmp_path):
    """kill -9 anywhere: while compiling, saving, encoding shards, writing models."""
    kills = int(os.environ.get("MASKGIL_KILLS", "3"))
    process = start(tmp_path / "straight", steps=60)
    began = time.monotonic()
    assert process.wait(600) == 0, process.communicate()[0]
    duration = time.monotonic() - began
    rng = random.Random(0)
    for _ in range(kills):
        process = start(tmp_path / "killed", steps=60)
        try:
            process.wait(rng.uniform(0.1, 1.0) * duration)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process = start(tmp_path / "killed", steps=60)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    for part in ("", "tokenizer"):
        assert_same(tmp_path / "straight" / part, tmp_path / "killed" / part)
    for name in ("model", "tokenizer/model"):
        straight, killed = (
            (tmp_path / run / name / "model.json").read_text().split('"fingerprint": "')[-1][:16]
            for run in ("straight", "killed")
        )
        assert straight == killed


@pytest.mark.slow
def test_micro_batches_add_up_to_the_batch(finished, tmp_path):
    found = []
    for accumulate in (1, 4):
        config = tiny.generator()
        config.data.source = f"arrayrecord:{finished}/codes"
        config.evaluation.reference = ""
        config.model.dropout = 0.0
        config.accumulate_steps = accumulate
        config.steps = 3
        run_stages(config, epath.Path(tmp_path / str(accumulate)))
        found.append([line["loss"] for line in read_log(tmp_path / str(accumulate))])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
