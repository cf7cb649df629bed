"""The page of runs: its sections, and the HTML file that they make."""

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

from maskgil_jax.reporting import collect, facts, figures, inline, result_tables
from maskgil_jax.reporting.collect import Run
from maskgil_jax.reporting.result_tables import Table
from maskgil_jax.reporting.results import METRICS
from maskgil_jax.runtime import files, paths, version
from maskgil_jax.runtime.errors import InputError

TEMPLATE = "page.html.jinja"
# Kinds of results with sections of their own.
COMPARISONS = ("tokenizers", "generators", "sweep", "study")
PLANS = ("scaling", "plan")
IN_A_ROW = 4  # runs beside one another, so that they fit on paper

log = logging.getLogger("maskgil_jax")


class Picture(NamedTuple):
    """A picture of the page: its name, a note below it, the picture as a URI, its pixels across.

    A drawing is as wide as the page, and has width 0.
    """

    name: str
    note: str
    uri: str
    width: int


class Block(NamedTuple):
    """Tables of a section with one heading, and the pictures below them."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


class Section(NamedTuple):
    """A section of the page: its heading, a sentence about it, and its blocks."""

    title: str
    text: str
    blocks: Sequence[Block]

    @property
    def is_wide(self) -> bool:
        """Whether paper in portrait is too narrow for its tables."""
        return any(len(table.header) > 12 for block in self.blocks for table in block.tables)


def write(directories: Sequence[str], output: str, names: Sequence[str] = ()) -> epath.Path:
    """Write OUTPUT/index.html atomically; returns its path.

    Args:
      directories: of the runs.
      output: directory of the page.
      names: of the runs on the page; (): the ends of their directories.

    Raises:
      InputError: as collect.gather; a broken picture; an output that cannot be written.
    """
    runs = collect.gather(directories, names)
    command = "python -m maskgil_jax.report --runs={} --output={}"
    made = {
        "command": command.format(*map(shlex.quote, (",".join(directories), output))),
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
        raise InputError(f"output={output} cannot be written: {error}") from None
    log.info("wrote %s, %.1f MB", path, path.stat().length / 1e6)
    return path


def rendered(runs: Sequence[Run], made: Mapping[str, str], date: datetime.datetime) -> str:
    """The HTML.

    Args:
      runs: what the page is about.
      made: versions and the command that the page was made with, by name.
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
    warnings = {run.name: texts for run in runs if (texts := facts.warnings(run))}
    return environment.from_string(template).render(
        runs=[run.name for run in runs],
        sections=[section for section in sections(runs) if section.blocks],
        warnings=warnings,
        made=made,
        date=date.strftime("%Y-%m-%d %H:%M UTC"),
    )


def sections(runs: Sequence[Run]) -> list[Section]:
    """All sections in their order; those that the runs have nothing for have no blocks."""
    beside_tables, samples = split_pictures(runs)
    comparisons = blocks_of_tables(runs, COMPARISONS, beside_tables)
    used = {block.title for block in comparisons}
    remaining = {name: some for name, some in beside_tables.items() if name not in used}
    return [
        Section("Directories", "What was read.", [Block("", [directories_table(runs)])]),
        Section(
            "Training curves",
            "Line styles and colours are the same in all figures.",
            [Block(figure.title, (), [_drawing(figure)]) for figure in figures.curves(runs)],
        ),
        Section(
            "What was trained", "", [Block("", tables)] if (tables := facts_tables(runs)) else []
        ),
        Section(
            "Metrics",
            "Numbers are comparable within a table only: reference and protocol above it decide "
            "them. The floor is what one half of the reference reaches against the other.",
            [Block("", [table]) for table in metrics(runs)],
        ),
        Section(
            "Samples and reconstructions",
            "",
            [Block(name, (), pictures) for name, pictures in samples.items() if pictures],
        ),
        Section("Comparisons", "", comparisons),
        Section("Scaling and plans", "", blocks_of_tables(runs, PLANS, remaining)),
    ]


def split_pictures(
    runs: Sequence[Run],
) -> tuple[dict[str, list[Picture]], dict[str, list[Picture]]]:
    """The pictures of each run: the plots and grids that belong to its tables, and the others."""
    beside_tables: dict[str, list[Picture]] = {}
    others: dict[str, list[Picture]] = {}
    for run in runs:
        pictures = [_picture(run, path) for path in run.pictures]
        has_tables = bool(tables_of(run, (*COMPARISONS, *PLANS)))
        of_tables = [has_tables and not p.name.startswith("samples/") for p in pictures]
        pairs = list(zip(pictures, of_tables, strict=True))
        beside_tables[run.name] = [picture for picture, is_theirs in pairs if is_theirs]
        others[run.name] = [picture for picture, is_theirs in pairs if not is_theirs]
    return beside_tables, others


def blocks_of_tables(
    runs: Sequence[Run], kinds: Sequence[str], pictures: Mapping[str, Sequence[Picture]]
) -> list[Block]:
    """A block for each run that has tables of these kinds of results: they, and its pictures."""
    return [
        Block(run.name, tables, pictures.get(run.name, ()))
        for run in runs
        if (tables := tables_of(run, kinds))
    ]


def tables_of(run: Run, kinds: Sequence[str]) -> list[Table]:
    """The tables of a run's results of these kinds."""
    return [
        table
        for file, result in run.results.items()
        if result.kind in kinds
        for table in result_tables.tables_of(file, result)
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
    return result_tables.table("", rows, None, [])


def facts_tables(runs: Sequence[Run]) -> list[Table]:
    """A column for each run of training, a few of them in each table."""
    known = {run.name: facts.of_run(run) for run in runs if run.is_training}
    names = list(known)
    tables = []
    for start in range(0, len(names), IN_A_ROW):
        few = names[start : start + IN_A_ROW]
        of_any = [fact for fact in facts.NAMES if any(fact in known[name] for name in few)]
        rows = [[fact, *(known[name].get(fact, "–") for name in few)] for fact in of_any]
        tables.append(Table("", ["", *few], rows, [False] * (1 + len(few)), []))
    return tables


def metrics(runs: Sequence[Run]) -> list[Table]:
    """The tables of all results of metrics, whose rows are called after their run."""
    named = {}
    for run in runs:
        for file, result in run.results.items():
            if result.kind == METRICS:
                name = run.name if file == "metrics.json" else f"{run.name}: {file}"
                named[name] = result
    return result_tables.metrics_tables(named)


def _picture(run: Run, path: epath.Path) -> Picture:
    inlined = inline.picture(path)
    return Picture(str(path.relative_to(run.directory)), inlined.note, inlined.uri, inlined.width)


def _drawing(figure: figures.Figure) -> Picture:
    uri = inline.data_uri(figure.svg, "image/svg+xml")
    return Picture(figure.title, figure.caption, uri, 0)
