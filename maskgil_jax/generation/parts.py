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

# (rows, and the index among all of the first, or of each) -> a row of results for each.
Work = Callable[[Any, int | np.ndarray], Any]


def in_parts(whole: Work, devices: int = 1) -> Work:
    """The same work, in as few parts of equal size as the memory allows.

    The log says once for each size of a batch what it is split into, and why.

    Args:
      whole: does a batch at once, and raises TooLarge where that needs too much memory; its rows
        do not depend on the batch that they are in.
      devices: that a batch is split over, of which it is a multiple.

    Returns:
      It raises TooLarge where not even a row for each device fits.
    """
    sizes: dict[int, int] = {}  # rows of a device in the parts of a batch, by those of the batch

    def work(rows: Any, start: int | np.ndarray) -> Any:
        wanted = -(-len(rows) // devices)

        def attempt(each: int) -> Any:
            size = each * devices
            if size >= len(rows):
                return whole(rows, start)
            indices = np.asarray(start if np.ndim(start) else start + np.arange(len(rows)))
            batches, of_each = fixed_batches(np.asarray(rows), size), fixed_batches(indices, size)
            parts = zip(batches, of_each, strict=True)
            results = [whole(part, at)[:count] for (_, count, part), (_, _, at) in parts]
            on_device = isinstance(results[0], jax.Array)
            return (jnp if on_device else np).concatenate(results)

        before = sizes.get(wanted, wanted)
        size, results, refusals = device_memory.largest_batch(attempt, before)
        sizes[wanted] = size
        if refusals:
            log.info("%s, so that there are %d at once", refusals[0].reason, size * devices)
        return results

    return work
