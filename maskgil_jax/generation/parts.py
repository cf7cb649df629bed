"""Work on a batch, in parts where the memory of a device does not allow it whole."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.runtime import device_memory
from maskgil_jax.runtime.batches import fixed_batches

log = logging.getLogger("maskgil_jax")

# (rows, and the index of the first among all) -> a row of results for each.
Work = Callable[[Any, int], Any]


def in_parts(whole: Work, devices: int = 1) -> Work:
    """The same work, in as few parts of equal size as the memory allows.

    The log says once for each size of a batch what it is split into, and why.

    Args:
      whole: does a batch at once, and raises TooLarge where that needs too much memory; its rows
        do not depend on the batch that they are in.
      devices: that a batch is split over.

    Returns:
      It raises TooLarge where not even a row for each device fits.
    """
    sizes: dict[int, int] = {}  # of the parts of a batch

    def work(rows: Any, start: int) -> Any:
        wanted = len(rows)

        def attempt(size: int) -> Any:
            if size == wanted:
                return whole(rows, start)
            parts = fixed_batches(np.asarray(rows), size)
            results = [whole(part, start + at)[:count] for at, count, part in parts]
            on_device = isinstance(results[0], jax.Array)
            return (jnp if on_device else np).concatenate(results)

        before = sizes.get(wanted, wanted)
        size, results, refusals = device_memory.largest_batch(attempt, before, devices)
        sizes[wanted] = size
        if refusals:
            log.info("%s, so that there are %d at once", refusals[0].reason, size)
        return results

    return work
