"""Generators compared: python -m maskgil_jax.compare --models=D1,D2 --codes=D --output=D ..."""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import CompareOptions as Options


def main(argv: Sequence[str]) -> int:
    """Compare; returns the exit code."""
    return command.run(argv, Options, compare, __doc__, goes_on=True)


def compare(options: Options) -> None:
    """Compare the generators that the options name."""
    from maskgil_jax.workflows import generator_comparison

    generator_comparison.compare(options)


if __name__ == "__main__":
    command.start(main)
