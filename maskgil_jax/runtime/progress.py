"""Progress of a command: a bar on a terminal, lines in a log."""

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

log = logging.getLogger("maskgil_jax")

EVERY = 30.0  # seconds between two lines of a log


class Progress:
    """A count that grows to a total; a context."""

    def __init__(self, total: int, unit: str, title: str):
        """Begin at 0.

        Args:
          total: at the end.
          unit: what is counted, one of it.
          title: what is done.
        """
        self._total, self._unit, self._title = total, unit, title
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, unit=unit, desc=title)
        self._count = self._worked = 0
        self._began: float | None = None
        self._logged_at = time.monotonic()

    def update(self, count: int, *, worked: bool = True) -> None:
        """Count more; only those that were `worked` on tell how long the rest will take."""
        self._count += count
        now = time.monotonic()
        if self._began is not None:
            self._worked += count if worked else 0
        elif worked:  # the first work is longer: it compiles
            self._began = now
        if self._bar is not None:
            self._bar.update(count)
            return
        waited = now - self._logged_at
        if self._began is None or waited < EVERY or not self._worked or self._count >= self._total:
            return
        self._logged_at = now
        seconds_left = round((now - self._began) / self._worked * (self._total - self._count))
        minutes, seconds = divmod(seconds_left, 60)
        log.info(
            "%s: %d of %d %ss, %d:%02d left",
            *(self._title, self._count, self._total, self._unit, minutes, seconds),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.close()
