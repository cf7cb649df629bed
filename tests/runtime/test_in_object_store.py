"""The lock of a work directory, and the swap of models, in cloud storage."""

import dataclasses
import subprocess
import sys
import time

import pytest

from maskgil_jax.runtime import directory_swap, lock_file, work_lock
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.lock_file import HeldByAnother, Holder, Lock
from tests.helpers.races import race


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(work_lock, "BEAT", 0.1)
    monkeypatch.setattr(lock_file, "SILENCE", 1.0)
    monkeypatch.setattr(lock_file, "SETTLED", 0.5)


def test_a_lock_in_cloud_storage(bucket, quick):
    directory = bucket / "run"
    assert race(4, lambda: Lock(directory).acquire()) == 1
    (directory / lock_file.NAME).unlink()
    # One of another machine that has ended is watched, then taken over; it beats from then on.
    dead = dataclasses.replace(Holder.this_process(), host="elsewhere")
    (directory / lock_file.NAME).write_bytes(dead.to_bytes())
    with work_lock.held(directory, "--workdir"):
        with pytest.raises(HeldByAnother, match="another run is going on there"):
            Lock(directory).acquire()
        first = (directory / lock_file.NAME).read_bytes()
        time.sleep(0.5)
        assert (directory / lock_file.NAME).read_bytes() != first
    assert not (directory / lock_file.NAME).exists()


def test_a_run_whose_lock_was_overwritten_in_cloud_storage_stops(bucket, quick):
    directory = bucket / "run"
    with pytest.raises(InputError, match="another run took it over .*: process 7 on"):
        with work_lock.held(directory, "--workdir"):
            other = dataclasses.replace(Holder.this_process(), token="other", pid=7)
            (directory / lock_file.NAME).write_bytes(other.to_bytes())
            time.sleep(60)


def test_a_directory_replaces_another_in_cloud_storage(bucket):
    directory = bucket / "run" / "model"
    for text in ("old", "new"):
        fresh = directory_swap.beside(directory, "0123456789abcdef")
        for name in ("params/a", "params/d/b", "model.json"):
            (fresh / name).write_text(text)
        directory_swap.replace(fresh, directory, "model.json")
        assert directory_swap.replacement_of(directory, "model.json") is None
        for name in ("params/a", "params/d/b", "model.json"):
            assert (directory / name).read_text() == text
        assert not (fresh / "model.json").exists() and not (fresh / "params" / "a").exists()


def test_what_another_process_does_in_a_bucket_is_seen_after_it_was_listed(bucket):
    directory = bucket / "run"
    (directory / "here").write_text("old")
    assert [path.name for path in directory.iterdir()] == ["here"]
    program = """
from etils import epath
directory = epath.Path("gs://bucket/run")
(directory / "there").write_text("new")
(directory / "here").write_text("changed")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (directory / "there").exists() and (directory / "there").read_text() == "new"
    assert (directory / "here").read_text() == "changed"
    assert sorted(path.name for path in directory.iterdir()) == ["here", "there"]
