"""Rows of an array in batches of one size, of which one program is compiled."""

from collections.abc import Iterator

import numpy as np


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` of 0 .. total - 1, evenly spread, int64."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def even_batch(size: int, total: int, multiple: int) -> int:
    """A batch size that divides rows evenly, so that few are added to fill up the last batch.

    Args:
      size: wanted; the result needs no more batches than this.
      total: rows.
      multiple: of which the result is one (devices).
    """
    return -(-total // (-(-total // size) * multiple)) * multiple


def fixed_batches(array: np.ndarray, size: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(start, count, rows start .. start + count filled up with row 0 to `size`)."""
    for start in range(0, len(array), size):
        batch = array[start : start + size]
        fill = np.repeat(array[:1], size - len(batch), axis=0)
        yield start, len(batch), np.concatenate([batch, fill])
