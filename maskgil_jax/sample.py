"""Conditions to images: python -m maskgil_jax.sample --model=DIR --classes=207,360 --output=DIR.

A model of text takes --prompts=FILE, a prompt a line, one of speech --speech=A.wav,B.mp3. One of
features that were computed elsewhere takes those: --features=A.npy,B.npy. A draw that was stopped
goes on where it was when it is started again, unless it is of --speech.
"""

import dataclasses
import logging
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

CONDITIONS = ("classes", "prompts", "speech", "features")  # flags of which one is given
METHODS = {"masked": "masked", "causal": "autoregressive"}  # of a model of each kind


def main() -> None:
    """Parse the flags, draw, say where the images are."""
    values = flags.FLAGS
    model, output = command.required("model"), command.required("output")
    given = [name for name in CONDITIONS if values[name].value]
    if len(given) != 1:
        raise InputError(
            "one of --classes=207,360 (class ids), --prompts=FILE, --speech=A.wav,B.mp3 and "
            f"--features=A.npy is expected, {' and '.join('--' + n for n in given) or 'none'} given"
        )
    for name, goes_with in (("negative_prompt", "prompts"), ("recognizer", "speech")):
        if values[name].value is not None and given != [goes_with]:
            raise InputError(f"--{name} goes with --{goes_with}, not with --{given[0]}")
    classes = np.array([parse_class(text) for text in values.classes], np.int64)
    prompts = read_prompts(values.prompts) if values.prompts else []
    utterances = heard(values.speech, values.silence) if values.speech else None
    from maskgil_jax.generation import samplers, samples

    generator, tokenizer = samplers.load_pair(model, values.tokenizer, values.verify)
    grid = parse_size(values.size, tokenizer.downsample) if values.size else None
    if utterances is not None:
        speak(generator, tokenizer, utterances, grid)
        return
    about: dict[str, Any] = {}  # of the conditions, besides their labels
    conditions: samplers.Conditions = samplers.by_class
    negative: samplers.Conditions | None = None
    names: Sequence[str] = prompts or values.features
    if prompts:
        conditions, negative = of_text(generator, values.encoder, prompts, values.negative_prompt)
        labels = np.arange(len(prompts))
        about = {"prompts": prompts, "negative_prompt": values.negative_prompt}
    elif values.features:
        features = read_features(generator, values.features)
        conditions = samplers.rows_of(features)
        labels = np.arange(len(values.features))
        from maskgil_jax.pretrained import model_directory

        about = {"features": model_directory.fingerprint(features._asdict())}
    else:
        check_classes(generator, classes)
        labels = classes
        names = generator.names_of_classes
    height, width = grid or generator.grid
    samples.write_samples(
        chosen_sampler(generator, given_options(), values.seed, conditions, negative, grid),
        tokenizer,
        output,
        settings=samples.settings_of(generator, tokenizer, **drawn_with(), **about),
        size=(height * tokenizer.downsample, width * tokenizer.downsample),
        labels=labels,
        names=names,
        per_label=values.num,
        batch_size=values.batch_size,
    )
    log.info("wrote %d images to %s", len(labels) * values.num, output)


def speak(
    generator: Any,
    tokenizer: Any,
    utterances: Iterator[tuple[str, Any]],
    grid: tuple[int, int] | None,
) -> None:
    """Draw what is said, as --speech asks for it."""
    from maskgil_jax.conditioning import choice
    from maskgil_jax.generation import live_speech, samples

    values, options = flags.FLAGS, given_options()
    live_speech.draw_spoken(
        utterances,
        choice.hearing(generator, values.encoder, values.recognizer, values.verify),
        lambda of: chosen_sampler(generator, options, values.seed, conditions=of, grid=grid),
        tokenizer,
        values.output,
        settings=samples.settings_of(generator, tokenizer, **drawn_with()),
        count=values.num,
        live=values.speech == ["-"],
    )


