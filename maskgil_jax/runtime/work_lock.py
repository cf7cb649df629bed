"""One run at a time in a work directory: a lock with a heartbeat, in DIRECTORY/running.lock.

What the file says, and when its holder counts as dead, stands in lock_file.py.
"""

import contextlib
import errno
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from etils import epath

from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.lock_file import HeldByAnother, Lock

log = logging.getLogger("maskgil_jax")

BEAT = 10.0  # seconds between two heartbeats
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Busy(InputError):
    """Another run that is alive holds the lock."""


@contextlib.contextmanager
def held(directory: epath.PathLike, name: str) -> Iterator[None]:
    """Run the body as the only run in a directory, which is made if needed.

    With several processes of one run all call this, and the first one holds the lock. Where it is
    lost on the way, because the directory was removed or another run took over after a long pause,
    the body is ended; so it is by a full disk, with one message. SIGTERM releases the lock and then
    does what it did before.

    Args:
      directory: that the run writes to.
      name: of the option that gave it, for messages.

    Raises:
      Busy: another run is alive there.
      InputError: the directory cannot be written; the lock was lost; the disk is full.
    """
    lock, refusal, kind = Lock(directory), "", InputError
    if processes.first():
        try:
            epath.Path(directory).mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except HeldByAnother as error:
            refusal, kind = f"{name}={directory}: {error}", Busy
        except OSError as error:
            refusal = f"{name}={directory} cannot be written: {error}"
    if faults := processes.total(2 if kind is Busy else bool(refusal)):
        kind = Busy if faults == 2 else InputError
        raise kind(refusal or f"{name}={directory}: process 0 cannot use it, and says why")
    if not processes.first():
        yield
        return
    with _beating(lock, f"{name}={directory}"):
        yield


class Lost(BaseException):
    """The lock is no longer ours; not an Exception, so that nothing on the way takes it for one."""


@contextlib.contextmanager
def _beating(lock: Lock, where: str) -> Iterator[None]:
    """Keep the lock alive during the body, which ends by an InputError where it is lost."""
    ended, main, pid = threading.Event(), threading.main_thread(), os.getpid()

    def beat() -> None:
        while not ended.wait(BEAT):
            if lock.lost():
                signal.pthread_kill(main.ident or 0, signal.SIGUSR1)
                continue
            try:
                lock.beat()
            except OSError as error:
                log.warning("%s: no heartbeat: %s", lock.path, error)

    def stop() -> None:
        ended.set()
        thread.join()
        lock.release()

    def on_lost(signum: int, frame: FrameType | None) -> None:
        if not ended.is_set():
            raise Lost

    def on_terminate(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == pid:  # a child that was forked has this handler too
            stop()
        signal.signal(signum, previous[signal.Signals(signum)])
        signal.raise_signal(signum)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    handlers: dict[signal.Signals, Any] = {signal.SIGUSR1: on_lost}
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        handlers[signal.SIGTERM] = on_terminate
    previous = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    thread.start()
    try:
        yield
        if reason := lock.lost():
            raise InputError(f"{where}: {reason}")
    except (Exception, Lost) as error:
        if reason := lock.lost():
            raise InputError(f"{where}: {reason}; the run has stopped") from error
        if isinstance(error, OSError) and error.errno in FULL:
            raise InputError(
                f"{where}: {error}; once there is room, the same command goes on"
            ) from error
        raise
    finally:
        stop()
        for signum, handler in previous.items():
            signal.signal(signum, handler)
