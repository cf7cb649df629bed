"""Classes by their names, as users write them, and what is said of names that are none."""

import numpy as np
import pytest

from maskgil_jax.pretrained import class_names
from maskgil_jax.runtime.errors import InputError

NAMES = ("tench, Tinca tinca", "goldfish", "crane", "Tabby cat", "crane, bird", "007", "2-3")


@pytest.mark.parametrize(
    "given, expected",
    [
        (["tench", 3, "goldfish"], [0, 3, 1]),
        ("Tinca tinca", [0]),
        (["TABBY CAT", "1"], [3, 1]),
        ([np.int64(2), 0], [2, 0]),
        (["all"], [0, 1, 2, 3, 4, 5, 6]),
        (["0-2", "5-5"], [0, 1, 2, 5]),
        (["007", "7", "03"], [5, 7, 3]),  # a name, and ids; what ids there are is asked later
        ("2-3", [6]),  # a name comes before a range
        ("crane", [2]),  # exactly that name, though "crane, bird" has it too
        (6, [6]),
    ],
)
def test_names_ids_and_ranges(given, expected):
    assert class_names.ids_of(given, NAMES, len(NAMES)) == expected


@pytest.mark.parametrize(
    "given, message",
    [
        ("tensh", "class 'tensh' is none of the 7 names of classes; the nearest are 'tench, Tinca"),
        ("xyzzyq", "the first are tench, Tinca tinca, goldfish"),
        ("CRANE", "'CRANE' is the name of several: 2 .crane., 4 .crane, bird.; expected one of"),
        ("3-9", "classes 3-9, expected ids from 0 to 6"),
        ([1.5], "class 1.5, expected a class id or a name"),
        ([True], "class True, expected"),
    ],
)
def test_what_is_no_class_is_said_with_the_nearest(given, message):
    with pytest.raises(InputError, match=message):
        class_names.ids_of(given, NAMES, len(NAMES))


def test_a_model_without_names_says_so():
    with pytest.raises(InputError, match="knows no names of classes, expected ids from 0 to 9"):
        class_names.ids_of("tench", (), 10)
