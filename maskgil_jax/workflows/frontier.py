"""The figure of a sweep that shows what quality costs: in passes of the network and in seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from maskgil_jax.decoding.masked_options import Options
from maskgil_jax.generation import figures
from maskgil_jax.generation.figures import COLOURS, MARKERS
from maskgil_jax.workflows import plots

Row = Mapping[str, Any]
COSTS = ("passes_per_image", "seconds_per_image")
LARGER_IS_BETTER = (
    "precision",
    "recall",
    "accuracy",
    "inception_score",
    "is",
    "density",
    "coverage",
)


def write(
    rows: Sequence[Row],
    varied: Sequence[str],
    measured: Sequence[str],
    floor: Mapping[str, float],
    title: str,
    path: epath.PathLike,
) -> None:
    """Plot each metric against both costs, the best at each cost joined by a line.

    MaskGIL's 8 steps are a star where they are among the settings, half of their cost is a line.

    Args:
      rows: one a setting, with its options, what was measured, and COSTS.
      varied: names of the options; a row lacks those that it leaves as they are.
      measured: names of the metrics.
      floor: what real images give, of the metrics where this is known.
      title: of the figure.
      path: of the PNG.
    """
    measured = [name for name in measured if not name.endswith(plots.NOT_PLOTTED)]
    baseline = next((row for row in rows if is_baseline(row, varied)), None)
    kinds = list(dict.fromkeys(kind_of(row, varied) for row in rows))
    with figures.figure(9, 2.5 * len(measured) + 1.2) as figure:
        panes = figure.subplots(len(measured), len(COSTS), squeeze=False)
        for line, metric in zip(panes, measured, strict=True):
            for pane, cost in zip(line, COSTS, strict=True):
                _plot(pane, rows, cost, metric, [kinds.index(kind_of(r, varied)) for r in rows])
                best = frontier(rows, cost, metric)
                x, y = ([row[name] for row in best] for name in (cost, metric))
                pane.plot(x, y, color="0.5", zorder=1, label="best at this cost")
                if baseline:
                    at = baseline[cost], baseline[metric]
                    pane.plot(*at, "*", color="k", ms=13, zorder=4, label="MaskGIL, 8 steps")
                    pane.axvline(at[0] / 2, color="k", linestyle="--", label="half of its cost")
                if metric in floor:
                    pane.axhline(floor[metric], color="0.4", linestyle=":", label="real images")
                plots.label_axes(pane, cost, metric, [row[cost] for row in rows])
        handles, labels = panes[0][0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        for i, kind in enumerate(kinds):
            named[kind] = named.pop(str(i))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3)
        figure.suptitle(f"{title}\nnumbers beside points: rows of the table", wrap=True)
        figures.save(path, figure)


def _plot(pane: Any, rows: Sequence[Row], cost: str, metric: str, kinds: Sequence[int]) -> None:
    """All settings, of a colour and marker for each kind, with their numbers beside them."""
    for kind in dict.fromkeys(kinds):
        of_kind = [row for row, k in zip(rows, kinds, strict=True) if k == kind]
        pane.plot(
            [row[cost] for row in of_kind],
            [row[metric] for row in of_kind],
            color=COLOURS[kind % len(COLOURS)],
            marker=MARKERS[(kind + kind // len(COLOURS)) % len(MARKERS)],
            linestyle="none",
            label=str(kind),
        )
    for number, row in enumerate(rows, 1):
        at = row[cost], row[metric]
        pane.annotate(str(number), at, xytext=(3, 3), textcoords="offset points", fontsize=6)


def frontier(rows: Sequence[Row], cost: str, metric: str) -> list[Row]:
    """The settings that none beats at the same cost or less, from the cheapest on."""
    sign = 1 if is_larger_better(metric) else -1
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row[cost], -sign * row[metric])):
        if not best or sign * row[metric] > sign * best[-1][metric]:
            best.append(row)
    return best


def is_larger_better(metric: str) -> bool:
    """Whether it is one of quality, and not a distance."""
    return any(metric.endswith(name) for name in LARGER_IS_BETTER)


def is_baseline(row: Row, varied: Sequence[str]) -> bool:
    """Whether a setting decodes as MaskGIL does: what varies is as in masked_options.Options."""
    defaults = Options()
    return all(
        row.get(name) in (None, getattr(defaults, name, None))
        for name in varied
        if name != "guidance"
    )


def kind_of(row: Row, varied: Sequence[str]) -> str:
    """The rule of a setting, and what else it does that is no number."""
    rule = row.get("rule", row.get("preset", Options.rule))
    numbers = [name for name in varied if isinstance(row.get(name), int | float)]
    also = [name for name in numbers if name not in ("steps", "guidance") and row[name]]
    return " + ".join([str(rule), *(name.replace("_", " ") for name in also)])
