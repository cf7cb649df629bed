"""Images, or a generator, to metrics.

python -m maskgil_jax.evaluate --samples=F.npz --reference=F.npz --output=F.json
python -m maskgil_jax.evaluate --model=DIR --num=50000 --protocol=adm --inception=DIR
    --reference=VIRTUAL_imagenet256_labeled.npz --output=F.json

One that was cut short goes on where it was when it is started again.
"""

from collections.abc import Sequence

from maskgil_jax.evaluation.options import EvaluateOptions as Options
from maskgil_jax.runtime import command


def main(argv: Sequence[str]) -> int:
    """Measure; returns the exit code."""
    return command.run(argv, Options, evaluate, __doc__, goes_on=True)


def evaluate(options: Options) -> None:
    """Measure what the options name."""
    from maskgil_jax.evaluation import requests

    requests.evaluate(options)


if __name__ == "__main__":
    command.start(main)
