"""What runs have left, in one page: python -m maskgil_jax.report --runs=D1,D2 --output=DIR.

The page is DIR/index.html, one file with all its pictures, to be read, printed and mailed.
"""

import dataclasses
import os
from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is shown, and where."""

    runs: tuple[str, ...] = option(
        "work directories of training, and directories that sample, evaluate, reconstruct, "
        "compare, sweep, scaling, study or plan have written to, as in --runs=RUNS/b,RUNS/ar_b"
    )
    output: str = option("directory for index.html")


def main(argv: Sequence[str]) -> int:
    """Write the page; returns the exit code."""
    return command.run(argv, Options, report, __doc__, compiles=False)


def report(options: Options) -> None:
    """Write the page of the runs that the options name."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # a run may be training on the accelerator right now
    from maskgil_jax.reporting import page

    page.write(options.runs, options.output)


if __name__ == "__main__":
    command.start(main)
