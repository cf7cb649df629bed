"""Decoding options against quality and time.

python -m maskgil_jax.sweep --model=DIR --vary=guidance=1,2,3 --vary=steps=4,8,16 --output=DIR
    --reference=SOURCE
python -m maskgil_jax.sweep --model=DIR --method=hybrid --prefix_model=DIR --vary=prefix=0,64,128
    --steps=4 --output=DIR --reference=SOURCE
"""

import itertools
import logging
from typing import Any

import numpy as np
from absl import flags

from maskgil_jax import command, sample
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, sweep, print the table."""
    values = flags.FLAGS
    model, reference = command.required("model"), command.required("reference")
    output = command.required("output")
    varied = [parse_varied(text) for text in values.vary]
    if not varied:
        raise InputError("--vary is missing (an option and its values, as in --vary=guidance=1,2)")
    names = [name for name, _ in varied]
    settings = [
        dict(zip(names, chosen, strict=True))
        for chosen in itertools.product(*(choices for _, choices in varied))
    ]
    from etils import epath

    from maskgil_jax.decoding import draw
    from maskgil_jax.metrics import sweep

    generator, tokenizer = draw.load_pair(model, values.tokenizer)
    classes = np.array([sample.parse_class(text) for text in values.classes], np.int64)
    if not len(classes):
        classes = np.arange(generator.num_classes)
    sample.check_classes(generator, classes)
    given = sample.given_options()
    samplers = [
        (setting, sample.chosen_sampler(generator, given | setting, values.seed))
        for setting in settings
    ]
    sweep.write_sweep(
        samplers,
        generator,
        tokenizer,
        reference,
        output,
        labels=np.tile(classes, -(-values.num // len(classes)))[: values.num],
        batch_size=values.batch_size,
        metrics=values.metrics,
        inception=values.inception,
        network=values.features,
    )
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
    flags.DEFINE_string("model", None, "generator directory")
    flags.DEFINE_string("tokenizer", "", "tokenizer directory; default: the generator's own")
    flags.DEFINE_multi_string("vary", [], "NAME=VALUE,VALUE of a decoding flag; several multiply")
    flags.DEFINE_string("reference", None, "F.npz, a folder of images, or a data source")
    flags.DEFINE_list("metrics", ["frechet", "pr"], "as maskgil_jax.evaluate")
    flags.DEFINE_string("inception", "", "Inception directory, as maskgil_jax.evaluate")
    flags.DEFINE_string("features", "", "MODULE:FUNCTION, as maskgil_jax.evaluate")
    flags.DEFINE_string("output", None, "directory for table and plots")
    flags.DEFINE_list("classes", [], "class ids; default: all")
    flags.DEFINE_integer("num", 1000, "images of each setting, over the classes", lower_bound=2)
    flags.DEFINE_integer("batch_size", 64, "images drawn at once", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of all draws")
    sample.define_decoding_flags()


if __name__ == "__main__":
    define_flags()
    command.run(main)
