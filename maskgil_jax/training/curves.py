"""Curves of training logs, as a picture."""

from etils import epath

from maskgil_jax.generation import pictures
from maskgil_jax.training.writer import read_log


def write(runs: dict[str, epath.PathLike], path: epath.PathLike) -> None:
    """Plot the main curves of training logs, a row for each run (name -> work directory)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = {
        "loss": ("loss",),
        "quality": ("accuracy", "psnr"),
        "norms": ("gradient_norm", "parameter_norm", "output_norm"),
        "images per second": ("examples_per_second",),
    }
    figure, axes = plt.subplots(
        len(runs), len(columns), figsize=(4 * len(columns), 3 * len(runs)), squeeze=False
    )
    for row, (name, directory) in zip(axes, runs.items(), strict=True):
        log = read_log(directory)
        for axis, (title, keys) in zip(row, columns.items(), strict=True):
            for key in keys:
                points = [(line["step"], line[key]) for line in log if key in line]
                if points:
                    axis.plot(*zip(*points, strict=True), label=key)
            axis.set(title=f"{name}: {title}", xlabel="step")
            if title == "norms":
                axis.set_yscale("log")
            axis.legend()
    figure.tight_layout()
    pictures.save_figure(path, figure, dpi=100)
    plt.close(figure)
