"""The JSON that commands write, as tables of text."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from maskgil_jax.planning.plan_files import COLUMNS as PLAN_COLUMNS
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import scaling_tables, tables
from maskgil_jax.workflows.tokenizer_comparison import COLUMNS as TOKENIZER_COLUMNS

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Any], str]]
Notes = list[tuple[str, Any]]  # a name, and a text or further notes

METRICS = "metrics"
# Kind of a file: what its JSON has; the first that fits counts. KIND.json must be of its kind.
KINDS = {
    "tokenizers": ("protocol", "tokenizers"),
    "generators": ("protocol", "generators"),
    "sweep": ("protocol", "rows"),
    "scaling": ("notes", "runs", "fits", "plans"),
    "plan": ("notes", "plans"),
    METRICS: ("protocol",),
}
FLOOR = "real_to_real"
FLOOR_NAME = "real images against real (floor)"
SAMPLES = "samples"
WARNINGS = "warnings"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command wrote.

    Attributes:
      kind: one of KINDS.
      content: of the file.
    """

    kind: str
    content: Mapping[str, Any]

    @property
    def warnings(self) -> list[str]:
        """What the command warned of."""
        found = self.content.get(WARNINGS) or []
        return [text(one) for one in (found if isinstance(found, list) else [found])]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table to be shown.

    Attributes:
      title: above it.
      header: names of the columns.
      rows: cells.
      numeric: whether a column holds numbers.
      notes: what they are, below the table.
      floor: whether the last row is what real images reach.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    notes: Notes
    floor: bool = False


def recognized(path: epath.Path, content: Any) -> Result | None:
    """What the JSON of a file is; None for that of something else.

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
    wanted = KINDS.get(path.stem)
    if wanted and path.stem != "plan":  # the user names that file
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} has {found}, expected {', '.join(wanted)}"
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


def number(value: Any) -> float:
    """A number of a JSON file; NaN for what is none, or is beyond float32."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    # Training counts in float32; Matplotlib fails at the ends of float64.
    return float(value) if abs(value) < 3.5e38 else math.nan


def text(value: Any) -> str:
    """Any JSON value for people: four digits, an interval in brackets."""
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
        return ", ".join(f"{name} {text(part)}" for name, part in value.items())
    return str(value)


def notes_of(content: Any) -> Notes:
    """Nested dictionaries as notes; what is empty is left out."""
    if not isinstance(content, Mapping):
        return [("", text(content))]
    return [
        (str(name).replace("_", " "), notes_of(value) if isinstance(value, dict) else text(value))
        for name, value in content.items()
        if value not in ("", None, [], {})
    ]


def table(title: str, rows: Sequence[Row], columns: Columns | None, notes: Notes) -> Table:
    """A table of rows; `columns` as metrics.tables.write takes them.

    Columns that only the rows have follow those of `columns`; a value that these cannot write is
    written as any other.
    """
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    forgiving = {name: _forgiving(how) for name, how in (columns or {}).items()}
    shown = forgiving | {name: text for name in names if name not in forgiving}
    header, *body = tables.as_text(rows, shown)
    present = [name for name in shown if name in names]
    numeric = [not any(isinstance(r.get(name), str | bool) for r in rows) for name in present]
    return Table(title, header, body, numeric, notes)


def _forgiving(how: Callable[[Any], str]) -> Callable[[Any], str]:
    def written(value: Any) -> str:
        try:
            return how(value)
        except (ValueError, TypeError, KeyError, AttributeError):  # no such value as we write
            return text(value)

    return written


def tables_of(where: str, result: Result) -> list[Table]:
    """The tables of a file, of any kind but METRICS; `where` stands in their titles."""
    content = result.content
    beside = {
        name: value
        for name, value in content.items()
        if name not in (*KINDS[result.kind], FLOOR, WARNINGS)
    }
    notes = [
        *notes_of(content["protocol"] if "protocol" in content else content["notes"]),
        *notes_of(beside),
    ]
    if result.kind == "tokenizers":
        return [table(f"Tokenizers: {where}", content["tokenizers"], TOKENIZER_COLUMNS, notes)]
    if result.kind == "generators":
        floor = content.get(FLOOR)
        rows = [*content["generators"], *_floor_row("generator", floor)]
        found = table(f"Generators: {where}", rows, None, notes)
        return [dataclasses.replace(found, floor=bool(floor))]
    if result.kind == "sweep":
        return [table(f"Settings of decoding: {where}", content["rows"], None, notes)]
    if result.kind == "scaling":
        parts = {
            "Runs": (content["runs"], scaling_tables.RUN_COLUMNS),
            "Laws": (content["fits"], scaling_tables.FIT_COLUMNS),
            "Plans": (content["plans"], scaling_tables.PLAN_COLUMNS),
        }
        last = [name for name, (rows, _) in parts.items() if rows][-1:]
        return [
            table(f"{name} of a scaling study: {where}", rows, columns, notes * (name in last))
            for name, (rows, columns) in parts.items()
            if rows
        ]
    return [table(f"Plans: {where}", plan_rows(content["plans"]), _PLAN_COLUMNS, notes)]


