"""What maskgil_jax.sample does: conditions to images in a directory."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from maskgil_jax.data.sound import audio, utterances
from maskgil_jax.generation import (
    asked,
    benchmarks,
    live_speech,
    placing,
    requests,
    samplers,
    samples,
)
from maskgil_jax.generation.layouts import PLAIN, Layout
from maskgil_jax.generation.options import SampleOptions
from maskgil_jax.generation.passes import PassCount
from maskgil_jax.generation.placing import Devices
from maskgil_jax.generation.requests import Request
from maskgil_jax.pretrained import loading
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import device_memory, processes
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")


def sample(options: SampleOptions) -> None:
    """Generate the images that are requested; see samples.write_samples for the files.

    Raises:
      InputError: no condition or several, one that the model does not take, or models and options
        that do not fit together.
    """
    described = loading.generator_without_weights(options.model)
    layout, prompts = _layout_of(options, described)
    condition, lines = asked.check(options, described, prompts)
    if condition == "speech" and jax.process_count() > 1:
        raise InputError("distributed: images of speech are drawn by one process")
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
        request, about = asked.read(options, condition, generator, lines)
        sample_request(options, generator, tokenizer, request, about, grid, layout)


def _layout_of(options: SampleOptions, described: Generator) -> tuple[Layout, list[str] | None]:
    """The layout that is asked for, and the prompts that belong to it, if any do."""
    if options.layout == "plain":
        return PLAIN, None
    layout, prompts = benchmarks.of_benchmark(options.layout, options.prompts, options.num)
    sides = requests.pixels_of(options.size, "size")[::-1] if options.size else described.grid
    layout.check_size(*sides)
    return layout, prompts


def sample_request(
    options: SampleOptions,
    generator: Generator,
    tokenizer: Tokenizer,
    request: Request,
    about: Mapping[str, Any],
    grid: tuple[int, int] | None,
    layout: Layout = PLAIN,
) -> None:
    """Generate images of classes, prompts or features; `request` and `about` as `asked.read`."""
    total = len(request.labels) * options.num
    devices = placing.devices_for(total, options.batch_size, options.tensor)
    passes = PassCount()
    sampler = _sampler_of(
        options,
        devices.placed(generator),
        devices.split(request.conditions),
        devices.split(request.negative) if request.negative else None,
        grid,
        request.texts,
        devices,
        passes,
    )
    settings = {**about, **samplers.description(options.decoding.given(), options.seed, generator)}
    height, width = grid or generator.grid
    samples.write_samples(
        sampler,
        devices.placed(tokenizer),
        options.output,
        settings=samples.settings_of(generator, tokenizer, **settings),
        size=(height * tokenizer.downsample, width * tokenizer.downsample),
        labels=request.labels,
        names=request.names or [],
        per_label=options.num,
        devices=devices,
        memory=_memory(options),
        removes_unfinished=False,
        of_prompts=request.texts is not None,
        layout=layout,
    )
    log.info("wrote %d images to %s", total, options.output)
    if passes.images and processes.first():
        log.info(
            "%d images drawn here took %.4g passes of the network each, and needed %.4g",
            *passes.about().values(),
        )


def _sampler_of(
    options: SampleOptions,
    generator: Generator,
    conditions: samplers.Conditions,
    negative: samplers.Conditions | None,
    grid: tuple[int, int] | None,
    texts: samplers.Texts | None = None,
    devices: Devices = placing.HERE,
    passes: PassCount | None = None,
) -> samplers.Sampler:
    """The sampler that the options ask for, of a generator and conditions on these devices."""
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
        placed=devices.placed,
        memory=_memory(options),
        devices=devices.count,
        passes=passes,
    )


def _memory(options: SampleOptions) -> float | None:
    return options.memory * device_memory.GIB or None


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
