"""What a process says, and how it ends, where another process of its run is not there."""

import jax
import pytest

from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError

NOT_THERE = [
    # Gloo on CPU: a process that came more than 30 s after the others.
    "UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED: GetKeyValue() timed out "
    "with key: cpu:gloo/0,2048/1 and duration: 29.999999912s",
    "INTERNAL: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection "
    "closed by peer [127.0.0.1]:24311",
    "UNKNOWN: Gloo all-gather failed: [external/gloo/gloo/transport/tcp/unbound_buffer.cc:81] "
    "Timed out waiting 30000ms for recv operation to complete",
    "UNKNOWN: Gloo context initialization failed: Connect timeout [127.0.1.1]:9321",
    "INTERNAL: Read error [127.0.0.1]:4123: Connection reset by peer",
    # The coordination service.
    "UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
    "Failed to connect to remote host: Connection refused",
    "DEADLINE_EXCEEDED: Barrier timed out. Id: start. This usually happens because a task "
    "triggered the barrier too early or too slowly.",
    "INTERNAL: The following tasks are unhealthy (stopped sending heartbeats): /job:jax_worker",
    "ABORTED: Another task connected with a new incarnation.",
    # NCCL.
    "INTERNAL: NCCL operation ncclAllReduce failed: remote process exited or there was a network "
    "error. For more details please run with NCCL_DEBUG=INFO",
]
OURS = [
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes. The operation timed out.",
    "INVALID_ARGUMENT: Executable expected parameter 0 of size 4 but got buffer of size 8",
    "UNKNOWN: Failed to start RPC server",
    "INTERNAL: ptxas exited with non-zero error code 255",
]


@pytest.fixture
def ended(monkeypatch):
    """The code with which a process left at once; it waits for nobody."""
    codes = []

    def leave(code):
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(processes.os, "_exit", leave)
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(processes, "_supervise", lambda: None)
    monkeypatch.setattr(processes, "wait", lambda name: None)
    return codes


def run(monkeypatch, *, at_start=None, in_body=None):
    def initialize(**options):
        if at_start is not None:
            raise at_start

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with processes.joined("127.0.0.1:1,2,0", 1):
        if in_body is not None:
            raise in_body


@pytest.mark.parametrize("message", NOT_THERE)
@pytest.mark.parametrize("when", ["at_start", "in_body"])
def test_another_process_that_is_not_there_ends_this_one_to_be_started_again(
    when, message, ended, monkeypatch, capsys
):
    with pytest.raises(SystemExit):
        run(monkeypatch, **{when: jax.errors.JaxRuntimeError(message)})
    assert ended == [75]
    error = capsys.readouterr().err
    assert error.startswith("error: another process of this run is not there: ")
    assert message[:40] in error and "run the same command on all of them" in error
    assert "Traceback" not in error


def caused_by_a_lost_process(error):
    """The error as it is when it was raised because another process was lost."""
    error.__cause__ = jax.errors.JaxRuntimeError(NOT_THERE[0])
    return error


def test_so_does_an_error_that_came_from_one(ended, monkeypatch):
    with pytest.raises(SystemExit):
        run(monkeypatch, in_body=caused_by_a_lost_process(ValueError("cannot save")))
    assert ended == [75]


@pytest.mark.parametrize("message", OURS)
def test_other_errors_of_the_runtime_are_of_this_process(message, ended, monkeypatch):
    error = jax.errors.JaxRuntimeError(message)
    with pytest.raises(SystemExit):
        run(monkeypatch, in_body=error)
    assert ended == [1]
    with pytest.raises(InputError, match="distributed=127.0.0.1:1,2,0: "):
        run(monkeypatch, at_start=error)


def test_input_that_does_not_fit_is_of_this_process_too(ended, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, in_body=caused_by_a_lost_process(InputError("no such file")))
    assert ended == [1] and capsys.readouterr().err == "error: no such file\n"
