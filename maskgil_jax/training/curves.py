"""Curves of training logs, as a picture."""

from etils import epath

from maskgil_jax.generation import figures
from maskgil_jax.training.writer import read_log


def write(runs: dict[str, epath.PathLike], path: epath.PathLike) -> None:
    """Plot the main curves of training logs, a row for each run (name -> work directory)."""
    columns = {
        "loss": ("loss",),
        "quality": ("accuracy", "psnr"),
        "norms": ("gradient_norm", "parameter_norm", "output_norm"),
        "images per second": ("examples_per_second",),
        "share": ("mfu", "goodput"),
    }
    with figures.figure(4 * len(columns), 3 * len(runs)) as figure:
        rows = figure.subplots(len(runs), len(columns), squeeze=False)
        for row, (name, directory) in zip(rows, runs.items(), strict=True):
            log = read_log(directory)
            for axes, (title, keys) in zip(row, columns.items(), strict=True):
                for key in keys:
                    points = [(line["step"], line[key]) for line in log if key in line]
                    if points:
                        axes.plot(*zip(*points, strict=True), label=key)
                axes.set(title=f"{name}: {title}", xlabel="step")
                if title == "norms":
                    axes.set_yscale("log")
                if axes.lines:  # older logs have no goodput
                    axes.legend()
        figures.save(path, figure)
