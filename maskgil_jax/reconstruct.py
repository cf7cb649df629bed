"""Tokenizers compared: python -m maskgil_jax.reconstruct --tokenizers=D1,D2 --data=S --output=D.

A comparison that was stopped goes on where it was when it is started again.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import ReconstructOptions as Options


def main(argv: Sequence[str]) -> int:
    """Reconstruct and compare; returns the exit code."""
    return command.run(argv, Options, reconstruct, __doc__, goes_on=True)


def reconstruct(options: Options) -> None:
    """Reconstruct images with the tokenizers that the options name."""
    from maskgil_jax.workflows import tokenizer_comparison

    tokenizer_comparison.compare(options)


if __name__ == "__main__":
    command.start(main)