def heard(paths: Sequence[str], silence: float) -> Iterator[tuple[str, Any]]:
    """Recordings, or with "-" the utterances of raw sound at the standard input, one by one.

    Raises:
      InputError: a file that is not there or not usable audio; before the first is given.
    """
    from maskgil_jax.data.sound import audio, utterances
    from maskgil_jax.runtime.errors import Unreadable

    if list(paths) == ["-"]:
        stream = utterances.from_stream(sys.stdin.buffer, silence)
        return ((f"utterance {i}", utterance) for i, utterance in enumerate(stream))
    found = []
    for path in paths:
        try:
            waveform = audio.decode(audio.read_file(path))
            found.append((path, utterances.Utterance(waveform, 0.0)))
        except Unreadable as error:
            raise InputError(f"--speech={path}: {error}") from None
    return iter(found)


def read_prompts(path: str) -> list[str]:
    """The lines of a file of prompts, without the blank ones.

    Messages name lines by their numbers in the file, and where blank lines lie between prompts,
    the log says on which lines these are.

    Raises:
      InputError: no such file, not UTF-8, no prompt in it, or one that is too long.
    """
    from etils import epath

    from maskgil_jax.data.records import captions
    from maskgil_jax.runtime.errors import Unreadable

    try:
        lines = captions.lines(captions.decode(epath.Path(path).read_bytes()))
    except (OSError, Unreadable) as error:
        raise InputError(f"--prompts={path}: {error}") from None
    prompts: list[str] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, 1):
        if captions.is_blank(line):
            continue
        try:
            prompts += captions.checked([line])
        except Unreadable as error:
            raise InputError(f"--prompts={path}: line {number}: {error}") from None
        numbers.append(number)
    if not prompts:
        raise InputError(f"--prompts={path}: no line of it is a prompt")
    if numbers[-1] > len(numbers):
        log.info("%s: %d prompts, on lines %s", path, len(prompts), _ranges(numbers))
    return prompts


