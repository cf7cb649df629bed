"""What a sweep's figure says of quality against cost."""

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import decoding_sweep, frontier


def row(passes, distance, recall=0.5, **setting):
    costs = dict(passes_per_image=passes, seconds_per_image=passes / 100)
    return dict(**setting, **costs, pixel_frechet_distance=distance, pixel_recall=recall)


ROWS = [
    row(7, 3.0, 0.1, rule="maskgil", steps=4),
    row(15, 2.0, 0.3, rule="maskgil", steps=8),
    row(15, 1.5, 0.2, rule="entropy", steps=8, entropy_budget=2.0),
    row(3, 4.0, 0.4, rule="choose", steps=2),
    row(31, 1.7, 0.5, rule="maskgil", steps=16),
]
VARIED = ["rule", "steps", "entropy_budget"]


def test_none_of_the_frontier_is_beaten_at_its_cost():
    def passes(metric):
        return [r["passes_per_image"] for r in frontier.frontier(ROWS, "passes_per_image", metric)]

    assert passes("pixel_frechet_distance") == [3, 7, 15]
    assert passes("pixel_recall") == [3, 31]


def test_the_baseline_is_what_decodes_by_default():
    assert [frontier.is_baseline(r, VARIED) for r in ROWS] == [False, True, False, False, False]


def test_settings_have_one_kind_by_their_rule_and_what_else_they_do():
    kinds = [frontier.kind_of(r, VARIED) for r in ROWS]
    assert kinds == ["maskgil", "maskgil", "entropy + entropy budget", "choose", "maskgil"]


def test_the_figure_fits_on_its_sheet(tmp_path):
    floor = {"pixel_frechet_distance": 0.1}
    metrics = ["pixel_frechet_distance", "pixel_recall"]
    frontier.write(ROWS, VARIED, metrics, floor, "5 settings", tmp_path / "f.png")
    image = np.asarray(Image.open(tmp_path / "f.png").convert("L"))
    edges = np.concatenate([image[[0, -1]].ravel(), image[:, [0, -1]].ravel()])
    assert (edges == 255).all() and (image < 128).any()


def test_further_settings_follow_those_that_multiply():
    found = decoding_sweep.settings_of(["steps=4,8"], ["rule=choose;steps=2,4", "remask=0.5"])
    assert found == [
        dict(steps=4),
        dict(steps=8),
        dict(rule="choose", steps=2),
        dict(rule="choose", steps=4),
        dict(remask=0.5),
    ]
    with pytest.raises(InputError, match="also: {'steps': 4} is there twice"):
        decoding_sweep.settings_of(["steps=4,8"], ["steps=4"])
