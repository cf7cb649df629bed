"""Figures of numbers: the one style of every plot, and the one place that asks for matplotlib.

Lines are plotted, and saved, within the context of its figure:

    with figures.figure(6, 4) as figure:
        axes = figure.subplots()
        axes.plot(x, y)
        figures.save(path, figure)
"""

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etils import epath

from maskgil_jax.runtime import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart; yellow is too light for white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 150


@contextlib.contextmanager
def figure(width: float, height: float) -> "Iterator[Figure]":
    """An empty figure; what is plotted in this context has the style of all figures.

    It belongs to no window and no list of open figures, so that nothing has to close it.

    Args:
      width, height: in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style()):
        empty = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(empty)
        yield empty


def save(path: epath.PathLike, figure: "Figure") -> None:
    """Write a figure as a PNG, atomically."""
    files.write_bytes(path, _bytes(figure, format="png", dpi=DPI))


def svg(figure: "Figure") -> bytes:
    """A figure as an SVG, the same bytes each time."""
    return _bytes(figure, format="svg", metadata={"Date": None})


def _style() -> Any:
    """Settings of matplotlib."""
    from cycler import cycler

    return {
        "font.size": 9,
        "figure.titlesize": 9,
        "axes.titlesize": 9,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.grid": True,
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.fontsize": 8,
        # Letters as outlines: the reader's machine may lack the font.
        "svg.fonttype": "path",
        "svg.hashsalt": "maskgil_jax",
    }


def _bytes(figure: "Figure", **settings: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, **settings)
    return content.getvalue()
