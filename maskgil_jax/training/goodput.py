"""Goodput: the share of the time since a run was first started that was spent in steps that count.

Everything else is lost: starting, compiling, saving, drawing pictures, the time between two starts,
and steps after the checkpoint from which the next start goes on, which are done again.
"""

import json
import logging
import time

from etils import epath

from maskgil_jax.runtime import processes
from maskgil_jax.runtime.files import write_json

log = logging.getLogger("maskgil_jax")

FILE = "goodput.json"  # {"started": seconds since 1970, of the first start}


class Goodput:
    """Of one run, over all its starts.

    Args:
      directory: the work directory, where the time of the first start is kept.
      useful_seconds: in the steps up to the checkpoint that this start goes on from, as the
        checkpoint says; None: it says nothing, for it was saved by a version without goodput.
    """

    def __init__(self, directory: epath.Path, useful_seconds: float | None):
        started = _read(directory / FILE)
        known = started is not None and useful_seconds is not None
        self._started = started if started and known else time.time()
        self._before = useful_seconds if useful_seconds and known else 0.0
        if not known and processes.first():
            write_json(directory / FILE, {"started": self._started})
            if useful_seconds != 0:
                log.info("goodput counts from now: nothing says what the steps before took")

    def useful_seconds(self, now: float) -> float:
        """Seconds in steps that count, where this start has `now` of them."""
        return self._before + now

    def share(self, now: float) -> float:
        """Goodput, 0 to 1, where this start has `now` useful seconds."""
        return self.useful_seconds(now) / max(time.time() - self._started, 1e-9)


def _read(file: epath.Path) -> float | None:
    """The time of the first start; None where the file is not there, or damaged."""
    try:
        return float(json.loads(file.read_text())["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
