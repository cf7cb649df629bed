"""What runs have left, in one page: python -m maskgil_jax.report --runs=D1,D2 --output=DIR.

The page is DIR/index.html, one file with all its pictures, to be read, printed and mailed.
"""

import logging
import os

from absl import flags

from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, read the directories, write the page."""
    values = flags.FLAGS
    output = command.required("output")
    if not values.runs:
        raise InputError("--runs is missing (directories, as in --runs=RUNS/b,RUNS/ar_b)")
    os.environ["JAX_PLATFORMS"] = "cpu"  # a run may be training on the accelerator right now
    from maskgil_jax.reporting import page

    path = page.write(values.runs, output)
    log.info("wrote %s, %.1f MB", path, path.stat().length / 1e6)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_list(
        "runs",
        [],
        "work directories of training, and directories that sample, evaluate, reconstruct, "
        "compare, sweep, scaling or plan have written to",
    )
    flags.DEFINE_string("output", None, "directory for index.html")


if __name__ == "__main__":
    define_flags()
    command.run(main)
