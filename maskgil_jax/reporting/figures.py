"""Training curves of runs as SVG, to be read in print and by the colour-blind."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskgil_jax.generation import figures as plots
from maskgil_jax.generation.figures import COLOURS
from maskgil_jax.reporting.collect import Run
from maskgil_jax.reporting.formatting import number

MOST_POINTS = 1000  # of a curve: more look the same, and would make the page heavy
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2, 2, 2)))


class Panel(NamedTuple):
    """Axes of a figure.

    Attributes:
      key: what is plotted of each line of a log.
      label: of the vertical axis.
      stage: only runs of this one; "" for all.
      logarithmic: the vertical axis.
    """

    key: str
    label: str
    stage: str = ""
    logarithmic: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
      title: above it.
      caption: below it.
      svg: the drawing.
    """

    title: str
    caption: str
    svg: bytes


Lines = Mapping[str, tuple[np.ndarray, int]]  # by run, as `points` returns them

AS_LOGGED = "Each point is of one step as it was logged, not smoothed."
# Title: what the caption says beside AS_LOGGED, and the axes.
FIGURES: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "Training loss": (
        "Of generators: cross-entropy as trained, label smoothing included, comparable between "
        "runs of one kind (masked or causal) on the same codes only. Of tokenizers: the weighted "
        "sum of all terms.",
        (
            Panel("loss", "loss of generators (nats a token)", "generator"),
            Panel("loss", "loss of tokenizers", "tokenizer"),
        ),
    ),
    "Norms": (
        "The gradient's before it is clipped.",
        (
            Panel("gradient_norm", "gradient norm", logarithmic=True),
            Panel("output_norm", "output norm", logarithmic=True),
            Panel("parameter_norm", "parameter norm"),
        ),
    ),
    "Quality on training batches": (
        "",
        (
            Panel("accuracy", "accuracy of predicted tokens"),
            Panel("psnr", "PSNR (dB)"),
            Panel("codebook_usage", "share of the codebook used"),
        ),
    ),
    "Terms of the tokenizers' loss": (
        "Before they are weighted.",
        (
            Panel("reconstruction_loss", "reconstruction", logarithmic=True),
            Panel("perceptual_loss", "LPIPS"),
            Panel("feature_loss", "features of the discriminator"),
            Panel("codebook_loss", "codebook", logarithmic=True),
            Panel("entropy_loss", "entropy of the codes"),
            Panel("adversarial_loss", "adversarial"),
            Panel("discriminator_loss", "discriminator"),
        ),
    ),
    "Learning rate and speed": (
        "Speeds are means over the steps since the last logged; the first includes compilation.",
        (
            Panel("learning_rate", "learning rate"),
            Panel("examples_per_second", "images per second"),
            Panel("data_wait_seconds", "seconds a step waits for data"),
            Panel("mfu", "MFU"),
            Panel("goodput", "goodput"),
        ),
    ),
}


def curves(runs: Sequence[Run]) -> list[Figure]:
    """The figures of FIGURES that these runs have something logged for."""
    logged = [run for run in runs if run.log]
    styles = {run.name: style(i) for i, run in enumerate(logged)}
    drawings = []
    for title, (note, panels) in FIGURES.items():
        lines = {panel: of_panel for panel in panels if (of_panel := _points(logged, panel))}
        if lines:
            caption = f"{note} {AS_LOGGED}".strip()
            drawings.append(Figure(title, caption, _svg(lines, styles)))
    return drawings


def style(i: int) -> dict[str, Any]:
    """The style of line i: neighbours differ in colour and dashes, the first 35 in one of both."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": DASHES[(i + i // len(COLOURS)) % len(DASHES)],
    }


def points(log: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, int]:
    """What was logged under a key.

    Args:
      log: lines of a run.
      key: of a line.

    Returns:
      float64 [N, 2] of steps and values, with NaN where a value is no finite number, and k: every
      k-th point was taken, so that N is at most MOST_POINTS. N is 0 where no value is finite.
    """
    pairs = [(number(line["step"]), number(line[key])) for line in log if key in line]
    points_N2 = np.array(pairs, np.float64).reshape(-1, 2)
    points_N2[~np.isfinite(points_N2)] = np.nan
    every = -(-len(points_N2) // MOST_POINTS) or 1
    points_N2 = points_N2[::-every][::-1]  # the last one stays
    return (points_N2 if np.isfinite(points_N2[:, 1]).any() else points_N2[:0]), every


def _points(runs: Sequence[Run], panel: Panel) -> Lines:
    """The lines of a panel, of the runs that have logged it, by the names of the runs."""
    lines = {
        run.name: points(run.log or (), panel.key)
        for run in runs
        if panel.stage in ("", run.stage or panel.stage)
    }
    return {name: line for name, line in lines.items() if len(line[0])}


def _svg(panels: Mapping[Panel, Lines], styles: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Panels in rows of three, and a legend of all lines below them."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    width = {1: 7.5, 2: 10.5, 3: 11.4}[columns]
    names = [name for name in styles if any(name in lines for lines in panels.values())]
    labels = {name: _label(name, panels) for name in names}
    in_row = max(1, min(len(names), int(width * 11 / (8 + max(map(len, labels.values()))))))
    height = (3.6 if columns == 1 else 3.0) * rows + 0.25 * -(-len(names) // in_row)
    with plots.figure(width, height) as figure:
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        handles: dict[str, Any] = {}
        for axes, (panel, lines) in zip(grid, panels.items(), strict=False):
            handles |= _draw_panel(axes, panel, lines, styles)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        _draw_legend(figure, [handles[name] for name in names], list(labels.values()), in_row)
        return plots.svg(figure)


def _draw_panel(
    axes: Any, panel: Panel, lines: Lines, styles: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Draw the lines of a panel; returns Matplotlib's by the names of the runs."""
    handles = {}
    for name, (points_N2, _) in lines.items():
        marker = "." if len(points_N2) <= 30 else None
        (handles[name],) = axes.plot(*points_N2.T, **styles[name], marker=marker)
    values = np.concatenate([points_N2[:, 1] for points_N2, _ in lines.values()])
    if panel.logarithmic and np.nanmin(values) > 0:
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel=panel.label)
    return handles


def _draw_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str], in_row: int) -> None:
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=in_row,
        handlelength=3.5,
    )
    for label in legend.get_texts():
        label.set_parse_math(False)  # names may have dollars


def _label(name: str, panels: Mapping[Panel, Lines]) -> str:
    """The name of a run, shortened, and how many of its points are drawn."""
    every = max(lines[name][1] for lines in panels.values() if name in lines)
    label = name if len(name) <= 90 else f"{name[:44]}…{name[-45:]}"
    # Matplotlib would hide what begins with an underscore.
    label = f" {label}" if label.startswith("_") else label
    return label if every == 1 else f"{label} (every {every}th point logged)"
