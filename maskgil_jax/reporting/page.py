"""The page: what was collected, in its sections, as one HTML file."""

import datetime
import importlib.metadata
import importlib.resources
import logging
import platform
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from etils import epath

from maskgil_jax.reporting import collect, facts, figures, inline, results
from maskgil_jax.reporting.collect import Run
from maskgil_jax.reporting.results import METRICS, Table
from maskgil_jax.runtime import files, paths, version
from maskgil_jax.runtime.errors import InputError

TEMPLATE = "page.html.jinja"
IN_A_ROW = 4  # runs beside one another, so that they fit on paper

log = logging.getLogger("maskgil_jax")


class Shown(NamedTuple):
    """A picture of the page: what it is called, what was done to it, and itself."""

    name: str
    note: str
    uri: str
    width: int


class Block(NamedTuple):
    """A part of a section: tables, and pictures below them."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Shown] = ()


class Section(NamedTuple):
    """A section of the page: what it is about, and its parts."""

    title: str
    text: str
    blocks: Sequence[Block]

    @property
    def is_wide(self) -> bool:
        """Whether paper in portrait is too narrow for its tables."""
        return any(len(table.header) > 12 for block in self.blocks for table in block.tables)


def write(directories: Sequence[str], output: str) -> epath.Path:
    """Write OUTPUT/index.html, which is there whole or not at all; returns its path.

    Raises:
      InputError: as collect.gather; a broken picture; an output that cannot be written.
    """
    runs = collect.gather(directories)
    given = [f"--runs={','.join(directories)}", f"--output={output}"]
    made = {
        "command": shlex.join(["python", "-m", "maskgil_jax.report", *given]),
        "code": version.of_code(),
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("matplotlib", "jinja2")},
    }
    content = rendered(runs, made, datetime.datetime.now(datetime.UTC))
    path = paths.absolute(output) / "index.html"
    try:
        # What files are called, and what JSON holds, need not be text that UTF-8 can write.
        files.write_bytes(path, content.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"--output={output} cannot be written: {error}") from None
    log.info("wrote %s, %.1f MB", path, path.stat().length / 1e6)
    return path


def rendered(runs: Sequence[Run], made: Mapping[str, str], date: datetime.datetime) -> str:
    """The HTML.

    Args:
      runs: what is shown.
      made: what the page was made with, by name.
      date: when.

    Raises:
      InputError: a broken picture.
    """
    template = importlib.resources.files(__package__).joinpath(TEMPLATE).read_text()
    environment = jinja2.Environment(
        autoescape=True,  # names, paths and configs are whatever they are
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    warnings = {run.name: found for run in runs if (found := facts.warnings(run))}
    return environment.from_string(template).render(
        runs=[run.name for run in runs],
        sections=[one for one in sections(runs) if one.blocks],
        warnings=warnings,
        made=made,
        date=date.strftime("%Y-%m-%d %H:%M UTC"),
    )


def sections(runs: Sequence[Run]) -> list[Section]:
    """All sections in their order; those that the runs have nothing for have no blocks."""
    pictures = {run.name: [_shown(run, path) for path in run.pictures] for run in runs}
    compared = {run.name: _tables(run, ("tokenizers", "generators", "sweep")) for run in runs}
    planned = {run.name: _tables(run, ("scaling", "plan")) for run in runs}
    # Plots and grids beside tables belong to these.
    of_tables = {
        run.name: [shown for shown in pictures[run.name] if not shown.name.startswith("samples/")]
        for run in runs
        if compared[run.name] or planned[run.name]
    }
    of_samples = {
        name: [shown for shown in found if shown not in of_tables.get(name, [])]
        for name, found in pictures.items()
    }
    return [
        Section("Directories", "What was read.", [Block("", [directories_table(runs)])]),
        Section(
            "Training curves",
            "Line styles and colours are the same in all figures.",
            [Block(one.title, (), [_figure(one)]) for one in figures.curves(runs)],
        ),
        Section(
            "What was trained", "", [Block("", found)] if (found := facts_tables(runs)) else []
        ),
        Section(
            "Metrics",
            "Numbers are comparable within a table only: reference and protocol above it decide "
            "them. The floor is what one half of the reference reaches against the other.",
            [Block("", [found]) for found in metrics(runs)],
        ),
        Section(
            "Samples and reconstructions",
            "",
            [Block(name, (), found) for name, found in of_samples.items() if found],
        ),
        Section(
            "Comparisons",
            "",
            [Block(name, found, of_tables[name]) for name, found in compared.items() if found],
        ),
        Section(
            "Scaling and plans",
            "",
            [
                Block(name, found, () if compared[name] else of_tables[name])
                for name, found in planned.items()
                if found
            ],
        ),
    ]


def directories_table(runs: Sequence[Run]) -> Table:
    """Where each run is and what it holds."""
    rows = []
    for run in runs:
        holds = [f"training of a {run.stage}".removesuffix(" of a ")] if run.is_training else []
        holds += run.results
        holds += [str(path.relative_to(run.directory)) for path in run.pictures]
        row: dict[str, Any] = {"name": run.name, "directory": str(run.directory)}
        row["shown here"] = ", ".join(holds)
        if run.left_out:
            row["not shown"] = ", ".join(run.left_out)
        rows.append(row)
    return results.table("", rows, None, [])


def facts_tables(runs: Sequence[Run]) -> list[Table]:
    """A column for each run of training, a few of them in each table."""
    known = {run.name: facts.of_run(run) for run in runs if run.is_training}
    names = list(known)
    found = []
    for start in range(0, len(names), IN_A_ROW):
        part = names[start : start + IN_A_ROW]
        of_any = [fact for fact in facts.NAMES if any(fact in known[name] for name in part)]
        rows = [[fact, *(known[name].get(fact, "–") for name in part)] for fact in of_any]
        found.append(Table("", ["", *part], rows, [False] * (1 + len(part)), []))
    return found


def metrics(runs: Sequence[Run]) -> list[Table]:
    """The tables of all files of metrics, which are called after their run."""
    found = {}
    for run in runs:
        for file, result in run.results.items():
            if result.kind == METRICS:
                name = run.name if file == "metrics.json" else f"{run.name}: {file}"
                found[name] = result
    return results.metrics_tables(found)


def _tables(run: Run, kinds: Sequence[str]) -> list[Table]:
    return [
        table
        for file, result in run.results.items()
        if result.kind in kinds
        for table in results.tables_of(file, result)
    ]


def _shown(run: Run, path: epath.Path) -> Shown:
    found = inline.picture(path)
    return Shown(str(path.relative_to(run.directory)), found.note, found.uri, found.width)


def _figure(one: figures.Figure) -> Shown:
    return Shown(one.title, one.caption, inline.data_uri(one.svg, "image/svg+xml"), 0)
