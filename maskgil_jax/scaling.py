"""How the loss falls with size, data and compute.

python -m maskgil_jax.scaling --config=configs/small_generators.py:llama --workdir=RUNS
    --sizes=1x16,1x32,2x48,3x64 --steps=400,800,1600 --codes=VALIDATION_CODES --output=DIR
    [--plans=b.json,xxl.json] [--config.x.y=value]

Trains each size for each number of steps, in RUNS/SIZE-STEPS, with a learning rate schedule of its
own; runs that are there already are read.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import ScalingOptions as Options


def main(argv: Sequence[str]) -> int:
    """Study; returns the exit code."""
    return command.run(argv, Options, study, __doc__, goes_on=True)


def study(options: Options) -> None:
    """Train and measure the runs that the options name."""
    from maskgil_jax.workflows import scaling_study

    scaling_study.study(options)


if __name__ == "__main__":
    command.start(main)
