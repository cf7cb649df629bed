"""Names of many files in one text."""

import glob
import os
import re

from maskgil_jax.errors import InputError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def files(pattern: str) -> list[str]:
    """The files that a pattern names, each once, in the order of the pattern, then of names.

    Args:
      pattern: a path with `~`, `*`, `?`, `[...]`, and the `{a,b}` and `{000..099}` of shells.

    Raises:
      InputError: a part of the pattern names no file.
    """
    found: dict[str, None] = {}
    for part in _without_braces(os.path.expanduser(pattern)):
        matches = (
            [part] if os.path.isfile(part) else sorted(filter(os.path.isfile, glob.glob(part)))
        )
        if not matches:
            raise InputError(f"{pattern}: there is no file {part}")
        found |= dict.fromkeys(matches)
    return list(found)


def _without_braces(pattern: str) -> list[str]:
    braces = _BRACES.search(pattern)
    if not braces:
        return [pattern]
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [
        path for choice in _choices(braces[1]) for path in _without_braces(head + choice + tail)
    ]


def _choices(inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if not numbers:
        return inside.split(",")
    first, last = map(int, numbers.groups())
    padded = any(number.startswith("0") for number in numbers.groups())
    width = max(map(len, numbers.groups())) if padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}}" for number in range(first, last + step, step)]
