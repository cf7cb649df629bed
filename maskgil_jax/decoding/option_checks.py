"""Numbers that a user chose, before anything is computed with them in float32."""

import dataclasses
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np


def check_types(options: Any) -> None:
    """Check that each field of a dataclass of options has the type of its default.

    Raises:
      ValueError: it has not, or is a number that float32 does not hold; names the field.
    """
    kinds: dict[type, tuple[Any, str]] = {
        int: (numbers.Integral, "a whole number"),
        float: (numbers.Real, "a number"),
        bool: (bool | np.bool_, "true or false"),
        str: (str, "a text"),
    }
    for field in dataclasses.fields(options):
        value, kind = getattr(options, field.name), type(field.default)
        taken, name = kinds[kind]
        if not isinstance(value, taken) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{field.name} = {value!r}, expected {name}")
        if kind in (int, float):
            check_float32(field.name, [value])


def check_float32(name: str, values: Iterable[Any]) -> None:
    """Raise ValueError unless these numbers are finite in float32."""
    for value in values:
        try:
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.float32(value))
        except OverflowError:  # whole numbers of any length
            finite = False
        if not finite:
            raise ValueError(f"{name} = {value}, expected a finite number that float32 holds")


def check_divisor(name: str, values: Iterable[Any]) -> None:
    """Raise ValueError unless logits can be divided by these numbers in float32."""
    check_float32(name, values := list(values))
    smallest = float(np.finfo(np.float32).tiny)  # hardware takes what is smaller for 0
    for value in values:
        if not value >= smallest:
            raise ValueError(
                f"{name} = {value}, expected a positive number, {smallest:.2g} (float32) or more"
            )
