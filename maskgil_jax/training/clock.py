"""How long steps take, how much of it is waiting for data, and how much time was spent in steps."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Time per step since the last log, and how much of it went into waiting for data."""

    def __init__(self) -> None:
        self._steps, self._examples, self._tokens, self._flops = 0, 0, 0, 0
        self._time, self._waited = time.monotonic(), 0.0
        self._useful, self._lost, self._waits = 0.0, 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in this context counts as waiting for data; for the first batch it is also lost."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self._waited += seconds
        self._lost += 0.0 if self._waits else seconds
        self._waits += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in this context does not count."""
        start = time.monotonic()
        yield
        self._time += time.monotonic() - start

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """Time in this context is in the rates, but not in `useful_seconds`."""
        start = time.monotonic()
        yield
        self._lost += time.monotonic() - start

    @property
    def useful_seconds(self) -> float:
        """Spent in steps since the start: without pauses and what was lost."""
        return self._useful + time.monotonic() - self._time - self._lost

    def count(self, examples: int, tokens: int, flops: int = 0) -> None:
        """Count a step of so many examples, of so many tokens each, and of so many FLOPs in all."""
        self._steps += 1
        self._examples += examples
        self._tokens += examples * tokens
        self._flops += flops

    def rates(self) -> dict[str, float]:
        """Rates over the steps since the last call."""
        now = time.monotonic()
        seconds = now - self._time
        values = {
            "step_seconds": seconds / self._steps,
            "data_wait_seconds": self._waited / self._steps,
            "examples_per_second": self._examples / seconds,
            "tokens_per_second": self._tokens / seconds,
            "flops_per_second": self._flops / seconds,
        }
        self._steps, self._examples, self._tokens, self._flops = 0, 0, 0, 0
        self._useful += seconds - self._lost
        self._time, self._waited, self._lost = now, 0.0, 0.0
        return values
