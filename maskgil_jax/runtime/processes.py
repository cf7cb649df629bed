"""One run in several processes, one per host or GPU: they meet, agree, and end together."""

import contextlib
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from maskgil_jax.runtime.errors import InputError, Interrupted

log = logging.getLogger("maskgil_jax")

LONGEST_WAIT = 7 * 24 * 3600  # seconds; who is lost is found out by its heartbeat
_WAITS = itertools.count()  # all processes wait in the same order
LOST = 75  # exit code (EX_TEMPFAIL) where another process was lost: the same command goes on
GO_ON = "run the same command on all of them, which goes on from what is saved"
# How JAX's runtime, gRPC, Gloo and NCCL say that another process did not come or has gone.
NOT_THERE = re.compile(
    "UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED"
    "|timed? ?out|heartbeat|unhealthy|preempted"
    "|connection (closed|reset|refused)|broken pipe|socket closed|connect failed|connectFullMesh"
    "|remote process exited|network error|ncclRemoteError",
    re.IGNORECASE,
)


@contextlib.contextmanager
def joined(where: str, timeout: int) -> Iterator[None]:
    """Run the body as one of several processes; none of them is left waiting for one that is gone.

    Where another process is lost or does not come, this one ends with a message and exit code LOST.

    Args:
      where: "auto": as the cluster says (TPU pods, SLURM, Open MPI, Kubernetes; see
        jax.distributed.initialize); or "HOST:PORT,PROCESSES,INDEX", with the address of process 0.
      timeout: seconds without a sign of life after which a process counts as lost.

    Raises:
      InputError: another form of `where`, or an address that cannot be used.
    """
    arguments = _parse(where)
    _supervise()
    # It takes SIGTERM for itself; ours is in training/interrupt.py.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=timeout)
    except (ValueError, RuntimeError) as error:
        if is_lost(error):
            _leave(error, timeout)
        raise InputError(f"distributed={where}: {error}") from None
    if not first():
        log.setLevel(logging.WARNING)
    try:
        yield
        wait("end of the run")
    except Interrupted:
        raise  # all processes know
    except BaseException as error:
        _leave(error, timeout)


def _parse(where: str) -> dict[str, Any]:
    if where == "auto":
        return {}
    address, *numbers = where.split(",")
    try:
        processes, index = map(int, numbers)
    except ValueError:
        processes = index = -1
    if ":" not in address or not 0 <= index < processes:
        raise InputError(
            f"distributed={where}, expected auto, or HOST:PORT,PROCESSES,INDEX with INDEX from 0 "
            "to PROCESSES - 1"
        )
    return dict(coordinator_address=address, num_processes=processes, process_id=index)


def _supervise() -> None:
    """Go on in a child process; this one waits for it, and ends as it ends.

    JAX aborts a process of a run that lost another one, in C++, whatever Python is doing. Only a
    process beside it can turn that into an exit code and a message.
    """
    alive, lifeline = os.pipe()
    child = os.fork()
    if not child:
        os.close(lifeline)
        os.setpgid(0, 0)  # so that Ctrl-C comes once, from the parent
        threading.Thread(target=_follow_parent, args=(alive,), daemon=True).start()
        return
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, _: os.kill(child, signum))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGABRT:
        print(
            "error: another process of this run is not there, and JAX ended this one (its message "
            f"above says which); {GO_ON}",
            file=sys.stderr,
        )
        code = LOST
    os._exit(code if code >= 0 else 128 - code)


def _follow_parent(alive: int) -> None:
    os.read(alive, 1)  # returns when the parent is gone, for nothing is ever written
    os.kill(os.getpid(), signal.SIGKILL)


def is_lost(error: BaseException) -> bool:
    """Whether an error, or what it came from, is of JAX's runtime and says that a process is gone.

    An InputError is of this process, whatever it came from.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        if isinstance(cause, jax.errors.JaxRuntimeError):
            text = str(cause)
            return "RESOURCE_EXHAUSTED" not in text and bool(NOT_THERE.search(text))
        cause = cause.__cause__ or cause.__context__
    return False


def _leave(error: BaseException, timeout: int) -> NoReturn:
    code = 1
    if isinstance(error, InputError):
        print(f"error: {error}", file=sys.stderr)
    elif is_lost(error):
        reason = " ".join(f"{error}".split())[:300]
        print(
            f"error: another process of this run is not there: {reason}; {GO_ON}", file=sys.stderr
        )
        code = LOST
    else:
        traceback.print_exception(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            # This too may be the first sign that a process is lost. If so, JAX finds out in this
            # time and aborts; if not, the error is of this process.
            time.sleep(2 * timeout)
    # Python's way out would wait for the others, which wait for this one; they are given a moment
    # to report what they too have found.
    time.sleep(2)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def first() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Until every process is at the place of this name, which may take some of them hours.

    A collective of devices gives up on those that are late: on CPUs after 30 seconds.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost  # slow to import

    multihost.sync_global_processes(
        f"{name}, wait {next(_WAITS)}",
        timeout=LONGEST_WAIT,
        processes={*range(jax.process_count())},
    )


def by_first(work: Callable[[], int], what: str) -> int:
    """What `work` gives, which the first process alone does; all processes call this.

    Args:
      work: gives a number that all get to know.
      what: it is done with, as "output=DIR", for messages of the others.

    Raises:
      InputError: that of the first process; in the others one that says so.
    """
    result, refusal = 0, None
    if first():
        try:
            result = work()
        except InputError as error:
            refusal = error
    wait(what)
    if total(refusal is not None):
        raise refusal or InputError(f"{what}: process 0 cannot use it, and says why")
    return total(result)


def total(value: int) -> int:
    """Sum over the processes, all of which call this."""
    return int(_of_each(value).sum())


def largest(value: int) -> int:
    """Maximum over the processes, all of which call this."""
    return int(_of_each(value).max())


def _of_each(value: int) -> np.ndarray:
    if jax.process_count() == 1:
        return np.array([value])
    return multihost_utils.process_allgather(np.int32(value))


def whole(x: Any) -> np.ndarray:
    """The values of an array that may be spread over processes, all of which call this."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


def local(tree: Any) -> Any:
    """`tree` as it is or, if it is spread over processes, whole on a device of each of them.

    All processes call this.
    """
    leaves = jax.tree.leaves(tree)
    if all(leaf.is_fully_addressable for leaf in leaves):
        return tree
    return jax.tree.map(lambda x: jax.device_put(whole(x), jax.local_devices()[0]), tree)
