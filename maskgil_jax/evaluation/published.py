"""Published numbers, and which of them may stand beside a measurement: published_values.toml."""

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

FILE = "published_values.toml"


class Published(NamedTuple):
    """A row of a published table.

    Attributes:
      model, setting: what was measured.
      of: samples, or reconstructions.
      metrics: by our names.
      resolution: pixels.
      samples: images.
      protocol: key of protocols.PROTOCOLS; "" where it is none of them.
      reference: what the name of the reference holds, in any case of letters.
      source: where it stands.
      checked: whether it was read there.
    """

    model: str
    setting: str
    of: str
    metrics: Mapping[str, float]
    resolution: int
    samples: int
    protocol: str
    reference: str
    source: str
    checked: bool

    def described(self) -> dict[str, Any]:
        """The row as results show it."""
        source = self.source if self.checked else f"{self.source} (from memory, not verified)"
        setting = ", ".join(filter(None, [self.setting, f"{self.resolution} pixels"]))
        return {"model": self.model, "setting": setting, **self.metrics, "source": source}


@functools.cache
def values() -> tuple[Published, ...]:
    """All rows of published_values.toml."""
    text = importlib.resources.files(__package__).joinpath(FILE).read_text()
    return tuple(Published(**row) for row in tomllib.loads(text)["values"])


def beside(content: Mapping[str, Any]) -> dict[str, Any]:
    """The published rows that a measurement may be compared with, or why there is none.

    Args:
      content: what evaluation.evaluate gives: protocol, samples, reference, metrics.

    Returns:
      `rows`, each with model, setting, the metrics that were measured here too, and its source; or
      `none`, the reason in a line.
    """
    reason = _why_not(content)
    if reason:
        return {"none": reason}
    metrics, reference = content["metrics"], _reference(content)
    rows = []
    for row in _of_protocol(content):
        shared = {name: value for name, value in row.metrics.items() if name in metrics}
        if shared and _is_of(row, reference):
            rows.append(row._replace(metrics=shared).described())
    return {"rows": rows}


def _of_protocol(content: Mapping[str, Any]) -> list[Published]:
    name = content["protocol"]["name"]
    return [row for row in values() if row.protocol and row.protocol == name]


def _reference(content: Mapping[str, Any]) -> str:
    """The path of what samples were compared with; "none" where that is nothing."""
    reference = content["reference"]
    return str(reference["path"]) if isinstance(reference, Mapping) else "none"


def _is_of(row: Published, reference: str) -> bool:
    return row.reference.lower() in reference.lower()


def _why_not(content: Mapping[str, Any]) -> str:
    """Why no published row may stand beside a measurement; "" where one may."""
    name, rows = content["protocol"]["name"], _of_protocol(content)
    known = sorted({row.protocol for row in values() if row.protocol})
    if not rows:
        return f"measured by protocol {name}; published numbers are of {', '.join(known)}"
    count, counts = content["samples"]["count"], sorted({row.samples for row in rows})
    if count not in counts:
        return f"{count:,} samples; published numbers of {name} are of {counts[0]:,}"
    reference = _reference(content)
    fitting = [row for row in rows if _is_of(row, reference)]
    if not fitting:
        names = ", ".join(sorted({row.reference for row in rows}))
        return (
            f"compared with {reference}; published numbers of {name} are of ImageNet, "
            f"against what is called {names}"
        )
    if not any({*row.metrics} & {*content["metrics"]} for row in fitting):
        return f"none of the metrics that are published by {name} was measured"
    return ""


def described(found: Mapping[str, Any]) -> str:
    """What `beside` gives, as lines for a terminal."""
    if "none" in found:
        return f"no published number beside these: {found['none']}"
    lines = [
        f"published: {row['model']}, {row['setting']}: "
        + ", ".join(f"{n} {v:g}" for n, v in row.items() if isinstance(v, float))
        + (" (not verified)" if "not verified" in row["source"] else "")
        for row in found["rows"]
    ]
    return "\n".join(lines)
