"""One run at a time in a work directory, whatever happened to the one before."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from maskgil_jax.runtime import leftovers, lock_file, work_lock
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.lock_file import HeldByAnother, Holder, Lock
from maskgil_jax.workflows import run
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny
from tests.helpers.races import race


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats and silences in tenths of a second."""
    monkeypatch.setattr(work_lock, "BEAT", 0.05)
    monkeypatch.setattr(lock_file, "SILENCE", 0.5)


def leave_lock(directory, *, age=0.0, **fields):
    """A lock that another process left."""
    holder = dataclasses.replace(Holder.this_process(), token="another", **fields)
    path = directory / lock_file.NAME
    path.write_bytes(holder.to_bytes())
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_second_run_is_refused_and_told_which_is_there(tmp_path):
    with work_lock.held(tmp_path, "--workdir"):
        with pytest.raises(InputError) as error:
            run_stages(tiny.tokenizer(), epath.Path(tmp_path))
        text = str(error.value)
        assert text.startswith(f"workdir={tmp_path}: another run is going on there: process ")
        assert f"process {os.getpid()} on {os.uname().nodename}, since 20" in text
        assert "last heartbeat 0 s ago" in text
        assert [path.name for path in tmp_path.iterdir()] == [lock_file.NAME]
    assert not list(tmp_path.iterdir())