def _floor_row(first: str, floor: Any) -> list[Row]:
    return [{first: FLOOR_NAME, **floor}] if isinstance(floor, dict) and floor else []


_PLAN_COLUMNS: Columns = {
    "config": str,
    "of": str,
    "parameters": "{:,}".format,
    **PLAN_COLUMNS,
}


def plan_rows(plans: Sequence[Row]) -> list[Row]:
    """A row for each compiled program: a plan's training step, and its sampler."""
    rows: list[Row] = []
    for plan in plans:
        known = {"config": plan.get("config", ""), "topology": plan.get("topology", "")}
        programs = {"training step": plan, "sampler": plan.get("sampler")}
        for name, program in programs.items():
            if isinstance(program, dict):
                numbers = {k: v for k, v in program.items() if k in _PLAN_COLUMNS}
                rows.append({**numbers, **known, "of": name})
    return rows


def metrics_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a file of metrics: those under METRICS, or else those at its top."""
    inside = content.get(METRICS)
    if isinstance(inside, dict):
        return _flat(inside)
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "seed":
            found[name] = value
        # It stands beside its share in what condition_match writes.
        if name == "interval" and isinstance(value, list) and len(value) == 2:
            found[name] = dict(zip(("low", "high"), value, strict=True))
    return found


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict) and set(value) != {"value", "low", "high"}:
            flat |= _flat(value, f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def metrics_tables(found: Mapping[str, Result]) -> list[Table]:
    """Tables of metrics, those in one that were measured in the same way against the same.

    Args:
      found: files of METRICS by what they are called.

    Returns:
      Tables with a row for each file and, where it is known, the floor; the notes say what was
      compared with what: what all rows share, then what is each one's own.
    """
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, result in found.items():
        content = result.content
        # The way: what decides the numbers, beside the samples themselves.
        way = [content.get(key) for key in ("reference", "features", "protocol", FLOOR)]
        key = json.dumps([way, METRICS in content], sort_keys=True)
        groups.setdefault(key, {})[name] = content
    return [_metrics_table(group) for group in groups.values()]


def _metrics_table(group: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: list[Row] = []
    for name, content in group.items():
        samples = content.get(SAMPLES)
        count = (
            {"images": samples["count"]} if isinstance(samples, dict) and "count" in samples else {}
        )
        rows.append({"of": name, **count, **metrics_of(content)})
    contexts = {name: _context(content) for name, content in group.items()}
    first, *others = contexts.values()
    shared = {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
    notes = notes_of(shared)
    for name, context in contexts.items():
        own = {key: value for key, value in context.items() if key not in shared}
        if own:
            notes.append((name, notes_of(own)))
    content = next(iter(group.values()))
    floor = _flat(content[FLOOR]) if isinstance(content.get(FLOOR), dict) else {}
    title = _title(content) or ", ".join(group)
    found = table(title, [*rows, *_floor_row("of", floor)], None, notes)
    return dataclasses.replace(found, floor=bool(floor))


def _context(content: Mapping[str, Any]) -> dict[str, Any]:
    numbers = metrics_of(content)
    left_out = (METRICS, FLOOR, WARNINGS)
    return {
        name: value
        for name, value in content.items()
        if name not in left_out and (METRICS in content or name not in numbers)
    }


def _title(content: Mapping[str, Any]) -> str:
    reference = content.get("reference")
    if not isinstance(reference, dict) or "path" not in reference:
        return ""
    count = f", {text(reference['count'])} images" if "count" in reference else ""
    return f"Against {text(reference['path'])}{count}"
