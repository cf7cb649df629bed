"""Conditions to images: python -m maskgil_jax.sample --model=DIR --classes=207,360 --output=DIR.

A model of text or speech takes features that were computed beforehand: --features=A.npy,B.npy.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
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
    if bool(values.classes) == bool(values.features):
        raise InputError(
            "--classes=207,360 (class ids) or --features=A.npy,B.npy is missing, or both are given"
        )
    from maskgil_jax.decoding import draw

    generator, tokenizer = draw.load_pair(model, values.tokenizer)
    if values.features:
        table = read_features(generator, values.features)
        labels, names = np.arange(len(values.features)), values.features
    else:
        check_classes(generator, classes)
        table, labels = None, classes
        names = generator.class_names or [str(c) for c in range(generator.num_classes)]
    grid = parse_size(values.size, tokenizer.downsample) if values.size else None
    draw.write_samples(
        chosen_sampler(generator, given_options(), values.seed, table, grid),
        tokenizer,
        output,
        labels=labels,
        names=names,
        per_label=values.num,
        batch_size=values.batch_size,
    )
    log.info("wrote %d images to %s", len(labels) * values.num, output)


def check_classes(generator: Any, classes: np.ndarray) -> None:
    """Raise InputError unless a generator has classes, and these among them."""
    last = generator.num_classes - 1
    if last < 0:
        raise InputError("--model is conditioned on features, not on classes")
    if not 0 <= min(classes) <= max(classes) <= last:
        raise InputError(f"class ids from {min(classes)} to {max(classes)}, expected 0 to {last}")


def read_features(generator: Any, paths: Sequence[str]) -> Any:
    """Features of these files, as the generator takes them.

    Raises:
      InputError: it takes classes, or other features.
    """
    import jax.numpy as jnp

    from maskgil_jax.data import features
    from maskgil_jax.errors import Unreadable
    from maskgil_jax.models.conditions import Features

    config = generator.network.config
    if generator.num_classes:
        raise InputError("--model is conditioned on classes: expected --classes=207,360")
    try:
        found = [
            features.read_file(path, config.condition_tokens, config.feature_dim) for path in paths
        ]
    except Unreadable as error:
        raise InputError(f"--features: {error}") from None
    return Features(*(jnp.stack(arrays) for arrays in zip(*found, strict=True)))


def given_options() -> dict[str, Any]:
    """The decoding flags that were given, by name."""
    return {name: flags.FLAGS[name].value for name in DECODING if flags.FLAGS[name].present}


def chosen_sampler(
    generator: Any,
    given: Mapping[str, Any],
    seed: int,
    table: Any = None,
    grid: tuple[int, int] | None = None,
) -> Any:
    """The sampler that decoding flags ask for.

    Args:
      generator: the model.
      given: flags by name.
      seed: of all draws.
      table: features, as in draw.sampler.
      grid: (height, width) in tokens; None: the model's own.

    Raises:
      InputError: flags that do not fit the model or one another.
    """
    from maskgil_jax import api
    from maskgil_jax.decoding import draw, masked

    options = dict(given)
    method = options.pop("method", METHODS[generator.kind])
    needed = "causal" if method == "autoregressive" else "masked"
    if generator.kind != needed:
        raise InputError(
            f"--method={method} needs a {needed} model, but --model is {generator.kind}"
        )
    preset = options.pop("preset", "")
    if preset:
        if method == "autoregressive" or preset not in masked.PRESETS:
            raise InputError(
                f"--preset={preset}: expected one of {', '.join(masked.PRESETS)}, for masked "
                "decoding"
            )
        options = dataclasses.asdict(masked.PRESETS[preset]) | options
    prefix = options.pop("prefix", None)
    prefix_model = options.pop("prefix_model", "")
    prefix_options = {
        name.removeprefix("prefix_"): options.pop(name)
        for name in list(options)
        if name.startswith("prefix_")
    }
    if unknown := sorted(options.keys() - set(draw.options_of(method == "autoregressive"))):
        raise InputError(f"--{unknown[0]} is not an option of --method={method}")
    if method != "hybrid":
        if prefix_model or prefix_options or prefix is not None:
            raise InputError(f"--prefix and --prefix_... are of --method=hybrid, not {method}")
        return draw.sampler(generator, seed, table, grid=grid, **options)
    if prefix is None or not prefix_model:
        raise InputError(
            "--method=hybrid needs --prefix=N (tokens drawn one by one) and --prefix_model=DIR"
        )
    return draw.hybrid_sampler(
        api.load_generator(prefix_model),
        generator,
        seed,
        prefix=prefix,
        prefix_options=prefix_options,
        table=table,
        grid=grid,
        **options,
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


def parse_size(text: str, downsample: int) -> tuple[int, int]:
    """The grid, (height, width) in tokens, of images of WIDTHxHEIGHT pixels.

    Raises:
      InputError: no size, or one that is not in whole tokens.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise InputError(f"--size={text}, expected WIDTHxHEIGHT in pixels, such as 512x256")
    width, height = map(int, sides)
    if width % downsample or height % downsample:
        raise InputError(
            f"--size={text}, expected multiples of {downsample} (the tokenizer's downsampling)"
        )
    return height // downsample, width // downsample


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("model", None, "generator directory")
    flags.DEFINE_string("tokenizer", "", "tokenizer directory; default: the generator's own")
    flags.DEFINE_string("output", None, "directory for the images")
    flags.DEFINE_list("classes", [], "class ids")
    flags.DEFINE_list("features", [], "instead of classes: .npy files, float [T, C]")
    flags.DEFINE_string(
        "size",
        "",
        "WIDTHxHEIGHT of the images in pixels, such as 512x256; default: the square that the model "
        "was trained on",
    )
    flags.DEFINE_integer("num", 8, "images per class or file", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "images drawn at once", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of all draws")
    define_decoding_flags()


def define_decoding_flags() -> None:
    """How to decode; what is not given has the defaults of the method."""
    for name, (define, text) in DECODING.items():
        define(name, None, text)


DECODING: dict[str, tuple[Callable[..., Any], str]] = {
    "method": (
        flags.DEFINE_string,
        "masked, autoregressive, or hybrid: a prefix token by token, the rest masked; default: by "
        "the model",
    ),
    "preset": (flags.DEFINE_string, "published settings of masked decoding, such as titok_l32"),
    "steps": (flags.DEFINE_integer, "steps of masked decoding (8)"),
    "rule": (flags.DEFINE_string, "maskgil, maskgit, halton, titok, maskbit (maskgil)"),
    "schedule": (flags.DEFINE_string, "of the number of revealed tokens (arccos)"),
    "guidance": (flags.DEFINE_float, "scale s of u + s (c - u); 1: none (3; token by token 2)"),
    "guidance_form": (
        flags.DEFINE_string,
        "scale; or weight, where guidance is w of (1 + w) c - w u and 0 is none (scale)",
    ),
    "guidance_ramp": (flags.DEFINE_string, "constant, linear, cosine, power_cosine (linear)"),
    "guidance_power": (flags.DEFINE_float, "of power_cosine (3)"),
    "guidance_interval": (flags.DEFINE_integer, "guided tokens after the first; -1: all (-1)"),
    "temperature": (flags.DEFINE_float, "divides the logits; 0: greedy, token by token (1)"),
    "temperature_schedule": (flags.DEFINE_string, "constant, titok, halton (constant)"),
    "choice_temperature": (flags.DEFINE_float, "scale of the noise on the confidence (4.5)"),
    "top_k": (flags.DEFINE_integer, "codes drawn from; 0: all (0)"),
    "top_p": (flags.DEFINE_float, "the fewest codes that reach this probability; 1: all (1)"),
    "resample": (flags.DEFINE_bool, "draw revealed tokens anew at every step (no)"),
    "prefix_model": (flags.DEFINE_string, "causal generator directory, for hybrid decoding"),
    "prefix": (flags.DEFINE_integer, "tokens drawn one by one, for hybrid decoding"),
    "prefix_guidance": (flags.DEFINE_float, "of the prefix (2)"),
    "prefix_guidance_interval": (flags.DEFINE_integer, "of the prefix (-1)"),
    "prefix_temperature": (flags.DEFINE_float, "of the prefix (1)"),
    "prefix_top_k": (flags.DEFINE_integer, "of the prefix (0)"),
    "prefix_top_p": (flags.DEFINE_float, "of the prefix (1)"),
}


if __name__ == "__main__":
    define_flags()
    command.run(main)
