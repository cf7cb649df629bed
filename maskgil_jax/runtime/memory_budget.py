"""A bound on the memory, or other units, that several threads hold at once."""

import contextlib
import threading
from collections.abc import Iterator


class Budget:
    """So many units, which threads take and give back; those that find too few left wait.

    What is larger than the budget is let in alone. The next to come in is whoever fits, so that a
    large one may have to wait until smaller ones are done.

    Args:
      units: as many as may be taken at once.
    """

    def __init__(self, units: int):
        self._units = self._left = units
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, units: int) -> Iterator[None]:
        """Hold some of them; within it the same thread must take no more."""
        units = min(units, self._units)
        with self._changed:
            self._changed.wait_for(lambda: units <= self._left)
            self._left -= units
        try:
            yield
        finally:
            with self._changed:
                self._left += units
                self._changed.notify_all()
