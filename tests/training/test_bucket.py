"""The work directory may be in a bucket: the same code, through epath and TensorStore."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.training.writer import read_log
from tests.training.test_resume import losses


@pytest.fixture
def bucket(monkeypatch):
    """gs://bucket of an emulator, for this process and those that it starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.helpers.bucket", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as emulator:
        assert emulator.stdout.readline() == "ready\n"
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            monkeypatch.setenv(name, f"http://localhost:{port}")
        yield epath.Path("gs://bucket")
        emulator.kill()


@pytest.mark.slow
def test_a_run_in_a_bucket_is_resumed_there_and_ends_like_one_on_disk(bucket, finished):
    command = [sys.executable, "-m", "maskgil_jax.main", "--config=tests/helpers/tiny.py:generator"]
    command += [f"--workdir={bucket}/run", f"--config.data.source=arrayrecord:{finished}/codes"]
    command += ["--config.samples.classes=1", "--config.evaluation.reference="]
    for steps in (3, 6):
        # In a process, because TensorBoard's writer calls the bucket once more at the very end.
        done = subprocess.run(
            [*command, f"--config.steps={steps}"],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert "resuming from step 3" in done.stderr
    assert losses(bucket / "run") == losses(finished)
    assert [line["step"] for line in read_log(bucket / "run")] == [1, 2, 3, 4, 5, 6]
    assert {path.name for path in (bucket / "run" / "checkpoints").iterdir()} == {"4", "6"}
    there, here = (maskgil_jax.load(run / "model") for run in (bucket / "run", finished))
    codes = np.zeros((1, *here.grid), np.int32)
    np.testing.assert_array_equal(there.logits(codes, [1]), here.logits(codes, [1]))
    assert (bucket / "run" / "samples" / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert list((bucket / "run" / "tensorboard").iterdir())
