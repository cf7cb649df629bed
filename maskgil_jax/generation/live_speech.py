"""Images of speech, as soon as it has ended, and how long each step took."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from maskgil_jax.conditioning import choice, speech
from maskgil_jax.data.sound import audio
from maskgil_jax.data.sound.utterances import Utterance
from maskgil_jax.generation import samplers, samples
from maskgil_jax.generation.images import decoder
from maskgil_jax.generation.layouts import Draw
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.pretrained.speech_encoder import SpeechEncoder
from maskgil_jax.pretrained.text_encoder import TextEncoder
from maskgil_jax.runtime import files, unfinished
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

# What messages call an utterance, and the utterance.
NamedUtterance = tuple[str, Utterance]


class Timings:
    """Seconds that named steps took, in their order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """What is in this context is the step of that name."""
        start = time.monotonic()
        yield
        self.seconds[step] = time.monotonic() - start

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {seconds:.3f}" for name, seconds in self.seconds.items())
        return f"{sum(self.seconds.values()):.3f} s ({steps})"


# (waveform, timings to add to) -> its features, [1, T, C], and what to call the speech.
Listener = Callable[[np.ndarray, Timings], tuple[Features, str]]


class SpeechModel(NamedTuple):
    """What turns speech into images.

    Attributes:
      listener: speech to features.
      sampler_of: makes a sampler of conditions.
      tokenizer: codes to images.
    """

    listener: Listener
    sampler_of: Callable[[samplers.Conditions], samplers.Sampler]
    tokenizer: Tokenizer

    def images(
        self, utterance: Utterance, start: int, count: int
    ) -> tuple[np.ndarray, str, Timings]:
        """Images `start` .. `start + count - 1`: uint8 [count, H, W, 3], all of one utterance.

        Returns:
          The images, what to call the speech, and how long each step took: first the silence after
          which the utterance counted as ended.
        """
        timings = Timings()
        if utterance.silence:
            timings.seconds["silence"] = utterance.silence
        features, text = self.listener(utterance.waveform, timings)
        with timings("drawing"):
            sampler = self.sampler_of(samplers.rows_of(features))
            codes = jax.block_until_ready(sampler(np.zeros(count, int), start))
        with timings("decoding"):
            images = decoder(self.tokenizer)(codes)
        return images, text, timings


class Answer(NamedTuple):
    """What an utterance became.

    Attributes:
      source: what messages call the utterance.
      text: what to call the speech.
      images: uint8 [count, H, W, 3].
      seconds: of each step.
    """

    source: str
    text: str
    images: np.ndarray
    seconds: dict[str, float]


def sample_utterances(
    utterances: Iterable[NamedUtterance],
    model: SpeechModel,
    output: epath.PathLike,
    *,
    settings: Mapping[str, Any],
    count: int,
    live: bool,
) -> None:
    """Generate `count` images of each utterance as it comes.

    Writes what samples.write_samples writes, the single images at once and the rest at the end, and
    OUTPUT/latency.json: for each utterance, seconds from the end of speech to its images, by step.
    Everything is compiled before the first one.

    Args:
      utterances: as they end.
      model: turns them into images.
      output: directory, made if needed; samples that lie there are removed.
      settings: JSON-able, what the images depend on.
      count: images of each.
      live: whether utterances come until Ctrl-C ends them; what came before it is complete then.

    Raises:
      InputError: a directory that cannot be written, or images that cannot be generated.
    """
    output = epath.Path(output)
    samples.begin_from_start(output)
    log.info("compiling")
    model.images(Utterance(np.zeros(audio.RATE, np.float32), 0.0), 0, count)
    log.info("listening")
    answers: list[Answer] = []
    complete = False
    try:
        for source, utterance in utterances:
            answers.append(_answer(model, source, utterance, output, len(answers) * count, count))
        complete = True
    except KeyboardInterrupt:  # how listening to a microphone ends
        complete = live
        raise
    finally:
        _write_latency(output, answers)
        if complete:
            _finish(output, answers, settings, count)


def _answer(
    model: SpeechModel,
    source: str,
    utterance: Utterance,
    output: epath.Path,
    start: int,
    count: int,
) -> Answer:
    """Generate and write the images of one utterance."""
    images, text, timings = model.images(utterance, start, count)
    unfinished.mark(output, samples.written(None, start + count))
    with timings("writing"):
        samples.write_images(output, images, start)
    log.info("%s: %s; from the end of speech to the images %s", source, text, timings)
    return Answer(source, text, images, timings.seconds)


def _write_latency(output: epath.Path, answers: Sequence[Answer]) -> None:
    rows = [
        {"utterance": answer.source, "said": answer.text, "seconds": answer.seconds}
        for answer in answers
    ]
    files.write_json(output / "latency.json", rows)


def _finish(
    output: epath.Path, answers: Sequence[Answer], settings: Mapping[str, Any], count: int
) -> None:
    """Write the grid and samples.npz; without utterances only take the mark off."""
    if not answers:
        unfinished.end(output)
        return
    texts = [answer.text for answer in answers]
    labels = np.repeat(np.arange(len(answers)), count)
    settings = {**settings, "images": len(labels), "said": texts}
    images = [answer.images for answer in answers]
    samples.finish(output, images, Draw(images[0].shape[1:3], labels, texts, count, settings))


def listener_of(
    generator: Generator, directory: str, recognizer: str | None, verify: bool = True
) -> Listener:
    """How a generator understands speech: directly, or as text that a recogniser writes down.

    Args:
      generator: of speech or of text.
      directory: of its encoder, as in `encoder_of`.
      recognizer: directory of a Whisper; for a generator of text, and only there.
      verify: as loading.load.

    Raises:
      InputError: a generator of neither, or no recogniser where one is needed.
    """
    encoder, config = choice.encoder_of(generator, directory, verify), generator.network.config
    if isinstance(encoder, TextEncoder):
        if not recognizer:
            raise InputError(
                "the generator is conditioned on text: expected recognizer=DIR (a Whisper, made by "
                "maskgil_jax.convert import --format=whisper), which writes the speech down"
            )
        whisper = choice.load_encoder(recognizer, verify)
        if not isinstance(whisper, SpeechEncoder):
            raise InputError(f"recognizer={recognizer} is no encoder of speech")
        return _as_text(whisper, encoder, config.condition_tokens)
    if recognizer:
        raise InputError(
            f"recognizer={recognizer}: the generator is conditioned on speech itself, expected none"
        )

    def directly(waveform: np.ndarray, timings: Timings) -> tuple[Features, str]:
        with timings("features"):
            features = speech.features(
                encoder, [waveform], config.condition_tokens, config.feature_dim
            )
            return jax.block_until_ready(features), f"{len(waveform) / audio.RATE:.1f} s"

    return directly


def _as_text(whisper: SpeechEncoder, encoder: TextEncoder, tokens: int) -> Listener:
    def as_text(waveform: np.ndarray, timings: Timings) -> tuple[Features, str]:
        with timings("recognising"):
            text = whisper.transcribe(waveform)
        with timings("features"):
            return jax.block_until_ready(encoder.features([text], tokens)), text

    return as_text
