"""Values of JSON files as text for people."""

import math
from collections.abc import Mapping
from typing import Any

Notes = list[tuple[str, Any]]  # a name, and a text or further notes


def number(value: Any) -> float:
    """A number of a JSON file; NaN for other values, and for numbers beyond float32."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    # Training counts in float32; Matplotlib fails at the ends of float64.
    return float(value) if abs(value) < 3.5e38 else math.nan


def text(value: Any) -> str:
    """Any JSON value as text: numbers with four digits, intervals in brackets."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, dict):
        if set(value) == {"value", "low", "high"}:
            return f"{text(value['value'])} ({text(value['low'])} to {text(value['high'])})"
        if set(value) == {"low", "high"}:
            return f"{text(value['low'])} to {text(value['high'])}"
        return ", ".join(f"{name} {text(item)}" for name, item in value.items())
    return str(value)


def notes_of(content: Any) -> Notes:
    """Nested dictionaries as notes, without empty values."""
    if not isinstance(content, Mapping):
        return [("", text(content))]
    return [
        (str(name).replace("_", " "), notes_of(value) if isinstance(value, dict) else text(value))
        for name, value in content.items()
        if value not in ("", None, [], {})
    ]
