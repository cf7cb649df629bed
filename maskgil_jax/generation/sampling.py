"""What maskgil_jax.sample does: conditions to images in a directory."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from maskgil_jax.data.sound import audio, utterances
from maskgil_jax.generation import live_speech, requests, samplers, samples
from maskgil_jax.generation.options import SampleOptions
from maskgil_jax.generation.requests import Request
from maskgil_jax.pretrained import loading, model_directory
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import device_memory
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")

CONDITIONS = ("classes", "prompts", "speech", "features")  # options of which one is given


def sample(options: SampleOptions) -> None:
    """Generate the images that are requested; see samples.write_samples for the files.

    Raises:
      InputError: no condition or several, one that the model does not take, or models and options
        that do not fit together.
    """
    described = loading.generator_without_weights(options.model)
    condition = check_condition(options, described.is_unconditional)
    lines = requests.read_prompts(options.prompts) if options.prompts else []
    speech = open_utterances(options.speech, options.silence) if options.speech else None
    companions = options.companions
    requests.check_prompted(described, lines, options.size)
    generator, tokenizer = loading.load_pair(
        options.model, companions.tokenizer, companions.verify, options.tensor
    )
    if generator.decoding:
        log.info("options of %s: %s", options.model, samplers.in_words(generator.decoding))
    grid = requests.grid_of(options.size, tokenizer.downsample) if options.size else None
    if speech is not None:
        sample_speech(options, generator, tokenizer, speech, grid)
    else:
        request, about = read_request(options, condition, generator, lines)
        sample_request(options, generator, tokenizer, request, about, grid)


def sample_request(
    options: SampleOptions,
    generator: Generator,
    tokenizer: Tokenizer,
    request: Request,
    about: Mapping[str, Any],
    grid: tuple[int, int] | None,
) -> None:
    """Generate images of classes, prompts or features; `request` and `about` as `read_request`."""
    sampler = _sampler_of(
        options, generator, request.conditions, request.negative, grid, request.texts
    )
    settings = {**about, **samplers.description(options.decoding.given(), options.seed, generator)}
    height, width = grid or generator.grid
    samples.write_samples(
        sampler,
        tokenizer,
        options.output,
        settings=samples.settings_of(generator, tokenizer, **settings),
        size=(height * tokenizer.downsample, width * tokenizer.downsample),
        labels=request.labels,
        names=request.names or [],
        per_label=options.num,
        batch_size=options.batch_size,
        memory=_memory(options),
    )
    log.info("wrote %d images to %s", len(request.labels) * options.num, options.output)


def _sampler_of(
    options: SampleOptions,
    generator: Generator,
    conditions: samplers.Conditions,
    negative: samplers.Conditions | None,
    grid: tuple[int, int] | None,
    texts: samplers.Texts | None = None,
) -> samplers.Sampler:
    """The sampler that the options ask for."""
    return samplers.from_options(
        generator,
        options.decoding.given(),
        options.seed,
        conditions,
        negative,
        grid,
        texts=texts,
        verify=options.companions.verify,
        tensor=options.tensor,
        memory=_memory(options),
    )


def _memory(options: SampleOptions) -> float | None:
    return options.memory * device_memory.GIB or None


def check_condition(options: SampleOptions, unconditional: bool) -> str:
    """The name of the condition that is given; "" for a generator without any.

    Raises:
      InputError: none or several, or an option that goes with another one.
    """
    given = [name for name in CONDITIONS if getattr(options, name)]
    if unconditional and given:
        raise InputError(f"{given[0]}: the generator is unconditional, expected no condition")
    if len(given) != 1 and not unconditional:
        raise InputError(
            "one of classes=207,360 (class ids), prompts=FILE, speech=A.wav,B.mp3 and "
            f"features=A.npy is expected, {' and '.join(given) or 'none'} given"
        )
    for name, goes_with in (("negative_prompt", "prompts"), ("recognizer", "speech")):
        value = getattr(options, name)
        if value is not None and given != [goes_with]:
            other = given[0] if given else "an unconditional generator"
            raise InputError(f"{name}={value} goes with {goes_with}, not with {other}")
    return given[0] if given else ""


def read_request(
    options: SampleOptions, condition: str, generator: Generator, lines: Sequence[str]
) -> tuple[Request, dict[str, Any]]:
    """The request that options make, and what of it the images depend on, besides the labels."""
    companions, negative = options.companions, options.negative_prompt
    if not condition:
        return requests.of_nothing(generator), {}
    if condition == "prompts":
        request = requests.of_prompts(
            generator, lines, companions.encoder, companions.verify, negative
        )
        return request, {"prompts": list(lines), "negative_prompt": negative}
    if condition == "features":
        table = requests.read_features(generator, options.features)
        about = {"features": model_directory.fingerprint(table._asdict())}
        return requests.of_features(table, options.features), about
    return requests.of_classes(generator, options.classes), {}


def open_utterances(
    paths: Sequence[str], silence: float
) -> Iterator[tuple[str, utterances.Utterance]]:
    """Recordings, or with "-" the utterances of raw sound at the standard input, one by one.

    Raises:
      InputError: a file that is not there or not usable audio; before the first is given.
    """
    if list(paths) == ["-"]:
        stream = utterances.from_stream(sys.stdin.buffer, silence)
        return ((f"utterance {i}", utterance) for i, utterance in enumerate(stream))
    recordings = []
    for path in paths:
        try:
            waveform = audio.decode(audio.read_file(path))
        except Unreadable as error:
            raise InputError(f"speech={path}: {error}") from None
        recordings.append((path, utterances.Utterance(waveform, 0.0)))
    return iter(recordings)


def sample_speech(
    options: SampleOptions,
    generator: Generator,
    tokenizer: Tokenizer,
    speech: Iterator[tuple[str, utterances.Utterance]],
    grid: tuple[int, int] | None,
) -> None:
    """Generate images of utterances as they end."""
    companions, decoding = options.companions, options.decoding.given()

    def sampler_of(conditions: samplers.Conditions) -> samplers.Sampler:
        return _sampler_of(options, generator, conditions, None, grid)

    listener = live_speech.listener_of(
        generator, companions.encoder, options.recognizer, companions.verify
    )
    settings = samplers.description(decoding, options.seed, generator)
    live_speech.sample_utterances(
        speech,
        live_speech.SpeechModel(listener, sampler_of, tokenizer),
        options.output,
        settings=samples.settings_of(generator, tokenizer, **settings),
        count=options.num,
        live=options.speech == ("-",),
    )
