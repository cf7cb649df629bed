"""Figures of measurements, for print: named axes, and lines that differ in more than colour."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from maskgil_jax.generation import figures
from maskgil_jax.generation.figures import COLOURS, MARKERS

Row = Mapping[str, Any]

DASHES = ("-", "--", "-.", ":")
SPELLED = {
    "fid": "FID",
    "rfid": "rFID",
    "sfid": "sFID",
    "kid": "KID",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
}
NOT_PLOTTED = ("_deviation",)


def of_sweep(
    rows: Sequence[Row],
    varied: Sequence[str],
    measured: Sequence[str],
    floor: Mapping[str, float],
    title: str,
    output: epath.Path,
    time: str = "seconds_per_image",
) -> None:
    """Write the figures of a sweep.

    OUTPUT/NAME.png for each option of several numbers, OUTPUT/quality_time.png, and
    OUTPUT/precision_recall.png where these were measured.

    Args:
      rows: one a setting, with its options, what was measured, and how long an image took.
      varied: names of the options.
      measured: names of the metrics.
      floor: what real images give, of the metrics where this is known.
      title: of all figures.
      output: directory.
      time: name of the seconds that an image took.
    """
    measured = [name for name in measured if not name.endswith(NOT_PLOTTED)]
    numbers = [
        name
        for name in varied
        if all(isinstance(row.get(name), int | float) for row in rows)
        and len({row[name] for row in rows}) > 1
    ]
    for name in numbers:
        path = output / f"{name}.png"
        panels(rows, name, measured, floor, title, path, along=name, options=varied)
    last = numbers[-1] if numbers else None
    # Joined along what costs time, and along what trades recall for precision.
    slow = next((name for name in ("steps", "prefix") if name in numbers), last)
    path = output / "quality_time.png"
    panels(rows, time, measured, floor, title, path, along=slow, options=varied)
    for precision in measured:
        recall = precision.replace("precision", "recall")
        if precision.endswith("precision") and recall in measured:
            along = next((name for name in ("guidance", "temperature") if name in numbers), slow)
            path = output / "precision_recall.png"
            panels(rows, recall, [precision], {}, title, path, along=along, options=varied)


def panels(
    rows: Sequence[Row],
    axis: str,
    measured: Sequence[str],
    floor: Mapping[str, float],
    title: str,
    path: epath.PathLike,
    *,
    options: Sequence[str],
    along: str | None = None,
) -> None:
    """Plot each measured value against another, one panel for each.

    Args:
      rows: values by name.
      axis: name of the horizontal one.
      measured: names of the vertical ones.
      floor: what real images give against real ones, of those where this is known.
      title: of the figure.
      path: of the PNG.
      options: names in which rows differ: those of one line differ in `along` alone.
      along: the option along which points are joined, and which is written beside them where it is
        not the axis; None: every row is a point by itself.
    """
    columns = min(len(measured), 3)
    lines = -(-len(measured) // columns)
    with figures.figure(max(4.2 * columns, 6), 3.4 * lines + 0.4) as figure:
        panes = figure.subplots(lines, columns, squeeze=False)
        for pane in panes.flat[len(measured) :]:
            pane.remove()
        for pane, name in zip(panes.flat, measured, strict=False):
            _plot_lines(pane, rows, axis, name, options, along)
            if name in floor:
                pane.axhline(floor[name], color="0.4", linestyle=":", label="real against real")
            label_axes(pane, axis, name, [row[axis] for row in rows])
        handles, labels = panes[0][0].get_legend_handles_labels()
        if len(labels) > 1 or floor:
            _legend_below(figure, handles, labels)
        note = f"\nnumbers beside points: {spelled(along)}" if along and axis != along else ""
        figure.suptitle(title + note, wrap=True)
        figures.save(path, figure)


def _plot_lines(
    pane: Any,
    rows: Sequence[Row],
    axis: str,
    name: str,
    options: Sequence[str],
    along: str | None,
) -> None:
    """One measured value against the axis, a line for each setting of the other options."""
    others = [option for option in options if option != along]
    for i, (line, points) in enumerate(_lines(rows, others)):
        x, y = ([row[key] for row in points] for key in (axis, name))
        pane.plot(
            x,
            y,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle=DASHES[i // len(COLOURS) % len(DASHES)] if along else "none",
            label=line,
        )
        if along and axis != along:
            _beside(pane, x, y, [f"{row[along]:g}" for row in points])


def label_axes(pane: Any, axis: str, name: str, positions: Sequence[float]) -> None:
    """Name both axes; times that differ by much are on a logarithmic one."""
    from matplotlib import ticker

    if axis.startswith("seconds") and max(positions) > 4 * min(positions):
        pane.set_xscale("log")
        pane.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        pane.xaxis.set_major_formatter("{x:g}")
        pane.xaxis.set_minor_formatter(ticker.NullFormatter())
    pane.set(xlabel=spelled(axis), ylabel=spelled(name))
    pane.margins(0.12)


def scatter(
    points: dict[str, tuple[float, float]],
    axes: tuple[str, str],
    title: str,
    path: epath.PathLike,
) -> None:
    """Plot named points (x, y), x on a logarithmic axis."""
    with figures.figure(6, 4) as figure:
        pane = figure.subplots()
        for name, (x, y) in points.items():
            pane.scatter(x, y)
            pane.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points")
        pane.set(xscale="log", xlabel=axes[0], ylabel=axes[1], title=title)
        pane.margins(0.2)
        figures.save(path, figure)


def spelled(name: str) -> str:
    """`pixel_frechet_distance` as a reader expects it on an axis."""
    words = [SPELLED.get(word, word) for word in name.split("_")]
    return " ".join(words)


def _lines(rows: Sequence[Row], names: Sequence[str]) -> Iterable[tuple[str, list[Row]]]:
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(_setting(row, names), []).append(row)
    return lines.items()


def _setting(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {row[name]}" for name in names if name in row)


def _legend_below(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """In as many columns, up to 4, as the figure has room for."""
    for columns in range(min(4, len(labels)), 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width < figure.bbox.width:
            return
        legend.remove()


def _beside(pane: Any, x: Sequence[float], y: Sequence[float], texts: Sequence[str]) -> None:
    for at, text in zip(zip(x, y, strict=True), texts, strict=True):
        pane.annotate(text, at, xytext=(4, 4), textcoords="offset points", fontsize=7)
