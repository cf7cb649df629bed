"""Ctrl-C and SIGTERM ask the loop to stop; it saves a checkpoint first."""

import signal
import time
from types import FrameType

import jax

from maskgil_jax.runtime import processes


class StopRequest:
    """Notes a signal while active; a second one acts at once.

    With several processes the answer is agreed on: all stop after the same step.

    Attributes:
      signum: the signal that this process got, or 0.
      every: steps between two calls of `agreed`, which costs an exchange between processes.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.every = 1 if jax.process_count() == 1 else 10

    def __enter__(self) -> "StopRequest":
        self._previous = {
            signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.signum:
            self.signum, self._noted = signum, time.monotonic()
        elif time.monotonic() - self._noted > 1:  # clusters may signal each process and its parent
            signal.signal(signum, self._previous[signal.Signals(signum)])
            signal.raise_signal(signum)

    def agreed(self) -> int:
        """The signal that one of the processes got, or 0; all processes call this."""
        return processes.largest(self.signum)
