"""Handwritten digits that ship with a dependency: the source that needs no download."""

import io
from collections.abc import Iterator

import numpy as np

from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.image_records import Record
from maskgil_jax.runtime.errors import InputError


class Embedded:
    """Handwritten digits that ship with scikit-learn (UCI, 1,797 real scans of 8x8 pixels).

    `embedded` or `embedded:train` are the first 1,437; `embedded:test` are the other 360, written
    by other people (scikit-learn keeps the order of the UCI files).
    """

    def __init__(self, split: str):
        from sklearn.datasets import load_digits

        bounds = {"": (0, 1437), "train": (0, 1437), "test": (1437, 1797)}
        if split not in bounds:
            raise InputError(f"data source embedded:{split}: expected embedded:train or :test")
        self._first, last = bounds[split]
        digits = load_digits()
        # Dark ink on white paper; values are 0 .. 16.
        self._pixels = np.round(255 - digits.images * 255 / 16).astype(np.uint8)[self._first : last]
        self._labels = digits.target[self._first : last]
        self.census = Census(len(self._labels), self.class_names)
        self.census.captioned = 0

    class_names = tuple("0123456789")

    def __len__(self) -> int:
        return len(self._pixels)

    def names(self) -> Iterator[str]:
        """Ids of all records."""
        return (f"digit {self._first + index}" for index in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self._pixels[index]).save(file, "PNG")
        name = f"digit {self._first + index}"
        return Record(file.getvalue(), int(self._labels[index]), name)
