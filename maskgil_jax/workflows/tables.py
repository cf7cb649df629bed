"""Tables of results in CSV and Markdown."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from maskgil_jax.runtime import files

Row = Mapping[str, Any]


def write(
    path: epath.PathLike,
    rows: Sequence[Row],
    columns: Mapping[str, Callable[[Any], str]] | None = None,
) -> None:
    """Write PATH.csv with the numbers in full, and PATH.md.

    Args:
      path: without a suffix.
      rows: values by column; a column that a row lacks stays empty there.
      columns: how Markdown writes each, in their order; those of no row are left out. None: the
        columns of the rows, numbers with four digits.
    """
    if columns is None:
        columns = {name: _short for name in _names(rows)}
    path = epath.Path(path)
    files.write_bytes(path.with_name(f"{path.name}.csv"), as_csv(rows, columns).encode())
    files.write_bytes(path.with_name(f"{path.name}.md"), as_markdown(rows, columns).encode())


def as_csv(rows: Sequence[Row], columns: Iterable[str] | None = None) -> str:
    """CSV with the numbers in full, of these columns in this order; None: those of the rows."""
    names = _names(rows)
    present = names if columns is None else [name for name in columns if name in names]
    text = io.StringIO()
    table = csv.DictWriter(text, present, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Row], columns: Mapping[str, Callable[[Any], str]]) -> str:
    """A Markdown table; `columns` as in `write`."""
    header, *body = as_text(rows, columns)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_text(rows: Sequence[Row], columns: Mapping[str, Callable[[Any], str]]) -> list[list[str]]:
    """The header and the rows of a table; `columns` as in `write`."""
    names = _names(rows)
    present = [name for name in columns if name in names]
    header = [name.replace("_", " ") for name in present]
    return [header] + [
        [columns[name](row[name]) if name in row else "" for name in present] for row in rows
    ]


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
