"""A grid of runs and measurements: one table, figures and a page.

python -m maskgil_jax.study --config=configs/studies/norms.py:small --workdir=DIR
    [--runs=DIR] [--dry_run] [--only=CELL] [--config.x.y=value]

Trains the runs that are not there, draws and measures every cell. A study that was cut short goes
on when the same command is started again; started several times at once, also on several machines
that share the directories, it is divided among them. configs/studies has the paper's studies.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import StudyOptions as Options


def main(argv: Sequence[str]) -> int:
    """Study; returns the exit code."""
    return command.run(argv, Options, study, __doc__, goes_on=True)


def study(options: Options) -> None:
    """Do the study that the options name, and write its page."""
    from maskgil_jax.reporting import page
    from maskgil_jax.workflows import study

    if shown := study.study(options):
        page.write([*map(str, shown.values())], f"{options.workdir}/page", [*shown])


if __name__ == "__main__":
    command.start(main)
