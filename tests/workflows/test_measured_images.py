"""What is measured of one way to draw."""

from types import SimpleNamespace

import numpy as np
import pytest

from maskgil_jax.generation.passes import PassCount
from maskgil_jax.workflows import measured_images


class Images:
    """Draws batches of 2; the last image of the first batch needs 8 passes, all others 4."""

    about: dict = {}

    def __init__(self, batches):
        self.passes, self._batches = PassCount(), batches

    def draw(self):
        for number in range(self._batches):
            self.batch(number)

    def batch(self, number):
        self.passes(np.array([4, 8 if number == 0 else 4]))
        self.passes.drawn(2)

    def timed(self, count):
        for _ in range(4):
            self.batch(0)
        return 0.5, np.zeros((count, 8, 8, 3), np.uint8)


class Evaluator:
    def features_of(self, images, name):
        images.draw()

    def result(self, features, reference):
        numbers = dict(metrics={"a": 1.0}, real_to_real={})
        return dict(samples={}, reference={}, protocol={}, warnings=[], **numbers)

    def description(self):
        return {}


@pytest.mark.parametrize("batches, passes", [(4, 5.0), (0, 8.0)])
def test_the_passes_are_those_of_the_images_and_not_of_the_timing(batches, passes, tmp_path):
    """Of the timed batch where all features had been there before a stop."""
    reference = SimpleNamespace(about={})
    images = Images(batches)
    found = measured_images.measured("way", tmp_path, images, 1, Evaluator(), reference)
    assert found["passes"]["passes_per_image"] == passes
