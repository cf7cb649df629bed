"""Two real processes of 4 devices each, over localhost, train like one process of 8."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath

from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, tiny
from tests.helpers.two_processes import end_both, free_port, start_command, start_training
from tests.helpers.work_directories import final_state, losses, wait_for

STEPS = 20


def on_codes(finished, steps=STEPS):
    """Options of the generator's run."""
    return (
        f"--config.data.source=arrayrecord:{finished}/codes",
        f"--config.steps={steps}",
        "--config.checkpoint_every=10",
        "--config.evaluation.reference=",
        "--config.pictures_every=20",
    )


@pytest.fixture(scope="module")
def one_process(finished, built_once):
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.steps, config.checkpoint_every, config.pictures_every = STEPS, 10, 20
    config.evaluation.reference = ""
    return built_once("one_process", lambda workdir: run_stages(config, workdir))


def assert_alike(one, other):
    assert [line["step"] for line in losses(one)] == [line["step"] for line in losses(other)]
    for name in ("loss", "gradient_norm", "accuracy"):
        a, b = ([line[name] for line in losses(run)] for run in (one, other))
        np.testing.assert_allclose(a, b, rtol=1e-5)
    a, b = final_state(one), final_state(other)
    assert a.keys() == b.keys()
    for name in a.keys() - {"checksums"}:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [dict(data=8), dict(data=1, fsdp=2, tensor=2, slices=2)], ids=str)
def test_two_processes_train_like_one(mesh, one_process, finished, tmp_path):
    options = [f"--config.mesh.{axis}={size}" for axis, size in mesh.items()]
    codes, outputs = end_both(start_training(tmp_path, *on_codes(finished), *options))
    assert codes == [0, 0], outputs
    assert_alike(one_process, tmp_path)
    # The first one draws and says where everything is; the other is silent.
    assert (tmp_path / "samples" / "grid.png").exists() and "samples" in outputs[0]
    assert "step 20/20" in outputs[0] and "step" not in outputs[1]
    one, two = (
        json.loads((run / "model" / "model.json").read_text()) for run in (one_process, tmp_path)
    )
    assert one["arguments"] == two["arguments"]


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_number_of_processes_and_devices(
    one_process, finished, tmp_path
):
    codes, outputs = end_both(
        start_training(tmp_path, *on_codes(finished, 10), "--config.mesh.fsdp=2")
    )
    assert codes == [0, 0], outputs
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.steps, config.checkpoint_every, config.pictures_every = STEPS, 10, 20
    config.evaluation.reference = ""
    config.mesh = dict(data=2, fsdp=2, tensor=2)
    run_stages(config, epath.Path(tmp_path))
    assert_alike(one_process, tmp_path)


@pytest.mark.slow(seconds=55)
def test_tokenizer_and_code_shards_of_two_processes(finished, tmp_path):
    """All stages; each process encodes some of the shards."""
    codes, outputs = end_both(start_training(tmp_path, config="tests/helpers/tiny.py"))
    assert codes == [0, 0], outputs
    for part in ("tokenizer", "."):
        a, b = ([line["loss"] for line in read_log(run / part)] for run in (finished, tmp_path))
        np.testing.assert_allclose(a, b, rtol=1e-4)
    counts = [
        json.loads((run / "codes" / "index.json").read_text()) for run in (finished, tmp_path)
    ]
    assert counts[0]["examples"] == counts[1]["examples"] and counts[1]["complete"]
    assert (tmp_path / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_on_any_process_saves_on_all(told, finished, tmp_path):
    processes = start_training(
        tmp_path, *on_codes(finished, 100000), "--config.checkpoint_every=100000"
    )
    wait_for(processes[0], lambda: len(read_log(tmp_path)) >= 3)
    processes[told].send_signal(signal.SIGTERM)
    codes, outputs = end_both(processes, 120)
    assert codes == [143, 143], outputs
    step = int(final_state(tmp_path)["step"])
    for output in outputs:
        assert f"stopped at step {step}; run the same command to go on" in output


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_process_dies_the_others_stop_and_say_so(killed, finished, tmp_path):
    processes = start_training(tmp_path, *on_codes(finished, 100000))
    wait_for(processes[0], lambda: len(read_log(tmp_path)) >= 12)
    processes[killed].kill()
    began = time.monotonic()
    codes, outputs = end_both(processes, 120)
    assert codes[1 - killed] == 75, outputs
    # Either JAX aborts the process, or a collective fails first: both say this.
    assert "another process of this run is not there" in outputs[1 - killed]
    assert time.monotonic() - began < 60
    # The same command goes on.
    codes, outputs = end_both(start_training(tmp_path, *on_codes(finished, 20)))
    assert codes == [0, 0], outputs
    assert "resuming from step" in outputs[0]


@pytest.mark.parametrize("where", ["host", "host:1,2", "host:1,2,2", "host:1,two,0", "1,2,host:1"])
def test_another_form_of_distributed_is_refused(where, tmp_path):
    options = ("--config=tests/helpers/tiny.py:generator", f"--workdir={tmp_path}")
    done = commands.call("main", *options, f"--distributed={where}")
    assert done.returncode == 1 and done.stderr.startswith(
        f"error: --distributed={where}, expected"
    )


@pytest.mark.slow
def test_shards_of_the_command_in_two_processes_are_those_of_one(finished, tmp_path):
    options = (
        f"--tokenizer={finished}/tokenizer/model",
        "--data=embedded",
        "--image_size=8",
        "--shard_size=300",
    )
    both = start_command("tokenize", *options, f"--output={tmp_path}/two")
    codes, outputs = end_both(both)
    assert codes == [0, 0], outputs
    done = commands.run("tokenize", *options, f"--output={tmp_path}/one")
    assert done.returncode == 0, done.stderr
    one, two = (CodeShards(f"{tmp_path}/{name}") for name in ("one", "two"))
    assert len(one) == len(two) > 1000
    for i in range(0, len(one), 97):
        np.testing.assert_array_equal(one[i].codes, two[i].codes)
        assert one[i].id == two[i].id


SKEWED = """
import sys, time
from maskgil_jax.runtime import processes
port, index = sys.argv[1:]
with processes.joined(f"127.0.0.1:{port},2,{index}", 10):
    time.sleep(40 * int(index))
    processes.total(1)
"""


@pytest.mark.slow
def test_a_process_that_comes_too_late_ends_the_others_to_be_started_again():
    """Gloo waits 30 s for the others, whatever the heartbeat."""
    port = free_port()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SKEWED, str(port), str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    codes, outputs = end_both(both, 120)
    assert codes == [75, 75], outputs
    assert "another process of this run is not there" in outputs[0]
    assert all("run the same command on all of them" in output for output in outputs)
