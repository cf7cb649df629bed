"""Trackers beside TensorBoard: wandb, and those of users."""

import json
import logging
import sys

import numpy as np
import pytest
from etils import epath

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import trackers
from maskgil_jax.training.writer import Writer, read_log
from tests.helpers import commands

PICTURE = np.zeros((4, 6, 3), np.uint8)
RATE = {"examples_per_second": 1.0}


class Kept:
    """A user's tracker, which keeps what it is told."""

    def __init__(self, start):
        self.start, self.told, self.closed = start, [], False
        Kept.last = self

    def scalars(self, step, values):
        self.told.append((step, dict(values)))

    def pictures(self, step, pictures):
        self.told.append((step, {name: picture.shape for name, picture in pictures.items()}))

    def close(self):
        self.closed = True


class Breaks(Kept):
    """One that fails at the second step."""

    def scalars(self, step, values):
        super().scalars(step, values)
        if step == 2:
            raise ConnectionError("no such host")


def write(directory, tracker, steps=(1, 2, 3), start_step=0):
    known = dict(tracker=trackers.named(tracker), config={"seed": 7})
    with Writer(epath.Path(directory), start_step=start_step, steps=3, **known) as writer:
        for step in steps:
            writer.scalars(step, {"loss": float(step)} | RATE)
        writer.pictures(steps[-1], {"samples": PICTURE})


def test_a_tracker_of_a_user_is_told_what_the_log_has(tmp_path):
    write(tmp_path, f"{__name__}:Kept", start_step=0)
    kept = Kept.last
    assert kept.start == trackers.Start(str(tmp_path), {"seed": 7}, 0) and kept.closed
    lines = [{"step": step, **values} for step, values in kept.told[:-1]]
    assert lines == read_log(tmp_path) and kept.told[-1] == (3, {"samples": (4, 6, 3)})


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        write(tmp_path, f"{__name__}:Breaks")
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]
    assert [step for step, _ in Kept.last.told] == [1, 2]
    [warning] = [text for text in caplog.messages if "tracker" in text]
    assert "failed at step 2, the run goes on without it" in warning and "no such host" in warning


def test_a_tracker_that_is_not_there_is_refused_before_a_run_begins(tmp_path, monkeypatch):
    for name in ("nowhere:Tracker", f"{__name__}:Nothing", "nowhere", "tests"):
        with pytest.raises(InputError, match="config.tracker = .*expected wandb, wandb:PROJECT or"):
            trackers.named(name)
    monkeypatch.setitem(sys.modules, "wandb", None)
    options = ("--config=vq16", "--config.tracker=wandb", "--config.loss.perceptual_weight=0")
    done = commands.call("main", *options, f"--workdir={tmp_path}", "--config.data.source=embedded")
    assert done.returncode == 1
    assert done.stderr.endswith("needs wandb: pip install 'maskgil_jax[wandb]'\n")
    assert not (tmp_path / "checkpoints").exists()


def test_weights_and_biases_takes_numbers_and_pictures_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra [wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write(tmp_path, "wandb:digits", steps=(1, 2))
    name = (tmp_path / trackers.WANDB_ID).read_text()
    write(tmp_path, "wandb:digits", steps=(2, 3), start_step=1)
    assert (tmp_path / trackers.WANDB_ID).read_text() == name  # the same run goes on
    runs = [*(tmp_path / "wandb").glob(f"offline-run-*-{name}/*.wandb")]
    assert runs and [*tmp_path.glob("wandb/*/files/media/images/samples*.png")]
    content = b"".join(path.read_bytes() for path in runs)
    assert all(word in content for word in (b"digits", b"loss", b"examples_per_second", b"seed"))
    write(tmp_path / "another", "wandb", steps=(1,))
    assert (tmp_path / "another" / trackers.WANDB_ID).read_text() != name
    assert json.dumps(read_log(tmp_path)[-1]["step"]) == "3"
