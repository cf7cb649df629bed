"""Decoding options against quality and time.

python -m maskgil_jax.sweep --model=DIR --vary=guidance=1,2,3 --vary=steps=4,8,16 --output=DIR
    --reference=SOURCE
python -m maskgil_jax.sweep --model=DIR --method=hybrid --prefix_model=DIR --vary=prefix=0,64,128
    --steps=4 --output=DIR --reference=SOURCE

One that was cut short goes on where it was when it is started again.
"""

import itertools
import logging
from typing import Any

from absl import flags
from etils import epath

from maskgil_jax import evaluate, sample
from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, sweep, print the table."""
    command.in_processes(sweep)


def sweep() -> None:
    """Measure every setting that the flags ask for."""
    values = flags.FLAGS
    reference, output = command.required("reference"), command.required("output")
    varied = [parse_varied(text) for text in values.vary]
    if not varied:
        raise InputError("--vary is missing (an option and its values, as in --vary=guidance=1,2)")
    names = [name for name, _ in varied]
    settings = [
        dict(zip(names, chosen, strict=True))
        for chosen in itertools.product(*(choices for _, choices in varied))
    ]
    models = evaluate.models()
    rows = evaluate.asked(models.generator)  # once: it may read an encoder and many recordings
    sets = [(setting, evaluate.drawn(models, setting, rows)) for setting in settings]
    from maskgil_jax.runtime import processes
    from maskgil_jax.workflows import decoding_sweep

    decoding_sweep.write_sweep(sets, reference, output, evaluate.settings_of_flags())
    if processes.first():
        print((epath.Path(output) / "sweep.md").read_text(), end="")
        log.info("wrote table and plots to %s", output)


def parse_varied(text: str) -> tuple[str, list[Any]]:
    """`"steps=4,8"` as a decoding flag and its values.

    Raises:
      InputError: no such flag, or values that it does not take.
    """
    name, _, choices = text.partition("=")
    if name not in sample.DECODING or not choices:
        raise InputError(
            f"--vary={text}: expected NAME=VALUE,VALUE with one of {', '.join(sample.DECODING)}"
        )
    try:
        return name, [flags.FLAGS[name].parser.parse(choice) for choice in choices.split(",")]
    except ValueError as error:
        raise InputError(f"--vary={text}: {error}") from None


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_multi_string("vary", [], "NAME=VALUE,VALUE of a decoding flag; several multiply")
    flags.DEFINE_string("reference", None, "F.npz, a folder of images, or a data source")
    flags.DEFINE_string("output", None, "directory for table and plots")
    evaluate.define_drawing_flags(images=1000)
    evaluate.define_metric_flags()
    command.define_process_flags()


if __name__ == "__main__":
    define_flags()
    command.run(main, goes_on=True)
