"""Conditions to images: python -m maskgil_jax.sample --model=DIR --classes=207,360 --output=DIR.

A model of text takes --prompts=FILE, a prompt a line, one of speech --speech=A.wav,B.mp3. One of
features that were computed elsewhere takes those: --features=A.npy,B.npy. --layout=geneval and dpg
lay the images out as these benchmarks take them. A draw that was stopped
goes on where it was when it is started again, unless it is of --speech.
"""

from collections.abc import Sequence

from maskgil_jax.generation.options import SampleOptions as Options
from maskgil_jax.runtime import command


def main(argv: Sequence[str]) -> int:
    """Draw; returns the exit code."""
    return command.run(argv, Options, draw, __doc__, goes_on=True)


def draw(options: Options) -> None:
    """Draw what the options ask for."""
    from maskgil_jax.generation import sampling

    sampling.sample(options)


if __name__ == "__main__":
    command.start(main)
