"""Train tokenizers and generators, and draw and measure what they make.

python -m maskgil_jax.main --config=configs/b.py --workdir=DIR [--config.x.y=value]

The same command resumes where WORKDIR stands; where the training is done, it draws what is missing
and measures again. Every field of a config, with its meaning and default, stands in
maskgil_jax/config.py.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import RunOptions as Options


def main(argv: Sequence[str]) -> int:
    """Run the stages of a config; returns the exit code."""
    return command.run(argv, Options, train, __doc__, goes_on=True)


def train(options: Options) -> None:
    """Run the config that the options name."""
    from maskgil_jax.workflows import run

    run.run_and_print(options)


if __name__ == "__main__":
    command.start(main)
