"""What goes wrong in a long run: numbers that are not finite, damaged files, full disks."""

import dataclasses
import json
import logging
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_data, generator_step
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny
from tests.helpers.work_directories import final_state, losses


@pytest.fixture
def config(finished):
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.samples.update(classes=1, per_class=1)
    config.evaluation.reference = ""
    return config


def break_steps(monkeypatch, broken):
    """Gradients of these steps are NaN."""
    healthy = generator_step.weighted_loss
    step = generator_step.step

    def broken_step(state, *arguments, **settings):
        def loss(*inputs, **numbers):
            value, sums = healthy(*inputs, **numbers)
            bad = jnp.isin(state.step + 1, jnp.array(broken))
            return jnp.where(bad, jnp.nan, 1.0) * value, sums

        monkeypatch.setattr(generator_step, "weighted_loss", loss)
        return step(state, *arguments, **settings)

    monkeypatch.setattr(generator_step, "step", broken_step)


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(
    config, monkeypatch, caplog, tmp_path
):
    break_steps(monkeypatch, [3, 4])
    config.update(steps=4, checkpoint_every=1, keep_checkpoints=4, skips_allowed=2)
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        run_stages(config, epath.Path(tmp_path))
    assert [line["skipped_steps"] for line in read_log(tmp_path)] == [0, 0, 1, 2]
    messages = [record.message for record in caplog.records]
    assert [f"skipped step {n}: its loss or gradients are not finite" for n in (3, 4)] == [
        message for message in messages if message.startswith("skipped step")
    ]
    before, after = final_state(tmp_path, 2), final_state(tmp_path)
    assert before["step"] == 2 and after["step"] == 4
    np.testing.assert_array_equal(after["skipped"], [2, 2])
    for name in before.keys() - {"step", "skipped", "checksums"}:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    # Training goes on from there, and a row of skipped steps ends.
    config.update(steps=5)
    run_stages(config, epath.Path(tmp_path))
    assert read_log(tmp_path)[-1]["skipped_in_a_row"] == 0
    assert np.isfinite(read_log(tmp_path)[-1]["loss"])


@pytest.mark.slow
def test_too_many_in_a_row_stop_the_run_and_name_what_they_read(config, monkeypatch, tmp_path):
    break_steps(monkeypatch, [4, 5, 6, 7])
    config.update(steps=50, checkpoint_every=3, skips_allowed=2, log_every=50)
    with pytest.raises(InputError) as error:
        run_stages(config, epath.Path(tmp_path))
    text = str(error.value)
    assert "of 3 steps in a row are not finite, config.skips_allowed = 2" in text
    assert "checkpoint is of step 6" in text or "checkpoint is of step 3" in text
    named = {line.split(":")[0].strip(): line for line in text.splitlines() if "  step" in line}
    assert list(named) == ["step 4", "step 5", "step 6"]
    seen = []
    healthy = generator_data.open_data

    def watched(config):
        data = healthy(config)

        def load(index, rng):
            seen.append(data.record(index).id)
            return data.dataset.load(index, rng)

        return dataclasses.replace(data, dataset=dataclasses.replace(data.dataset, load=load))

    monkeypatch.setattr(generator_data, "open_data", watched)
    config.update(steps=4, log_every=1, mesh=dict(data=8, fsdp=1, tensor=1))
    config.data.threads = 1
    run_stages(config, epath.Path(tmp_path / "again"))
    batch = set(seen[3 * config.batch_size : 4 * config.batch_size])
    shown = named["step 4"].partition(": ")[2].partition(", and ")[0].split(", ")
    assert len(shown) == 8 and set(shown) <= batch


@pytest.mark.slow
def test_after_a_huge_learning_rate_nobody_is_sent_to_the_newest_checkpoint(tmp_path):
    config = tiny.tokenizer()
    config.update(steps=50, checkpoint_every=1, keep_checkpoints=9, skips_allowed=2, log_every=50)
    config.optimizer.learning_rate = 1e30
    with pytest.raises(InputError) as error:
        run_stages(config, epath.Path(tmp_path))
    text = str(error.value)
    assert "e+3" in text.partition("The weights have norm ")[2].partition(",")[0], text
    assert "do not go on from it" in text and "--config.optimizer.learning_rate" in text


@pytest.fixture(scope="module")
def trained(finished, built_once):
    """Checkpoints of steps 2, 4 and 6."""
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.evaluation.reference = ""
    config.keep_checkpoints = 3
    return config, built_once("trained", lambda workdir: run_stages(config, workdir))


