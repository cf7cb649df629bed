"""Memory and seconds of precision, recall, density and coverage, on the CPU.

python -m tests.benchmarks.manifold_memory [--count=50000] [--dim=2048] [--output=FILE]

The features are float32 random numbers, `count` of each side. Peaks are those of the whole process,
resident, as the system counts them: before the metrics, with both arrays, and after.
"""

import json
import os
import pathlib
import resource
import time

import numpy as np
from absl import app, flags

from maskgil_jax.metrics import manifolds


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_integer("count", 50000, "features of each side", lower_bound=6)
    flags.DEFINE_integer("dim", 2048, "numbers a feature", lower_bound=1)
    flags.DEFINE_string("output", "", "JSON file for the figures")


def main() -> None:
    """Compute all four metrics once and print what it took."""
    count, dim = flags.FLAGS.count, flags.FLAGS.dim
    rng = np.random.default_rng(0)
    reference, samples = (rng.standard_normal((count, dim), np.float32) for _ in range(2))
    samples *= np.float32(0.99)  # inside the reference more often than the other way round
    before = peak_gibibytes()
    start = time.perf_counter()
    found = manifolds.prdc(reference, samples)
    figures = {
        "count": count,
        "dim": dim,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": time.perf_counter() - start,
        "peak_gibibytes_before": before,
        "peak_gibibytes": peak_gibibytes(),
        **found._asdict(),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value:,}")
    if flags.FLAGS.output:
        content = json.dumps(figures, indent=1) + "\n"
        pathlib.Path(flags.FLAGS.output).expanduser().write_text(content)


def peak_gibibytes() -> float:
    """Of this process so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    define_flags()
    app.run(lambda _: main())
