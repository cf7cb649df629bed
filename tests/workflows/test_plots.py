"""Figures of sweeps: nothing is cut off, whatever is varied."""

import itertools

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.workflows import plots

METRICS = ("pixel_frechet_distance", "pixel_precision", "pixel_recall")


def rows(varied):
    rng = np.random.default_rng(0)
    for values in itertools.product(*varied.values()):
        measured = {"seconds_per_image": rng.uniform(0.01, 0.1)}
        yield {
            **dict(zip(varied, values, strict=True)),
            **measured,
            **{name: rng.uniform() for name in METRICS},
        }


@pytest.mark.parametrize(
    "varied, numbers",
    [
        ({"choice_temperature": [0.5, 1, 2, 4, 8], "temperature": [0.5, 1]}, 2),
        ({"temperature_schedule": ["constant", "titok", "halton"], "steps": [4, 8]}, 1),
        ({"temperature_schedule": ["constant", "titok"], "schedule": ["arccos", "cosine"]}, 0),
    ],
)
def test_each_figure_fits_on_its_sheet(varied, numbers, tmp_path):
    title = "600 samples against 3,000 of folder:photographs/of/many/things, protocol adm"
    floor = {"pixel_frechet_distance": 0.1}
    plots.of_sweep(list(rows(varied)), list(varied), METRICS, floor, title, tmp_path)
    images = {path.name: np.asarray(Image.open(path).convert("L")) for path in tmp_path.iterdir()}
    assert images.keys() >= {"quality_time.png", "precision_recall.png"}
    assert len(images) == 2 + numbers
    for name, image in images.items():
        assert (image < 128).any(), name
        edges = np.concatenate([image[[0, -1]].ravel(), image[:, [0, -1]].ravel()])
        assert (edges == 255).all(), f"{name} is cut off"
