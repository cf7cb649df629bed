"""Orders of the cells of a grid."""

from collections.abc import Callable

import numpy as np

POINTS = 10_000  # of the sequence: enough for every cell of grids up to 32 x 32 and beyond


def raster(height: int, width: int) -> np.ndarray:
    """Row by row: int [h * w]."""
    return np.arange(height * width)


def halton(height: int, width: int) -> np.ndarray:
    """Cells as the Halton sequence first meets them, raster indices int [h * w].

    Rows follow base 2, columns base 3; cells that it never meets come last.

    Source: valeoai/Halton-MaskGIT, Sampler/halton_sampler.py, `build_halton_mask`.
    """
    index = np.arange(1, POINTS + 1)
    rows = np.floor(_van_der_corput(index, 2) * height).astype(int)
    columns = np.floor(_van_der_corput(index, 3) * width).astype(int)
    cells = np.concatenate([rows * width + columns, np.arange(height * width)])
    _, first = np.unique(cells, return_index=True)
    return cells[np.sort(first)]


def _van_der_corput(index: np.ndarray, base: int) -> np.ndarray:
    """Digits of the index mirrored at the point, float64 in (0, 1)."""
    value, scale = np.zeros(len(index)), 1.0
    while index.any():
        index, digit = np.divmod(index, base)
        scale /= base
        value += digit * scale
    return value


def lines(height: int, width: int) -> np.ndarray:
    """Row by row, with -1, which is no cell, at the end of each: int [h * (w + 1)]."""
    rows = raster(height, width).reshape(height, width)
    return np.pad(rows, ((0, 0), (0, 1)), constant_values=-1).reshape(-1)


ORDERS: dict[str, Callable[[int, int], np.ndarray]] = {
    "raster": raster,
    "halton": halton,
    "lines": lines,
}