def copy(trained, tmp_path):
    config, workdir = trained
    subprocess.run(["cp", "-r", f"{workdir}/.", tmp_path], check=True)
    return config.copy_and_resolve_references(), tmp_path


def largest_file(directory):
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def cut(checkpoint):
    path = largest_file(checkpoint)
    path.write_bytes(path.read_bytes()[:1000])


def flip_a_bit(checkpoint):
    path = largest_file(checkpoint)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_its_index(checkpoint):
    (checkpoint / "state" / "manifest.ocdbt").unlink()


def empty_metadata(checkpoint):
    (checkpoint / "_CHECKPOINT_METADATA").write_text("{")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, flip_a_bit, lose_its_index, empty_metadata])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage, trained, caplog, tmp_path
):
    config, workdir = copy(trained, tmp_path)
    damage(workdir / "checkpoints" / "6")
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        run_stages(config, epath.Path(workdir))
    messages = [record.message for record in caplog.records]
    if damage is empty_metadata:  # the state is whole
        assert "resuming from step 6" in messages
    else:
        assert "resuming from step 4" in messages
        [warning] = [message for message in messages if "is damaged" in message]
        assert f"{workdir}/checkpoints/6 is damaged and moved to damaged-6-" in warning
        assert len(list(workdir.glob("damaged-6-*"))) == 1
    assert losses(workdir) == losses(trained[1])
    a, b = final_state(workdir), final_state(trained[1])
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_where_none_can_be_read_nothing_is_trained_over_them(trained, tmp_path):
    config, workdir = copy(trained, tmp_path)
    for step in (2, 4, 6):
        cut(workdir / "checkpoints" / str(step))
    with pytest.raises(InputError, match="no checkpoint can be read") as error:
        run_stages(config, epath.Path(workdir))
    assert all(f"step {step}: " in str(error.value) for step in (2, 4, 6))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4", "6"]


def test_a_checkpoint_says_what_made_it_and_those_of_keep_every_stay(config, tmp_path):
    config.update(steps=7, checkpoint_every=7, keep_checkpoints=1, keep_every=3, keep_steps=(2,))
    run_stages(config, epath.Path(tmp_path))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["2", "3", "6", "7"]
    metadata = json.loads((tmp_path / "checkpoints" / "7" / "_CHECKPOINT_METADATA").read_text())
    about = metadata["custom_metadata"]
    assert about["config"]["keep_every"] == 3 and about["config"]["model"]["layers"] == 2
    assert about["code"].startswith("0.1.0")


def run_under(prefix, workdir, *options):
    command = [
        *prefix,
        sys.executable,
        "-m",
        "maskgil_jax.main",
        "--config=tests/helpers/tiny.py:generator",
    ]
    return subprocess.run(
        [*command, f"--workdir={workdir}", *options],
        # The compilation cache of the tests would keep what such a run could write only in part.
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_ENABLE_COMPILATION_CACHE": "0"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_its_checkpoints_intact(trained, finished, tmp_path):
    """A limit on the size of files stands for the disk: both fail while a file is written."""
    _, workdir = copy(trained, tmp_path)
    options = [f"--config.data.source=arrayrecord:{finished}/codes", "--config.keep_checkpoints=3"]
    options.append("--config.evaluation.reference=")
    done = run_under(["prlimit", "--fsize=60000"], workdir, *options, "--config.steps=10")
    assert done.returncode == 1, done.stderr
    assert f"error: {workdir}/checkpoints: a checkpoint could not be written: " in done.stderr
    # Orbax's threads report the same failure in their own words, with tracebacks; ours comes last.
    assert done.stderr.splitlines()[-1].startswith("The newest complete one is of step 6")
    assert final_state(workdir)["step"] == 6
    done = run_under([], workdir, *options, "--config.steps=8")
    assert done.returncode == 0, done.stderr
    assert final_state(workdir)["step"] == 8


def test_a_directory_that_cannot_be_written_is_refused_before_training(finished, tmp_path):
    workdir = tmp_path / "locked"
    workdir.mkdir(mode=0o555)
    # Root may write anywhere, unless this right is given up.
    root = os.geteuid() == 0
    prefix = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if root else []
    done = run_under(prefix, workdir, f"--config.data.source=arrayrecord:{finished}/codes")
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: --workdir={workdir} cannot be written")
    assert "step" not in done.stdout and not list(workdir.iterdir())
