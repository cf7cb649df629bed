"""Patterns of paths, such as `shard-{000..099}.tar`, spelled out to the files they name."""

import glob
import os
import re
from collections.abc import Iterable, Iterator

from maskgil_jax.runtime.errors import InputError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")
MOST_NAMES = 1_000_000  # that a pattern spells out; each is looked for
MOST_BRACES = 20


def files(pattern: str) -> list[str]:
    """The files that a pattern names, each once, in the order of the pattern, then of names.

    Args:
      pattern: a path with `~`, `*`, `?`, `[...]`, and the `{a,b}` and `{000..099}` of shells.

    Raises:
      InputError: a part of the pattern names no file, or it spells out more than MOST_NAMES.
    """
    if pattern.count("{") > MOST_BRACES:
        raise InputError(f"{pattern}: more than {MOST_BRACES} braces")
    paths: dict[str, None] = {}
    # One after the other: the first that is missing ends it, however many would follow.
    for number, path in enumerate(_without_braces(os.path.expanduser(pattern))):
        if number == MOST_NAMES:
            raise InputError(f"{pattern} stands for more than {MOST_NAMES:,} names")
        matches = (
            [path] if os.path.isfile(path) else sorted(filter(os.path.isfile, glob.glob(path)))
        )
        if not matches:
            raise InputError(f"{pattern}: there is no file {path}")
        paths |= dict.fromkeys(matches)
    return list(paths)


def _without_braces(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if not braces:
        yield pattern
        return
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    for choice in _choices(braces[1]):
        yield from _without_braces(head + choice + tail)


def _choices(inside: str) -> Iterable[str]:
    numbers = _RANGE.fullmatch(inside)
    if not numbers:
        return inside.split(",")
    first, last = map(int, numbers.groups())
    padded = any(number.startswith("0") and len(number) > 1 for number in numbers.groups())
    width = max(map(len, numbers.groups())) if padded else 0
    step = 1 if first <= last else -1
    return (f"{number:0{width}}" for number in range(first, last + step, step))
