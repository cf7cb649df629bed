"""Decoding options against quality and time.

python -m maskgil_jax.sweep --model=DIR --vary=guidance=1,2,3 --vary=steps=4,8,16 --output=DIR
    --reference=SOURCE
python -m maskgil_jax.sweep --model=DIR --method=hybrid --prefix_model=DIR --vary=prefix=0,64,128
    --steps=4 --output=DIR --reference=SOURCE

A model that was trained on both tasks needs no --prefix_model. A sweep that was cut short goes on
where it was when it is started again.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import SweepOptions as Options


def main(argv: Sequence[str]) -> int:
    """Sweep; returns the exit code."""
    return command.run(argv, Options, sweep, __doc__, goes_on=True)


def sweep(options: Options) -> None:
    """Measure every setting that the options ask for."""
    from maskgil_jax.workflows import decoding_sweep

    decoding_sweep.sweep(options)


if __name__ == "__main__":
    command.start(main)
