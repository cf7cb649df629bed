"""Ctrl-C and SIGTERM ask the loop to stop; it saves a checkpoint first."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Notes a signal while active; a second one acts at once.

    With several processes the answer is agreed on: all stop after the same step.
    """

    def __init__(self) -> None:
        self.signum = 0

    def __enter__(self) -> "StopRequest":
        self._previous = {
            signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            signal.signal(signum, self._previous[signal.Signals(signum)])
            signal.raise_signal(signum)
        self.signum = signum

    def agreed(self, step: int, every: int = 20) -> int:
        """The signal that any process got, or 0. Processes compare notes every `every` steps."""
        if jax.process_count() == 1:
            return self.signum
        if step % every:
            return 0
        return int(multihost_utils.process_allgather(self.signum).max())
