"""How long steps take, and how much of it is waiting for data."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Time per step since the last log, and how much of it went into waiting for data."""

    def __init__(self) -> None:
        self._steps, self._examples, self._tokens = 0, 0, 0
        self._time, self._waited = time.monotonic(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in this context counts as waiting for data."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in this context does not count."""
        start = time.monotonic()
        yield
        self._time += time.monotonic() - start

    def count(self, examples: int, tokens: int) -> None:
        """Count a step of so many examples, of so many tokens each."""
        self._steps += 1
        self._examples += examples
        self._tokens += examples * tokens

    def rates(self) -> dict[str, float]:
        """Rates over the steps since the last call."""
        now = time.monotonic()
        seconds = now - self._time
        values = {
            "step_seconds": seconds / self._steps,
            "data_wait_seconds": self._waited / self._steps,
            "examples_per_second": self._examples / seconds,
            "tokens_per_second": self._tokens / seconds,
        }
        self._steps, self._examples, self._tokens = 0, 0, 0
        self._time, self._waited = now, 0.0
        return values
