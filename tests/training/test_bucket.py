"""The work directory may be in a bucket: the same code, through epath and TensorStore."""

import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.training.writer import read_log
from tests.helpers import commands
from tests.helpers.work_directories import losses


@pytest.mark.slow
def test_a_run_in_a_bucket_is_resumed_there_and_ends_like_one_on_disk(bucket, finished):
    options = ["--config=tests/helpers/tiny.py:generator", f"--workdir={bucket}/run"]
    options += [f"--config.data.source=arrayrecord:{finished}/codes"]
    options += ["--config.samples.classes=1", "--config.evaluation.reference="]
    for steps in (3, 6):
        # In a process, because TensorBoard's writer calls the bucket once more at the very end.
        done = commands.run("main", *options, f"--config.steps={steps}", devices=8)
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
