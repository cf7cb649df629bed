"""Images to code shards: python -m maskgil_jax.tokenize --tokenizer=T --data=SOURCE --output=D."""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import TokenizeOptions as Options


def main(argv: Sequence[str]) -> int:
    """Write shards; returns the exit code."""
    return command.run(argv, Options, tokenize, __doc__, goes_on=True)


def tokenize(options: Options) -> None:
    """Encode the images that the options name."""
    from maskgil_jax.workflows import tokenizing

    tokenizing.tokenize(options)


if __name__ == "__main__":
    command.start(main)
