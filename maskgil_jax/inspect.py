"""What a data source holds, and a picture of it: python -m maskgil_jax.inspect --data=SOURCE.

Counts, classes in their order, captions, sizes, and what is not used and why; with --output a PNG
of 32 examples as a training step would see them.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import InspectOptions as Options


def main(argv: Sequence[str]) -> int:
    """Inspect; returns the exit code."""
    return command.run(argv, Options, inspect, __doc__)


def inspect(options: Options) -> None:
    """Look at the source that the options name."""
    from maskgil_jax.workflows import inspection

    inspection.inspect(options)


if __name__ == "__main__":
    command.start(main)
