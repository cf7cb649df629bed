import numpy as np
import pytest

from maskgil_jax.generation import pictures

IMAGES = np.zeros((4, 16, 16, 3), np.uint8)
NAMES = {
    "long": "x" * 10_000,
    "of many lines": "a name\n" * 5_000,
    "of spaces": " " * 10_000,
    "empty": "",
    "from right to left": "\u05e9\u05dc\u05d5\u05dd" * 100,
    "turned around": "\u202egoldfish\u202c",
    "of emoji": "\U0001f41f" * 100,
    "half an emoji": "fish \ud83d",
    "of combining marks": "a" + "\u0301" * 1_000,
    "with a zero": "gold\0fish",
    "wide": "W" * 40,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind_are_one_short_line(name):
    line = pictures.label(NAMES[name])
    assert len(line) <= pictures.LONGEST_LABEL and line.isprintable() and "\n" not in line
    grid = pictures.labelled_rows(IMAGES, [NAMES[name], "tench"], columns=2)
    assert grid.shape[0] == 2 * 66 and grid.shape[1] < 2 * 66 + 16 + 40 * 16
    assert (grid[:, -132:] == pictures.labelled_rows(IMAGES, ["a", "b"], 2)[:, -132:]).all()


def test_an_ordinary_name_is_left_as_it_is():
    assert pictures.label("great white shark, Carcharodon") == "great white shark, Carcharodon"
    assert pictures.label("x" * 40) == "x" * 40
    assert pictures.label("x" * 41) == "x" * 37 + "..."


def test_a_long_prompt_is_written_on_the_lines_that_its_row_has():
    prompt = "a dog in a field of flowers under a blue sky " * 3  # 135 characters
    wide = pictures.labelled_rows(IMAGES, [prompt, "a"], columns=2)
    assert wide.shape[1] < 2 * 66 + 16 + 40 * 16
    written = (wide[:66, :-132] < 128).any(axis=(1, 2))  # pixel rows of the first name
    starts = np.flatnonzero(np.diff(written.astype(int)) == 1)
    assert len(starts) >= 3


def test_headings_stand_above_their_columns():
    images = np.full((4, 16, 16, 3), 255, np.uint8)
    bare = pictures.labelled_rows(images, ["a", "b"], 2)
    headed = pictures.labelled_rows(images, ["a", "b"], 2, ["prefix 16\n0.0123 s", ""])
    assert headed.shape[0] == bare.shape[0] + 46
    columns = np.flatnonzero((headed[:46] < 128).any(axis=(0, 2)))
    assert len(columns) and columns.max() < headed.shape[1] - (headed.shape[1] - 30) // 2