def _ranges(numbers: Sequence[int], most: int = 20) -> str:
    """Ascending numbers such as 1-3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    texts = [f"{first}-{last}" if last > first else f"{first}" for first, last in parts[:most]]
    return ", ".join(texts) + (", ..." if len(parts) > most else "")


def of_text(
    generator: Any, encoder: str, prompts: Sequence[str], negative: str | None
) -> tuple[Callable[[np.ndarray], Any], Callable[[np.ndarray], Any] | None]:
    """Conditions of labels that are places in `prompts`, and the negative ones, if any.

    Raises:
      InputError: the generator is not of text, or its encoder is not there.
    """
    from maskgil_jax.conditioning import choice
    from maskgil_jax.pretrained.text_encoder import TextEncoder

    text_encoder = choice.encoder_of(generator, encoder, flags.FLAGS.verify)
    if not isinstance(text_encoder, TextEncoder):
        raise InputError("--prompts: --model is conditioned on speech, expected --speech=A.wav")
    tokens = generator.network.config.condition_tokens

    def conditions(labels: np.ndarray) -> Any:
        return text_encoder.features([prompts[label] for label in labels], tokens)

    if negative is None:
        return conditions, None
    return conditions, lambda labels: text_encoder.features([negative] * len(labels), tokens)


def of_speech(
    generator: Any, encoder: str, recordings: Sequence[pathlib.Path]
) -> Callable[[np.ndarray], Any]:
    """Conditions of labels that are places in `recordings`, which are read when they are drawn.

    Raises:
      InputError: the generator is not of speech, or its encoder is not there.
    """
    from maskgil_jax.conditioning import choice, speech
    from maskgil_jax.data.sound import audio
    from maskgil_jax.pretrained.text_encoder import TextEncoder

    speech_encoder = choice.encoder_of(generator, encoder, flags.FLAGS.verify)
    if isinstance(speech_encoder, TextEncoder):
        raise InputError("--speech: --model is conditioned on text, expected --prompts=FILE")
    config = generator.network.config

    def conditions(labels: np.ndarray) -> Any:
        waveforms = [audio.decode(audio.read_file(recordings[label])) for label in labels]
        return speech.features(
            speech_encoder, waveforms, config.condition_tokens, config.feature_dim
        )

    return conditions


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

    from maskgil_jax.data.companions import features
    from maskgil_jax.models.token_models.conditions import Features
    from maskgil_jax.runtime.errors import Unreadable

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


def drawn_with() -> dict[str, Any]:
    """What images depend on besides models and conditions: the seed and the decoding flags."""
    options = given_options()
    about = {"seed": flags.FLAGS.seed, "options": options}
    if prefix_model := options.get("prefix_model"):
        from maskgil_jax.pretrained import model_directory

        description = model_directory.read_description(prefix_model)
        about["prefix_model"] = description.get("fingerprint", "")
    return about


def given_options() -> dict[str, Any]:
    """The decoding flags that were given, by name."""
    return {name: flags.FLAGS[name].value for name in DECODING if flags.FLAGS[name].present}


def chosen_sampler(
    generator: Any,
    given: Mapping[str, Any],
    seed: int,
    conditions: Callable[[np.ndarray], Any] | None = None,
    negative: Callable[[np.ndarray], Any] | None = None,
    grid: tuple[int, int] | None = None,
    placed: Callable[[Any], Any] = lambda model: model,
) -> Any:
    """The sampler that decoding flags ask for.

    Args:
      generator: the model.
      given: flags by name.
      seed: of all draws.
      conditions, negative: as in draw.sampler; None: of class ids, and the null condition.
      grid: (height, width) in tokens; None: the model's own.
      placed: puts a model that a flag names where `generator` is.

    Raises:
      InputError: flags that do not fit the model or one another.
    """
    from maskgil_jax.decoding import masked
    from maskgil_jax.generation import samplers
    from maskgil_jax.pretrained import loading

    options, conditions = dict(given), conditions or samplers.by_class
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
    if unknown := sorted(options.keys() - set(samplers.options_of(method == "autoregressive"))):
        raise InputError(f"--{unknown[0]} is not an option of --method={method}")
    if method != "hybrid":
        if prefix_model or prefix_options or prefix is not None:
            raise InputError(f"--prefix and --prefix_... are of --method=hybrid, not {method}")
        return samplers.sampler(generator, seed, conditions, negative, grid=grid, **options)
    if prefix is None or not prefix_model:
        raise InputError(
            "--method=hybrid needs --prefix=N (tokens drawn one by one) and --prefix_model=DIR"
        )
    return samplers.hybrid_sampler(
        placed(loading.load_generator(prefix_model, flags.FLAGS.verify)),
        generator,
        seed,
        prefix=prefix,
        prefix_options=prefix_options,
        conditions=conditions,
        negative=negative,
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
    flags.DEFINE_string("prompts", "", "instead of classes: file of prompts, one a line")
    flags.DEFINE_string("negative_prompt", None, "that guidance goes away from, for all prompts")
    flags.DEFINE_list(
        "speech",
        [],
        "instead of classes: recordings (wav, flac, mp3, ogg); or - for raw sound at the standard "
        "input (16-bit, mono, 16 kHz), of which each utterance is drawn when it has ended",
    )
    flags.DEFINE_float("silence", 0.6, "seconds that end an utterance", lower_bound=0.02)
    flags.DEFINE_string(
        "recognizer", None, "Whisper directory that writes speech down for a model of text"
    )
    flags.DEFINE_string("encoder", "", "encoder directory; default: the generator's own")
    flags.DEFINE_list("features", [], "instead of classes: .npy files, float [T, C]")
    flags.DEFINE_string(
        "size",
        "",
        "WIDTHxHEIGHT of the images in pixels, such as 512x256; default: the square that the model "
        "was trained on",
    )
    flags.DEFINE_integer("num", 8, "images per class, prompt or file", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "images drawn at once", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of all draws")
    define_decoding_flags()


def define_decoding_flags() -> None:
    """How to decode (what is not given is as the method does), and whether to verify models."""
    for name, (define, text) in DECODING.items():
        define(name, None, text)
    flags.DEFINE_bool("verify", True, "compare the models' fingerprints with what is read of them")


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
    command.run(main, goes_on=True)
