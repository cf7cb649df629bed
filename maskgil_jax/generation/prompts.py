"""Files of prompts, one a line."""

import logging
from collections.abc import Sequence

from etils import epath

from maskgil_jax.data.records import captions
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")


def read_prompts(path: str) -> list[str]:
    """The lines of a file of prompts, without the blank ones.

    Messages name lines by their numbers in the file, and where blank lines lie between prompts,
    the log says on which lines these are.

    Raises:
      InputError: no such file, not UTF-8, no prompt in it, or one that is too long.
    """
    try:
        lines = captions.lines(captions.decode(epath.Path(path).read_bytes()))
    except (OSError, Unreadable) as error:
        raise InputError(f"prompts={path}: {error}") from None
    prompts: list[str] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, 1):
        if captions.is_blank(line):
            continue
        try:
            prompts += captions.checked([line])
        except Unreadable as error:
            raise InputError(f"prompts={path}: line {number}: {error}") from None
        numbers.append(number)
    if not prompts:
        raise InputError(f"prompts={path}: no line of it is a prompt")
    if numbers[-1] > len(numbers):
        log.info("%s: %d prompts, on lines %s", path, len(prompts), _ranges(numbers))
    return prompts


def _ranges(numbers: Sequence[int], most: int = 20) -> str:
    """Ascending numbers such as 1-3, 7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [f"{first}-{last}" if last > first else f"{first}" for first, last in ranges[:most]]
    return ", ".join(texts) + (", ..." if len(ranges) > most else "")
