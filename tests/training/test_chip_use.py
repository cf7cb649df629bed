"""MFU, goodput and memory in the log of a run."""

import json
import logging
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from maskgil_jax.models.token_models import flops
from maskgil_jax.pretrained import loading
from maskgil_jax.training import chip_use, goodput
from maskgil_jax.training.checkpoints import Checkpoints
from maskgil_jax.training.clock import Clock
from maskgil_jax.training.goodput import Goodput
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny, tiny_shards


def test_the_rate_of_flops_is_that_of_the_model_and_no_more(finished):
    """Counted from the network's shape, and in the log by examples."""
    network = loading.generator_without_weights(finished / "model").network.config
    each = flops.training_flops(network)
    for line in read_log(finished):
        assert line["flops_per_second"] == pytest.approx(each * line["examples_per_second"])


def test_without_a_count_the_step_is_counted_as_it_is_traced_once():
    traces = []

    @jax.jit
    def step(x, w):
        traces.append(x.shape)
        return x @ w

    x, w = jnp.ones((4, 8)), jnp.ones((8, 16))
    counted = chip_use.StepFlops(step, None)
    assert (2, 2) not in counted
    assert counted.of((2, 2), x, w) == 2 * 4 * 8 * 16
    step(x, w)
    assert traces == [(4, 8)] and (2, 2) in counted
    assert counted.of((2, 2), None) == 2 * 4 * 8 * 16  # known by then


def on(kind, devices=4):
    """A mesh of so many devices of a kind."""
    return types.SimpleNamespace(
        devices=np.array([types.SimpleNamespace(device_kind=kind)] * devices)
    )


def test_mfu_is_the_share_of_the_peak_of_all_chips():
    use = chip_use.ChipUse(on("TPU v5 lite", 4))
    values = use.of({"flops_per_second": 0.3 * 4 * 197e12, "step_seconds": 1.0})
    assert values == {"mfu": pytest.approx(0.3), "step_seconds": 1.0}


def test_of_a_chip_without_a_known_peak_the_rate_is_logged_and_that_is_said_once(caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    use = chip_use.ChipUse(on("abacus"))
    for _ in range(2):
        assert use.of({"flops_per_second": 3.0}) == {"flops_per_second": 3.0}
    assert [message for message in caplog.messages if "abacus" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_memory_is_that_of_the_fullest_device_and_of_this_process(monkeypatch):
    devices = [
        types.SimpleNamespace(memory_stats=lambda n=n: {"peak_bytes_in_use": n * 2**30})
        for n in (3, 5)
    ]
    with monkeypatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: devices)
        memory = chip_use.peak_memory()
    assert memory["device_peak_gib"] == 5 and 0.1 < memory["host_peak_gib"] < 100
    assert chip_use.peak_memory().keys() == {"host_peak_gib"}  # CPUs say nothing of themselves


@pytest.fixture
def clock(monkeypatch):
    """A Clock, and the time that it reads, in a list of one number."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return Clock(), now


def test_useful_seconds_are_those_in_steps(clock):
    """The first batch, compiling, saving and pictures are not; waiting for data later is."""
    clock, now = clock

    def passes(seconds, context=None):
        if context is None:
            now[0] += seconds
            return
        with context:
            now[0] += seconds

    passes(1, clock.waiting())
    passes(10, clock.lost())
    clock.count(8, 16, flops=100)
    passes(2)
    assert clock.useful_seconds == 2
    assert clock.rates()["flops_per_second"] == 100 / 13  # as the other rates: of all the time
    passes(20, clock.paused())
    passes(3, clock.waiting())
    clock.count(8, 16, flops=100)
    passes(4)
    passes(5, clock.lost())
    assert clock.useful_seconds == 9
    clock.rates()
    assert clock.useful_seconds == 9


def test_goodput_goes_on_over_starts_and_steps_that_are_done_again_count_once(
    tmp_path, monkeypatch
):
    now = [1000.0]
    monkeypatch.setattr(goodput.time, "time", lambda: now[0])
    workdir = epath.Path(tmp_path)
    first = Goodput(workdir, 0.0)
    now[0] += 100
    assert first.share(50.0) == 0.5
    # Its newest checkpoint was saved after 40 useful seconds; the 10 after it are lost, and so are
    # the 60 until it is started again.
    now[0] += 60
    second = Goodput(workdir, 40.0)
    now[0] += 40
    assert second.share(30.0) == 70 / 200 and second.useful_seconds(30.0) == 70
    # Killed before its first checkpoint, a run still began when it was first started.
    assert Goodput(workdir, 0.0).share(20.0) == 20 / 200


def test_goodput_of_a_run_that_was_begun_without_it_counts_from_now(tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    for useful in (None, 500.0):  # the checkpoint says nothing; the file of the start is gone
        (tmp_path / goodput.FILE).unlink(missing_ok=True)
        caplog.clear()
        assert 0 <= Goodput(epath.Path(tmp_path), useful).useful_seconds(1.0) == 1
        assert "counts from now" in caplog.text


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_goodput(tmp_path):
    config = tiny.generator()
    config.data.source = f"arrayrecord:{tiny_shards.write(tmp_path / 'codes')}"
    config.evaluation.reference = ""
    config.steps, config.checkpoint_every = 3, 3
    workdir = epath.Path(tmp_path / "run")
    run_stages(config, workdir)
    started = json.loads((workdir / goodput.FILE).read_text())["started"]
    with Checkpoints(workdir / "checkpoints", 2, (), {}) as checkpoints:
        before = checkpoints.useful_seconds
    wall = time.time() - started
    assert 0 < before < wall
    time.sleep(1)
    config.steps = 6
    run_stages(config, workdir)
    assert json.loads((workdir / goodput.FILE).read_text())["started"] == started
    with Checkpoints(workdir / "checkpoints", 2, (), {}) as checkpoints:
        after = checkpoints.useful_seconds
    last = read_log(workdir)[-1]
    assert before < after < time.time() - started - 1
    assert last["goodput"] == pytest.approx(after / (time.time() - started), rel=0.5)
