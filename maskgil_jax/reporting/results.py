"""The JSON files that commands write: which kind one is, and the numbers that it holds."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from maskgil_jax.reporting.formatting import text
from maskgil_jax.runtime.errors import InputError

METRICS = "metrics"
# The keys that the JSON of each kind has; the first kind that fits counts. A file KIND.json must be
# of its kind.
KINDS = {
    "tokenizers": ("protocol", "tokenizers"),
    "generators": ("protocol", "generators"),
    "sweep": ("protocol", "rows"),
    "study": ("protocol", "cells"),
    "scaling": ("notes", "runs", "fits", "plans"),
    "plan": ("notes", "plans"),
    METRICS: ("protocol",),
}
FLOOR = "real_to_real"  # what one half of the reference reaches against the other
WARNINGS = "warnings"


@dataclasses.dataclass(frozen=True)
class Result:
    """A JSON file that a command wrote.

    Attributes:
      kind: one of KINDS.
      content: of the file, by the keys of its kind and others.
    """

    kind: str
    content: Mapping[str, Any]

    @property
    def warnings(self) -> list[str]:
        """The warnings that the command gave."""
        warnings = self.content.get(WARNINGS) or []
        return [text(x) for x in (warnings if isinstance(warnings, list) else [warnings])]


def recognized(path: epath.Path, content: Any) -> Result | None:
    """The result in the JSON of a file; None where it is something else.

    Raises:
      InputError: a file of ours, by its name or by its keys, that is not as we write it.
    """
    kind = kind_of(content)
    if kind:
        for key in KINDS[kind]:
            value = content[key]
            if key in ("protocol", "notes"):
                continue
            if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
                raise InputError(
                    f"{path}: {key} is {json.dumps(value)[:60]}, expected a list of rows"
                )
        return Result(kind, content)
    expected = KINDS.get(path.stem)
    if expected and path.stem != "plan":  # the user names that file
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} has {held}, expected {', '.join(expected)}"
            + (" and numbers" if path.stem == METRICS else "")
        )
    return None


def kind_of(content: Any) -> str:
    """The key in KINDS of a file's JSON, or ""."""
    if not isinstance(content, dict):
        return ""
    for kind, keys in KINDS.items():
        if all(key in content for key in keys) and (kind != METRICS or metrics_of(content)):
            return kind
    return ""


def metrics_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a file of metrics: those under METRICS, or else those at its top level."""
    inside = content.get(METRICS)
    if isinstance(inside, dict):
        return flat(inside)
    numbers: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "seed":
            numbers[name] = value
        # condition_match writes the interval beside its share.
        if name == "interval" and isinstance(value, list) and len(value) == 2:
            numbers[name] = dict(zip(("low", "high"), value, strict=True))
    return numbers


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one; names are joined by spaces, and intervals stay together."""
    leaves: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict) and set(value) != {"value", "low", "high"}:
            leaves |= flat(value, f"{prefix}{name} ")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves
