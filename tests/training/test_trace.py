"""Traces of training steps."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import trace
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny, tiny_shards


@pytest.mark.parametrize("text, steps", [("", []), ("1:1", [1]), ("2:4", [2, 3, 4]), ("9:9", [9])])
def test_a_range_has_both_of_its_ends(text, steps):
    assert list(trace.steps_of(text, 9)) == steps


@pytest.mark.parametrize("text", ["3", "3:", ":3", "0:3", "4:3", "9:10", "-1:3", "a:b", "1:2:3"])
def test_a_range_that_is_malformed_or_outside_the_run_is_one_message(text):
    with pytest.raises(InputError) as error:
        trace.steps_of(text, 9)
    assert str(error.value) == (
        f"config.trace = {text!r}, expected START:STOP with 1 <= START <= STOP <= 9 (config.steps)"
    )


def generator(folder):
    """The config of a generator on codes; without a tokenizer it only trains."""
    config = tiny.generator()
    config.data.source = f"arrayrecord:{tiny_shards.write(folder / 'codes')}"
    config.evaluation.reference = ""
    return config


def test_a_run_is_refused_for_it_before_anything_is_made(tmp_path):
    config = generator(tmp_path)
    config.trace = "5:7"
    with pytest.raises(InputError, match="config.trace = '5:7'"):
        run_stages(config, epath.Path(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def trained(folder, steps, start=0, last=6, stop=None):
    """Trace `steps` of a run of small steps, which ends after `stop`; what the trace then is."""
    square = jax.jit(lambda x: x @ x)
    with trace.Trace(trace.steps_of(steps, last), start, epath.Path(folder)) as traced:
        for number in range(start + 1, last + 1):
            with traced.step(number):
                x = square(jnp.eye(8))
            traced.done(number, x)
            if number == stop:
                break
    return names(folder)


def names(folder):
    """Numbers of the steps in the trace of a work directory, which both of its files hold."""
    (packed,) = folder.glob("trace/plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(packed.read_bytes()))["traceEvents"]
    steps = [e["args"]["step_num"] for e in events if e.get("name") == trace.NAME]
    (plane,) = folder.glob("trace/plugins/profile/*/*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(plane))
    found = [
        dict(event.stats)["step_num"]
        for plane in profile.planes
        for line in plane.lines
        for event in line.events
        if event.name == trace.NAME
    ]
    assert sorted(map(int, steps)) == sorted(map(int, found))
    return sorted(map(int, steps))


def test_the_trace_opens_and_names_the_steps(tmp_path):
    assert trained(tmp_path, "3:4") == [3, 4]


def test_a_run_that_goes_on_traces_what_is_left(tmp_path, caplog):
    caplog.set_level("INFO", "maskgil_jax")
    assert trained(tmp_path, "2:5", start=3) == [4, 5]
    assert "3 steps are done already, steps 4 to 5 are traced" in caplog.text


def test_a_run_that_stops_within_the_range_keeps_the_trace(tmp_path):
    assert trained(tmp_path, "2:5", stop=3) == [2, 3]


def test_steps_that_are_done_are_not_traced_and_that_is_said(tmp_path, caplog):
    caplog.set_level("INFO", "maskgil_jax")
    with trace.Trace(range(2, 4), 5, epath.Path(tmp_path)) as traced, traced.step(6):
        pass
    assert not (tmp_path / "trace").exists()
    assert "config.trace: 5 steps are done already, nothing is traced" in caplog.text


@pytest.mark.slow
def test_a_training_run_leaves_its_trace(tmp_path):
    config = generator(tmp_path)
    config.trace = "2:3"
    run_stages(config, epath.Path(tmp_path))
    assert names(tmp_path) == [2, 3]
