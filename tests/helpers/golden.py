"""The goldens: inputs and outputs of the official modules, with weights made by a recipe."""

import json
import pathlib

import numpy as np

from tests.goldens import recipe

FOLDER = pathlib.Path(__file__).parents[1] / "goldens"


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def spec(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def weights(name: str) -> dict[str, np.ndarray]:
    """The official state dict; fails where numpy's stream is not the one of the goldens."""
    state = recipe.build(spec(name))
    found, expected = recipe.checksum(state), spec(name)["checksum"]
    assert np.isclose(found["sum"], expected["sum"]) and found["count"] == expected["count"]
    return state


def check(name: str, output: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Within the tolerance that the golden recommends."""
    atol = spec(name)["tolerance"][output]["atol_recommended"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=f"{name} {output}")
