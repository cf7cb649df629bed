"""Conditions to images: python -m maskgil_jax.sample --model=DIR --classes=207,360 --output=DIR."""

import dataclasses
import logging
from typing import Any

import numpy as np
from absl import flags

from maskgil_jax import command
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")

METHODS = {"masked": "masked", "causal": "autoregressive"}  # of a model of each kind


def main() -> None:
    """Parse the flags, draw, say where the images are."""
    values = flags.FLAGS
    model, output = command.required("model"), command.required("output")
    classes = np.array([parse_class(text) for text in values.classes], np.int64)
    if not len(classes):
        raise InputError("--classes is missing (class ids, as in --classes=207,360)")
    from maskgil_jax.decoding import draw

    generator, tokenizer = draw.load_pair(model, values.tokenizer)
    draw.write_samples(
        chosen_sampler(generator, values),
        generator,
        tokenizer,
        output,
        classes=classes,
        per_class=values.num,
        batch_size=values.batch_size,
    )
    log.info("wrote %d images to %s", len(classes) * values.num, output)


def chosen_sampler(generator: Any, values: flags.FlagValues) -> Any:
    """The sampler that the flags ask for.

    Raises:
      InputError: flags that do not fit the model or one another.
    """
    from maskgil_jax import api
    from maskgil_jax.decoding import draw, masked

    method = values.method or METHODS[generator.kind]
    needed = "causal" if method == "autoregressive" else "masked"
    if generator.kind != needed:
        raise InputError(
            f"--method={method} needs a {needed} model, but --model={values.model} is "
            f"{generator.kind}"
        )
    given = {
        name: values[name].value
        for name in (*draw.options_of(causal=False), "guidance_interval")
        if values[name].value is not None
    }
    if unknown := sorted(given.keys() - set(draw.options_of(method == "autoregressive"))):
        raise InputError(f"--{unknown[0]} is not an option of --method={method}")
    prefix_options = {
        name: values[f"prefix_{name}"].value
        for name in draw.options_of(causal=True)
        if values[f"prefix_{name}"].value is not None
    }
    if values.preset:
        if method == "autoregressive" or values.preset not in masked.PRESETS:
            raise InputError(
                f"--preset={values.preset}: expected one of {', '.join(masked.PRESETS)}, for "
                "masked decoding"
            )
        given = dataclasses.asdict(masked.PRESETS[values.preset]) | given
    if method != "hybrid":
        if values.prefix_model or prefix_options or values.prefix is not None:
            raise InputError(f"--prefix and --prefix_... are of --method=hybrid, not {method}")
        return draw.sampler(generator, values.seed, **given)
    causal = api.load_generator(command.required("prefix_model"))
    if values.prefix is None:
        raise InputError("--prefix is missing (tokens drawn one by one, as in --prefix=128)")
    return draw.hybrid_sampler(
        causal,
        generator,
        values.seed,
        prefix=values.prefix,
        prefix_options=prefix_options,
        **given,
    )


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
    define_decoding_flags()


def define_decoding_flags() -> None:
    """How to decode; what is not given has the defaults of the method."""
    flags.DEFINE_enum(
        "method",
        None,
        [*METHODS.values(), "hybrid"],
        "hybrid: a prefix token by token, the rest masked; default: by the model",
    )
    flags.DEFINE_string("preset", "", "published settings of masked decoding, such as titok_l32")
    flags.DEFINE_integer("steps", None, "steps of masked decoding (8)")
    flags.DEFINE_string("rule", None, "maskgil, maskgit, halton, titok, maskbit")
    flags.DEFINE_string("schedule", None, "of the number of revealed tokens (arccos)")
    flags.DEFINE_float("guidance", None, "scale s of u + s (c - u); 1: none")
    flags.DEFINE_string("guidance_ramp", None, "constant, linear, cosine, power_cosine (linear)")
    flags.DEFINE_float("guidance_power", None, "of power_cosine (3)")
    flags.DEFINE_integer("guidance_interval", None, "guided tokens after the first; -1: all")
    flags.DEFINE_float("temperature", None, "divides the logits (1); 0 is greedy token by token")
    flags.DEFINE_string("temperature_schedule", None, "constant, titok, halton (constant)")
    flags.DEFINE_float("choice_temperature", None, "scale of the noise on the confidence (4.5)")
    flags.DEFINE_integer("top_k", None, "codes drawn from; 0: all")
    flags.DEFINE_float("top_p", None, "the fewest codes that reach this probability; 1: all")
    flags.DEFINE_bool("resample", None, "draw revealed tokens anew at every step")
    flags.DEFINE_string("prefix_model", None, "causal generator directory, for hybrid decoding")
    flags.DEFINE_integer("prefix", None, "tokens drawn one by one, for hybrid decoding")
    flags.DEFINE_float("prefix_guidance", None, "of the prefix (2)")
    flags.DEFINE_integer("prefix_guidance_interval", None, "of the prefix (-1)")
    flags.DEFINE_float("prefix_temperature", None, "of the prefix (1)")
    flags.DEFINE_integer("prefix_top_k", None, "of the prefix (0)")
    flags.DEFINE_float("prefix_top_p", None, "of the prefix (1)")


if __name__ == "__main__":
    define_flags()
    command.run(main)
