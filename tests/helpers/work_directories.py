"""What training leaves in a work directory, as tests compare it."""

import time

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from maskgil_jax.training.writer import read_log

# What of a log is no property of the training itself.
TIMES = ("step_seconds", "data_wait_seconds", "examples_per_second", "tokens_per_second")
TIMES += ("flops_per_second", "mfu", "goodput", "device_peak_gib", "host_peak_gib")


def final_state(workdir, step=None):
    """The newest checkpoint, or that of `step`, on one device, whatever it was saved on."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.training.Checkpointer(epath.Path(workdir) / "checkpoints") as checkpoints:
        step = step or checkpoints.latest
        leaves = checkpoints.metadata(step).metadata
        like = {
            k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=device) for k, v in leaves.items()
        }
        return {k: np.asarray(v) for k, v in checkpoints.load(step, abstract_state=like).items()}


def losses(workdir):
    """The lines of the training log without the times."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(workdir)]


def assert_same(one, other):
    """Both runs ended in the same bits."""
    assert losses(one) == losses(other)
    a, b = final_state(one), final_state(other)
    assert a.keys() == b.keys() and a["step"] == len(losses(one))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def wait_for(process, condition, seconds=240):
    """Wait until a process that goes on has done something."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
