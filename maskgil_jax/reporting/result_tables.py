"""Tables of the results that commands wrote."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maskgil_jax.planning.plan_files import COLUMNS as PLAN_COLUMNS
from maskgil_jax.reporting.formatting import Notes, notes_of, text
from maskgil_jax.reporting.results import FLOOR, KINDS, METRICS, WARNINGS, Result, flat, metrics_of
from maskgil_jax.workflows import scaling_tables, tables
from maskgil_jax.workflows.tokenizer_comparison import COLUMNS as TOKENIZER_COLUMNS

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Any], str]]

FLOOR_NAME = "real images against real (floor)"
PUBLISHED = "published"  # what evaluation/published.py puts beside numbers
SAMPLES = "samples"
COLUMNS: Columns = {"config": str, "of": str, "parameters": "{:,}".format, **PLAN_COLUMNS}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
      title: above it.
      header: names of the columns.
      rows: cells.
      numeric: whether a column holds numbers.
      notes: what the numbers are of, and how they were measured.
      floor: whether the last row is what real images reach.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    notes: Notes
    floor: bool = False


def table(title: str, rows: Sequence[Row], columns: Columns | None, notes: Notes) -> Table:
    """A table of rows.

    Args:
      title: above it.
      rows: values by column.
      columns: how each column is written, in their order, as workflows.tables.write takes them; a
        value that this cannot write is written as any other. Columns that only the rows have follow
        as `text` writes them. None: all are written so.
      notes: as Table's.
    """
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    lenient = {name: _lenient(write) for name, write in (columns or {}).items()}
    writers = lenient | {name: text for name in names if name not in lenient}
    header, *body = tables.as_text(rows, writers)
    present = [name for name in writers if name in names]
    numeric = [not any(isinstance(r.get(name), str | bool) for r in rows) for name in present]
    return Table(title, header, body, numeric, notes)


def _lenient(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """Writes as `write` does, and as `text` a value of a kind that the commands never write."""

    def written(value: Any) -> str:
        try:
            return write(value)
        except (ValueError, TypeError, KeyError, AttributeError):
            return text(value)

    return written


def tables_of(file: str, result: Result) -> list[Table]:
    """The tables of a result of any kind but METRICS; the name of its file stands in the titles."""
    content = result.content
    known = (*KINDS[result.kind], FLOOR, WARNINGS, PUBLISHED)
    others = {name: value for name, value in content.items() if name not in known}
    about = content["protocol"] if "protocol" in content else content["notes"]
    return _TABLES[result.kind](file, content, [*notes_of(about), *notes_of(others)])


def _tokenizers(file: str, content: Row, notes: Notes) -> list[Table]:
    return [table(f"Tokenizers: {file}", content["tokenizers"], TOKENIZER_COLUMNS, notes)]


def _generators(file: str, content: Row, notes: Notes) -> list[Table]:
    floor = content.get(FLOOR)
    rows = [*content["generators"], *_floor_row("generator", floor)]
    without = table(f"Generators: {file}", rows, None, notes)
    return [dataclasses.replace(without, floor=bool(floor))]


def _sweep(file: str, content: Row, notes: Notes) -> list[Table]:
    return [table(f"Settings of decoding: {file}", content["rows"], None, notes)]


def _study(file: str, content: Row, notes: Notes) -> list[Table]:
    cells = table(f"Study: {file}", content["cells"], None, [*notes, *_why_none(content)])
    return [cells, *_published(content)]


def _scaling(file: str, content: Row, notes: Notes) -> list[Table]:
    """Tables of runs, laws and plans, where there are any; the notes stand at the last."""
    named = {
        "Runs": (content["runs"], scaling_tables.RUN_COLUMNS),
        "Laws": (content["fits"], scaling_tables.FIT_COLUMNS),
        "Plans": (content["plans"], scaling_tables.PLAN_COLUMNS),
    }
    named = {name: (rows, columns) for name, (rows, columns) in named.items() if rows}
    last = list(named)[-1:]
    return [
        table(f"{name} of a scaling study: {file}", rows, columns, notes * (name in last))
        for name, (rows, columns) in named.items()
    ]


def _plans(file: str, content: Row, notes: Notes) -> list[Table]:
    return [table(f"Plans: {file}", plan_rows(content["plans"]), COLUMNS, notes)]


_TABLES = {
    "tokenizers": _tokenizers,
    "generators": _generators,
    "sweep": _sweep,
    "study": _study,
    "scaling": _scaling,
    "plan": _plans,
}


def _published(content: Row) -> list[Table]:
    """The published numbers that may stand beside those of a result."""
    found = content.get(PUBLISHED)
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        return []
    return [table("Published, by the same protocol", rows, None, [])]


def _with_published(group: Mapping[str, Row]) -> Row:
    """A result of a group that says what was published, where one does: older files do not."""
    return next((content for content in group.values() if PUBLISHED in content), {})


def _why_none(content: Row) -> Notes:
    """Why no published number stands beside those of a result."""
    found = content.get(PUBLISHED)
    reason = found.get("none") if isinstance(found, dict) else None
    return notes_of({"no published number beside these": reason})


def _floor_row(first: str, floor: Any) -> list[Row]:
    """The row of what real images reach, named in the column `first`; none where it is unknown."""
    return [{first: FLOOR_NAME, **floor}] if isinstance(floor, dict) and floor else []


def plan_rows(plans: Sequence[Row]) -> list[Row]:
    """A row for each compiled program: a plan's training step, and its sampler."""
    rows: list[Row] = []
    for plan in plans:
        known = {"config": plan.get("config", ""), "topology": plan.get("topology", "")}
        programs = {"training step": plan, "sampler": plan.get("sampler")}
        for name, program in programs.items():
            if isinstance(program, dict):
                numbers = {k: v for k, v in program.items() if k in COLUMNS}
                rows.append({**numbers, **known, "of": name})
    return rows


