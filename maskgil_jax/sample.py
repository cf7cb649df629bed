"""Conditions to images: python -m maskgil_jax.sample --model=DIR --classes=207,360 --output=DIR."""

import logging

import numpy as np
from absl import flags

from maskgil_jax import command
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, draw, say where the images are."""
    values = flags.FLAGS
    model, output = command.required("model"), command.required("output")
    classes = np.array([parse_class(text) for text in values.classes], np.int64)
    if not len(classes):
        raise InputError("--classes is missing (class ids, as in --classes=207,360)")
    from maskgil_jax.decoding import draw

    draw.write_samples(
        model,
        values.tokenizer,
        output,
        classes=classes,
        per_class=values.num,
        seed=values.seed,
        batch_size=values.batch_size,
        **{name: values[name].value for name in draw.OPTIONS},
    )
    log.info("wrote %d images to %s", len(classes) * values.num, output)


def parse_class(text: str) -> int:
    """A class id.

    Raises:
      InputError: not a whole number.
    """
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--classes: {text!r} is not a class id (a whole number)") from None


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("model", None, "generator directory")
    flags.DEFINE_string("tokenizer", "", "tokenizer directory; default: the generator's own")
    flags.DEFINE_string("output", None, "directory for the images")
    flags.DEFINE_list("classes", [], "class ids")
    flags.DEFINE_integer("num", 8, "images per class", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "images drawn at once", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of all draws")
    flags.DEFINE_integer("steps", 8, "decoding steps")
    flags.DEFINE_float("guidance", 3.0, "scale s of u + s (c - u); 1: none")
    flags.DEFINE_enum("guidance_ramp", "linear", ["constant", "linear", "cosine"], "of the scale")
    flags.DEFINE_string("schedule", "arccos", "of the number of revealed tokens")
    flags.DEFINE_enum("rule", "maskgil", ["maskgil", "maskgit"], "counts and noise of decoding")
    flags.DEFINE_float("temperature", 1.0, "divides the logits")
    flags.DEFINE_float("choice_temperature", 4.5, "scale of the noise on the confidence")


if __name__ == "__main__":
    define_flags()
    command.run(main)
