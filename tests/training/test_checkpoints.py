"""Checkpoints over a long run: what they hold open, leave behind and say."""

import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.runtime import sharding, work_lock
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.checkpoints import Checkpoints

ABOUT = {"code": "test"}


def open_checkpoints(directory, newest=2, every=0):
    kept = range(every, 1000, every) if every else ()
    return Checkpoints(epath.Path(directory) / "checkpoints", newest, kept, ABOUT)


def save(checkpoints, *steps, size=4):
    for step in steps:
        checkpoints.save(
            step,
            {"a": jnp.full(size, float(step))},
            weight_norm=float(step),
            useful_seconds=2.0 * step,
        )


def steps_in(directory):
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


def restore(checkpoints):
    mesh = sharding.make_mesh(ConfigDict(dict(data=-1, fsdp=1, tensor=1)))
    like = jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding.replicated(mesh))
    return checkpoints.restore({"a": like})


def test_fifty_saves_leave_as_many_descriptors_and_threads_as_ten(tmp_path):
    counts = []
    with open_checkpoints(tmp_path) as checkpoints:
        for step in range(1, 51):
            save(checkpoints, step)
            if step in (10, 30, 50):
                checkpoints.wait()
                counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    for now, before in zip(counts[-1], counts[0], strict=True):
        assert now <= before + 3, counts
    assert steps_in(tmp_path) == [49, 50]


def test_small_arrays_on_many_devices_are_saved_without_a_program_for_each(caplog, tmp_path):
    mesh = sharding.make_mesh(ConfigDict(dict(data=-1, fsdp=1, tensor=1)))
    # Shapes of no other test, of which nothing is compiled yet.
    state = {str(n): jnp.arange(8.0 * n).reshape(8, n) for n in (1013, 1019, 1021)}
    state = jax.device_put(state, sharding.replicated(mesh))
    with open_checkpoints(tmp_path) as checkpoints, jax.log_compiles():
        checkpoints.save(1, state, weight_norm=1.0, useful_seconds=1.0)
    assert "Compiling jit(_checksums)" in caplog.text
    assert caplog.text.count("Compiling jit") == 1


def test_saving_goes_on_in_the_background(monkeypatch, tmp_path):
    from orbax.checkpoint._src.path import atomicity

    hold, waited = threading.Event(), []
    finalize = atomicity.AtomicRenameTemporaryPath.finalize

    async def slow(self, *arguments, **options):
        waited.append(hold.wait(30))
        return await finalize(self, *arguments, **options)

    monkeypatch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", slow)
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        assert not (tmp_path / "checkpoints" / "1").exists()  # and yet we are here
        hold.set()
        checkpoints.wait()
        assert waited and (tmp_path / "checkpoints" / "1").exists()


@pytest.mark.parametrize("when", ["at the next save", "on waiting", "at the end"])
def test_a_save_that_fails_in_the_background_is_one_message(when, monkeypatch, tmp_path):
    from orbax.checkpoint._src.path import atomicity

    async def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="could not be written: .*No space") as error:
        with open_checkpoints(tmp_path) as checkpoints:
            save(checkpoints, 1)
            checkpoints.wait()
            monkeypatch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", full)
            save(checkpoints, 2)
            if when == "on waiting":
                checkpoints.wait()
            if when == "at the next save":
                save(checkpoints, 3)
    assert "The newest complete one is of step 1" in str(error.value)


def test_a_work_directory_that_is_removed_is_one_message_and_stays_away(tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(InputError, match=f"--workdir={directory}: it was removed") as error:
        with work_lock.held(directory, "--workdir"), open_checkpoints(directory) as checkpoints:
            save(checkpoints, 1)
            checkpoints.wait()
            shutil.rmtree(directory)
            save(checkpoints, 2)
            save(checkpoints, 3)
    assert "the run has stopped" in str(error.value)
    assert not directory.exists()


@pytest.mark.parametrize("every", [0, 2])
def test_half_deleted_checkpoints_are_deleted_at_the_next_start(every, tmp_path):
    with open_checkpoints(tmp_path, newest=9) as checkpoints:
        save(checkpoints, 1, 2, 3, 4, 5, 6)
    for step in (1, 3):  # a kill in the midst of deleting
        for path in (tmp_path / "checkpoints" / str(step)).rglob("*"):
            if path.is_file():
                path.unlink()
    unfinished = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with open_checkpoints(tmp_path, every=every) as checkpoints:
        np.testing.assert_array_equal(restore(checkpoints)["a"], 6)
        assert checkpoints.latest == 6
    assert steps_in(tmp_path) == ([2, 4, 5, 6] if every else [5, 6])


def test_checkpoints_say_the_norm_of_their_weights(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        checkpoints.save(2, {"a": jnp.zeros(4)}, weight_norm=float("inf"), useful_seconds=1.0)
        assert checkpoints.weight_norms == {1: 1.0, 2: float("inf")}
