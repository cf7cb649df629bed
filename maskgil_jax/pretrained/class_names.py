"""Classes as a user names them: by an id, by a name, a range of ids, or all of them."""

import collections
import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskgil_jax.runtime.errors import InputError

ALL = "all"
_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
NEAREST = 3  # names that a message offers


def ids_of(given: Any, names: Sequence[str], count: int) -> list[int]:
    """Class ids of classes as a user writes them.

    A whole number is an id, in digits too. Another text is a name, also in other capitals, or one
    of the parts of a name that commas separate, as ImageNet's "tench, Tinca tinca"; where no class
    has that name, "all" or a range of ids such as "0-99", both ends included.

    Args:
      given: of these, one or several.
      names: of the classes; empty: not known.
      count: of classes; ids are not compared with it.

    Raises:
      InputError: a name that no class has, or several have; something else than these.
    """
    several = [given] if isinstance(given, str | int | np.integer) else list(given)
    table = _table(names)
    return [id for one in several for id in _ids(one, names, table, count)]


def _ids(one: Any, names: Sequence[str], table: dict[str, list[int]], count: int) -> Sequence[int]:
    if isinstance(one, int | np.integer) and not isinstance(one, bool):
        return [int(one)]
    if not isinstance(one, str):
        raise InputError(f"class {one!r}, expected a class id or a name")
    text = one.strip()
    if text.isdecimal() and text == str(int(text)):  # "007" may be a name
        return [int(text)]
    exact = [place for place, name in enumerate(names) if name == text]
    found = exact or table.get(text.casefold(), [])
    if len(found) == 1:
        return found
    if found:
        which = ", ".join(f"{place} ({names[place]})" for place in found)
        raise InputError(f"class {text!r} is the name of several: {which}; expected one of the ids")
    if text == ALL:
        return range(count)
    if match := _RANGE.fullmatch(text):
        first, last = map(int, match.groups())
        if not first <= last < count:
            raise InputError(f"classes {text}, expected ids from 0 to {count - 1}")
        return range(first, last + 1)
    if text.isdecimal():
        return [int(text)]
    raise InputError(_unknown(text, names, table, count))


def _table(names: Sequence[str]) -> dict[str, list[int]]:
    """Classes by their names without capitals, and by the parts of these."""
    table = collections.defaultdict(list)
    for place, name in enumerate(names):
        whole = name.strip().casefold()
        for part in {whole, *(part.strip() for part in whole.split(","))} - {""}:
            table[part].append(place)
    return table


def _unknown(text: str, names: Sequence[str], table: dict[str, list[int]], count: int) -> str:
    if not names:
        return (
            f"class {text!r}: the model knows no names of classes, expected ids from 0 to "
            f"{count - 1}, {ALL!r}, or a range such as 0-9"
        )
    near = difflib.get_close_matches(text.casefold(), table, NEAREST, cutoff=0.4)
    places = dict.fromkeys(place for part in near for place in table[part])
    nearest = " or ".join(repr(names[place]) for place in list(places)[:NEAREST])
    hint = (
        f"the nearest are {nearest}" if nearest else f"the first are {', '.join(names[:NEAREST])}"
    )
    return f"class {text!r} is none of the {count} names of classes; {hint}"
