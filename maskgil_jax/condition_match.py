"""Whether a generator heeds its condition: python -m maskgil_jax.condition_match --model=D ...

How often the codes of an image are likelier under its own caption, recording or class than under
those of another image, on code shards that the model was not trained on.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import MatchOptions as Options


def main(argv: Sequence[str]) -> int:
    """Measure; returns the exit code."""
    return command.run(argv, Options, match, __doc__)


def match(options: Options) -> None:
    """Measure the generator that the options name."""
    from maskgil_jax.workflows import condition_match

    condition_match.match(options)


if __name__ == "__main__":
    command.start(main)