def metrics_tables(results: Mapping[str, Result]) -> list[Table]:
    """Tables of metrics, one for those that were measured in the same way against the same images.

    Args:
      results: of METRICS, by the names of their rows.

    Returns:
      Tables with a row for each result and, where it is known, the floor; the notes say what was
      compared with what: first what all rows share, then what is each one's own.
    """
    groups: dict[str, dict[str, Row]] = {}
    for name, result in results.items():
        content = result.content
        # All that decides the numbers, beside the samples themselves.
        protocol = [content.get(key) for key in ("reference", "features", "protocol", FLOOR)]
        key = json.dumps([protocol, METRICS in content], sort_keys=True)
        groups.setdefault(key, {})[name] = content
    return [
        one
        for group in groups.values()
        for one in (_metrics_table(group), *_published(_with_published(group)))
    ]


def _metrics_table(group: Mapping[str, Row]) -> Table:
    rows: list[Row] = [
        {"of": name, **_count(content), **metrics_of(content)} for name, content in group.items()
    ]
    content = next(iter(group.values()))
    floor = flat(content[FLOOR]) if isinstance(content.get(FLOOR), dict) else {}
    title = _reference(content) or ", ".join(group)
    rows += _floor_row("of", floor)
    return dataclasses.replace(table(title, rows, None, _group_notes(group)), floor=bool(floor))


def _count(content: Row) -> dict[str, Any]:
    """The number of samples as a cell, where it is known."""
    samples = content.get(SAMPLES)
    if not isinstance(samples, dict) or "count" not in samples:
        return {}
    return {"images": samples["count"]}


def _group_notes(group: Mapping[str, Row]) -> Notes:
    """What all results of a group share, and then by their names what is each one's own."""
    contexts = {name: _context(content) for name, content in group.items()}
    first, *others = contexts.values()
    shared = {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
    notes = [*notes_of(shared), *_why_none(_with_published(group))]
    for name, context in contexts.items():
        own = {key: value for key, value in context.items() if key not in shared}
        if own:
            notes.append((name, notes_of(own)))
    return notes


def _context(content: Row) -> dict[str, Any]:
    """What a result says beside its numbers."""
    numbers = metrics_of(content)
    left_out = (METRICS, FLOOR, WARNINGS, PUBLISHED)
    return {
        name: value
        for name, value in content.items()
        if name not in left_out and (METRICS in content or name not in numbers)
    }


def _reference(content: Row) -> str:
    """The images that samples were compared with, or ""."""
    reference = content.get("reference")
    if not isinstance(reference, dict) or "path" not in reference:
        return ""
    count = f", {text(reference['count'])} images" if "count" in reference else ""
    return f"Against {text(reference['path'])}{count}"