def test_two_commands_that_encode_to_one_directory_are_refused(tmp_path):
    command = [sys.executable, "-m", "maskgil_jax.tokenize", "--tokenizer=x", "--data=embedded"]
    with work_lock.held(tmp_path, "--output"):
        done = subprocess.run(
            [*command, f"--output={tmp_path}"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    assert f"error: --output={tmp_path}: another run is going on there: process" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["raises", "interrupted"])
def test_the_lock_is_released_whatever_ends_the_run(how, tmp_path):
    error = RuntimeError if how == "raises" else KeyboardInterrupt
    with pytest.raises(error), work_lock.held(tmp_path, "--workdir"):
        raise error
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


ENDED = {
    "its process is gone": dict(pid=2**22 + 1),
    "another process has its id": dict(started="1"),
    "another machine fell silent": dict(host="elsewhere", age=1.0),
    "the machine was started anew": dict(machine="another boot", age=1.0),
}


@pytest.mark.parametrize("how", ENDED)
def test_a_dead_lock_is_taken_over_with_a_message(how, quick, caplog, tmp_path):
    path = leave_lock(tmp_path, **ENDED[how])
    Lock(tmp_path).acquire()
    assert Holder.parse(path.read_bytes()).pid == os.getpid()
    assert f"{path}: taken over from process" in caplog.text and "which has ended" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [lock_file.NAME]


def test_a_lock_of_another_machine_is_watched_for_a_heartbeat(quick, tmp_path):
    path = leave_lock(tmp_path, host="elsewhere", age=-3600)  # its clock goes wrong
    ended = threading.Event()

    def beat():
        while not ended.wait(0.2):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(HeldByAnother, match="on elsewhere"):
        Lock(tmp_path).acquire()
    ended.set()
    thread.join()
    Lock(tmp_path).acquire()  # it has stopped


@pytest.mark.parametrize("content", [b"", b'{"host": "x"', b"[1]", b"\xff", b'{"pid": {}}'])
def test_a_lock_that_is_not_whole_is_waited_for_and_then_taken(content, quick, tmp_path):
    (tmp_path / lock_file.NAME).write_bytes(content)
    began = time.monotonic()
    Lock(tmp_path).acquire()
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("before", ["nothing", "a dead lock", "a dead lock and a dead claim on it"])
def test_of_runs_started_together_exactly_one_gets_the_lock(before, tmp_path):
    for attempt in range(6):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        if before != "nothing":
            path = leave_lock(directory, pid=2**22 + 1)
            if "claim" in before:
                claim = f"{lock_file.NAME}.{lock_file._digest(path.read_bytes())}.claim"
                path.with_name(claim).write_bytes(path.read_bytes().replace(b"another", b"third"))
        assert race(8, lambda directory=directory: Lock(directory).acquire()) == 1
        assert [path.name for path in directory.iterdir()] == [lock_file.NAME]


TAKE = """
import sys, time
from maskgil_jax.runtime.lock_file import Lock, HeldByAnother
sys.stdin.readline()
try:
    Lock(sys.argv[1]).acquire()
    print("got it", flush=True)
    time.sleep(60)
except HeldByAnother as error:
    print(error, flush=True)
"""


def test_of_two_processes_one_is_refused_and_a_killed_one_is_dead(tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in both]
    winner = said.index("got it\n")
    assert f"process {both[winner].pid} on" in said[1 - winner]
    both[winner].kill()  # not waited for: a zombie is dead too
    while "Z" not in open(f"/proc/{both[winner].pid}/stat").read().rpartition(")")[2]:
        time.sleep(0.01)
    Lock(tmp_path).acquire()
    for process in both:
        process.communicate()


def test_heartbeats_keep_the_lock_fresh(quick, tmp_path):
    with work_lock.held(tmp_path, "--workdir"):
        before = os.stat(tmp_path / lock_file.NAME).st_mtime_ns
        time.sleep(0.3)
        assert os.stat(tmp_path / lock_file.NAME).st_mtime_ns > before


def remove_directory(path):
    path.unlink()
    path.parent.rmdir()


def take_over(path):
    leave_lock(path.parent, pid=1, host="elsewhere")


@pytest.mark.parametrize(
    "loss, message",
    [
        (remove_directory, "it was removed, or its running.lock, while the run went on"),
        (take_over, "another run took it over while this one did not answer: process 1 on elsewh"),
    ],
)
def test_a_run_that_lost_its_lock_stops(loss, message, quick, tmp_path):
    directory = tmp_path / "run"
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as error, work_lock.held(directory, "--workdir"):
        loss(directory / lock_file.NAME)
        while True:  # even where every exception is caught
            try:
                time.sleep(60)
            except Exception:
                pass
    assert time.monotonic() - began < 10
    assert str(error.value).startswith(f"--workdir={directory}: ")
    if loss is take_over:  # the other's lock stays
        assert b"elsewhere" in (directory / lock_file.NAME).read_bytes()


def test_errors_of_a_removed_directory_are_one_message(tmp_path):
    """Before the next heartbeat too."""
    directory = tmp_path / "run"
    with pytest.raises(InputError, match="it was removed"), work_lock.held(directory, "--workdir"):
        remove_directory(directory / lock_file.NAME)
        (directory / "training.jsonl").write_text("")


def test_a_stage_of_a_removed_work_directory_ends_in_one_message(monkeypatch, tmp_path):
    def stage(config, workdir):
        shutil.rmtree(workdir)
        (workdir / "samples.npz").write_text("")

    monkeypatch.setitem(run.RUNS, "tokenizer", stage)
    with pytest.raises(InputError, match=f"^workdir={tmp_path}/run: it was removed"):
        run_stages(tiny.tokenizer(), epath.Path(tmp_path / "run"))


def test_a_full_disk_is_one_message_wherever_it_is_met(tmp_path):
    with pytest.raises(InputError, match=f"--workdir={tmp_path}: .*No space left on device; once"):
        with work_lock.held(tmp_path, "--workdir"), open("/dev/full", "w") as file:
            file.write("x")
            file.flush()
    assert not list(tmp_path.iterdir())


def test_sigterm_outside_of_training_releases_the_lock(tmp_path):
    script = (
        "import sys, time\nfrom maskgil_jax.runtime import work_lock\n"
        "with work_lock.held(sys.argv[1], '--workdir'):\n  print('in', flush=True)\n"
        "  time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        process.terminate()
    assert process.returncode == -signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"--output={tmp_path}/file cannot be written: "):
        with work_lock.held(tmp_path / "file", "--output"):
            pass


def test_what_a_killed_run_left_is_deleted_and_nothing_else(tmp_path):
    kept = ["notes.tmp", "a.12345678", "model.0123456789abcdef.tmpx", "damaged-4-12345678"]
    left = [
        "metrics.json.01234567.tmp",
        "training.jsonl.89abcdef.tmp",
        f"{lock_file.NAME}.0123456789abcdef.claim",
    ]
    for name in kept + left:
        (tmp_path / name).write_text("")
    for name in ("model.01234567.old.tmp", "model.0123456789abcdef.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "params").write_text("")
    leftovers.clear(epath.Path(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_lock_is_json(tmp_path):
    Lock(tmp_path).acquire()
    assert json.loads((tmp_path / lock_file.NAME).read_text())["pid"] == os.getpid()
