"""A file that one process at a time holds: who holds it, and whether that one is alive.

The file says which process holds it: host, process id, start times, and when it last was alive. A
holder on this machine is looked up; one on another is dead where its heartbeat stays away.

Where the file system creates files exclusively, as local ones and NFS do, two runs never both get
the lock. Cloud storage has no such operation: a run writes its lock, waits SETTLED seconds, and
looks whether it is still its own. Two runs both get it there only where a write takes longer than
that, and the one whose lock was overwritten finds out at its next heartbeat and stops.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import random
import socket
import time
import uuid
from datetime import UTC, datetime

from etils import epath

from maskgil_jax.runtime import paths

log = logging.getLogger("maskgil_jax")

NAME = "running.lock"

SILENCE = 60.0  # seconds without one after which the holder counts as dead

SETTLED = 2.0  # seconds after which cloud storage shows who wrote last


class HeldByAnother(Exception):
    """Another run holds the lock; the message says which."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """What a lock says of the process that holds it.

    Attributes:
      host: its name.
      machine: of the boot and of the process ids that it sees, or "" where the system has no name
        for them. Two that agree in this and in `host` can look at each other's processes.
      pid: process id.
      started: when the process was started, in the machine's own count, or "".
      since: when it took the lock, in UTC.
      token: of this lock alone.
      beat: last heartbeat, seconds since 1970; of a file it is its time of modification.
    """

    host: str
    machine: str
    pid: int
    started: str
    since: str
    token: str
    beat: float

    @classmethod
    def this_process(cls) -> "Holder":
        """A new lock of this process."""
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        host, token = socket.gethostname(), uuid.uuid4().hex
        return cls(host, _machine(), os.getpid(), _started("self"), now, token, time.time())

    @classmethod
    def parse(cls, content: bytes) -> "Holder | None":
        """From a lock's content; None where that is incomplete."""
        try:
            holder = cls(**json.loads(content))
            return dataclasses.replace(holder, pid=int(holder.pid), beat=float(holder.beat))
        except (ValueError, TypeError):
            return None

    def to_bytes(self) -> bytes:
        """The lock's content."""
        return json.dumps(dataclasses.asdict(self)).encode()

    def alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be seen from here."""
        here = Holder.this_process()
        if (self.host, self.machine) != (here.host, here.machine):
            return None
        started = _started(str(self.pid))
        if started or self.started:
            return bool(started) and started == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # it is another user's
        return True


class Lock:
    """The lock file of a directory."""

    def __init__(self, directory: epath.PathLike):
        self.path = epath.Path(directory) / NAME
        self._remote = paths.is_remote(directory)
        self._mine: Holder | None = None
        self._reason = ""

    def acquire(self) -> None:
        """Take the lock, also from a holder that is dead.

        Raises:
          HeldByAnother: the holder is alive.
          OSError: the directory cannot be written.
        """
        mine = Holder.this_process()
        while not self._create(mine):
            dead = self._dead_holder()
            if dead is not None and self._replace(dead, mine):
                who = _described(Holder.parse(dead))
                log.warning("%s: taken over from %s, which has ended", self.path, who)
                break
            time.sleep(random.uniform(0.05, 0.2))
        self._mine = mine

    def lost(self) -> str:
        """Why the lock is no longer ours, or ""."""
        for pause in (0.3, 0.3, 0.0):  # a file may be gone for an instant on some file systems
            if self._reason or not (reason := self._fault()):
                break
            time.sleep(pause)
        else:
            self._reason = reason
        return self._reason

    def _fault(self) -> str:
        try:
            holder = Holder.parse(self.path.read_bytes())
        except FileNotFoundError:
            return "it was removed, or its running.lock, while the run went on"
        except OSError:
            return ""  # not to be seen now; the next heartbeat looks again
        if holder is not None and self._mine is not None and holder.token == self._mine.token:
            return ""
        return f"another run took it over while this one did not answer: {_described(holder)}"

    def beat(self) -> None:
        """Say that the holder is alive."""
        assert self._mine is not None
        if self._remote:
            now = dataclasses.replace(self._mine, beat=time.time())
            self.path.write_bytes(now.to_bytes())
        else:
            os.utime(self.path)

    def release(self) -> None:
        """Give the lock up if it is ours."""
        with contextlib.suppress(OSError):
            if self._mine is not None and not self.lost():
                self.path.unlink()
        self._mine = None

    def _create(self, mine: Holder) -> bool:
        """Write a lock where there is none, and say whether it is ours."""
        if not self._remote:
            return _create_exclusively(self.path, mine.to_bytes())
        # Reading asks the object store; whether a file exists may be answered from memory.
        try:
            self.path.read_bytes()
        except FileNotFoundError:
            return self._write_and_look(mine)
        return False

    def _write_and_look(self, mine: Holder) -> bool:
        self.path.write_bytes(mine.to_bytes())
        time.sleep(SETTLED)
        return self.path.read_bytes() == mine.to_bytes()

    def _replace(self, dead: bytes, mine: Holder) -> bool:
        """Take the lock from a dead holder; False where another process was faster.

        Only one process can create the claim on a holder's lock. A claim whose maker died too is
        claimed in turn.
        """
        if self._remote:
            return self.path.read_bytes() == dead and self._write_and_look(mine)
        content, claims = dead, []
        try:
            while True:
                claim = self.path.with_name(f"{NAME}.{_digest(content)}.claim")
                claims.append(claim)
                if _create_exclusively(claim, mine.to_bytes()):
                    break
                content = claim.read_bytes()
                claimant = Holder.parse(content)
                alive = claimant.alive() if claimant else None
                if alive or (alive is None and self._age(os.stat(claim).st_mtime) <= SILENCE):
                    return False
            if self.path.read_bytes() != dead:  # it was replaced before our claim
                claims[-1].unlink()
                return False
        except FileNotFoundError:  # claims and locks vanish when another process is done
            return False
        claims[-1].replace(self.path)
        for claim in claims[:-1]:
            claim.unlink(missing_ok=True)
        return True

    def _dead_holder(self) -> bytes | None:
        """The content of a lock whose holder is dead; None where it has gone since.

        A holder on another machine is watched for a heartbeat.

        Raises:
          HeldByAnother: the holder is alive.
        """
        began, first = time.monotonic(), None
        while True:
            try:
                content = self.path.read_bytes()
                holder = Holder.parse(content)
                beat = holder.beat if self._remote and holder else os.stat(self.path).st_mtime
            except FileNotFoundError:
                return None
            alive = holder.alive() if holder else None
            if alive or (first is not None and beat != first):
                raise HeldByAnother(_refusal(holder, beat))
            silent = time.monotonic() - began
            if alive is False or silent > SILENCE:
                return content
            if not self._remote and self._age(beat) > SILENCE:
                return content
            if holder and first is None:  # what is incomplete is about to be written
                first = beat
                who = _described(holder)
                log.warning(
                    "%s is held by %s; waiting up to %g s for its heartbeat",
                    *(self.path, who, SILENCE),
                )
            time.sleep(0.1 if silent < 2 else 1)

    def _age(self, beat: float) -> float:
        """Seconds since a heartbeat, by the clock of the file system."""
        probe = self.path.with_name(f"{NAME}.{uuid.uuid4().hex[:8]}.tmp")
        probe.write_bytes(b"")
        try:
            return os.stat(probe).st_mtime - beat
        except FileNotFoundError:  # the holder, which is alive, has cleared it away
            return 0.0
        finally:
            probe.unlink(missing_ok=True)


def _create_exclusively(path: epath.Path, content: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return True


def _refusal(holder: Holder | None, beat: float) -> str:
    ago = max(0.0, time.time() - beat)
    return (
        f"another run is going on there: {_described(holder)}, last heartbeat {ago:.0f} s ago. "
        "Wait for it, stop it, or choose another directory"
    )


def _described(holder: Holder | None) -> str:
    if holder is None:
        return "a process that it does not name"
    return f"process {holder.pid} on {holder.host}, since {holder.since}"


def _machine() -> str:
    """Identity of the boot and of the process ids seen here; "" without /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: str) -> str:
    """When a process was started, in clock ticks since the boot; "" where it does not run."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
