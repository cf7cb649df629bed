"""How tpu_worker.sh starts and stops the training of a worker, and what it tells of it."""

import os
import shutil
import subprocess
import time

import pytest

from tests.helpers.cluster_tools import ROOT, TRAINING


@pytest.fixture
def worker(tmp_path):
    """tpu_worker.sh in a checkout whose Python waits for SIGTERM, or ends as it is told."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{shutil.which('bash')}\n"
        "trap 'echo saved; exit 143' TERM\n"
        'printf "%s\\n" "$@"\n'
        '[[ $3 != --exit=* ]] || exit "${3#*=}"\n'
        "while :; do sleep 0.02; done\n"
    )
    python.chmod(0o755)

    def run(*arguments):
        done = subprocess.run(
            [tmp_path / "launch" / "tpu_worker.sh", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.removeprefix("train: ").strip()

    yield run
    run("stop")


def test_a_worker_starts_once_and_stops_with_a_checkpoint(worker, tmp_path):
    assert worker("status") == "new"
    assert worker("start", *TRAINING) == "running"
    first = (tmp_path / "train.pid").read_text()
    worker("start", *TRAINING)
    assert (tmp_path / "train.pid").read_text() == first and worker("status") == "running"
    assert worker("stop") == "143" == worker("status")
    assert (tmp_path / "train.log").read_text().splitlines() == [*TRAINING, "saved"]
    assert worker("start", *TRAINING) == "running"  # and goes on when told to


@pytest.mark.parametrize("code", ["0", "1", "75"])
def test_a_worker_tells_the_exit_code(worker, code):
    worker("start", "-m", "maskgil_jax.main", f"--exit={code}")
    deadline = time.monotonic() + 20
    while (status := worker("status")) == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert status == code == worker("stop")


def test_a_worker_whose_vm_was_booted_is_gone(worker, tmp_path):
    (tmp_path / "train.pid").write_text(
        f"{os.getpid()} {os.getpid()}\n"
    )  # of another program by now
    assert worker("status") == "gone"
