"""Images to features and their statistics, once for all evaluations against them.

python -m maskgil_jax.features --data=folder:IMAGENET/train --image_size=256 --inception=DIR
    --output=train.npz

Then maskgil_jax.evaluate --reference=train.npz. One that was cut short goes on where it was when it
is started again.
"""

from collections.abc import Sequence

from maskgil_jax.evaluation.options import FeaturesOptions as Options
from maskgil_jax.runtime import command


def main(argv: Sequence[str]) -> int:
    """Compute features; returns the exit code."""
    return command.run(argv, Options, compute, __doc__, goes_on=True)


def compute(options: Options) -> None:
    """Compute the features of what the options name."""
    from maskgil_jax.evaluation import feature_files

    feature_files.write_features(options)


if __name__ == "__main__":
    command.start(main)
