"""Images of speech, as soon as it has ended, and how long each stage took."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from maskgil_jax.conditioning import choice, speech
from maskgil_jax.data.sound import audio
from maskgil_jax.data.sound.utterances import Utterance
from maskgil_jax.generation import samplers, samples
from maskgil_jax.generation.images import Sample, pixels
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.pretrained.speech_encoder import SpeechEncoder
from maskgil_jax.pretrained.text_encoder import TextEncoder
from maskgil_jax.runtime import files, unfinished
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

Named = tuple[str, Utterance]  # what to call it in messages, and what was said


class Stages:
    """Seconds that named stages took, in their order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """What is in this context is the stage `name`."""
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.3f}" for name, seconds in self.seconds.items())
        return f"{sum(self.seconds.values()):.3f} s ({parts})"


# (waveform, stages to note time in) -> features of it, [1, T, C], and what to call it.
Hear = Callable[[np.ndarray, Stages], tuple[Features, str]]


def draw_spoken(
    utterances: Iterable[Named],
    hear: Hear,
    sampler: Callable[[samplers.Conditions], Sample],
    tokenizer: Tokenizer,
    output: epath.PathLike,
    *,
    settings: Mapping[str, Any],
    count: int,
    live: bool,
) -> None:
    """Draw `count` images of each utterance as it comes.

    Writes what samples.write_samples writes, the single images at once and the rest at the end, and
    OUTPUT/latency.json: for each utterance, seconds from the end of speech to its images, by stage:
    first the silence that told that it had ended. All is compiled before the first one.

    Args:
      utterances: as they end.
      hear: turns one into features.
      sampler: of conditions.
      tokenizer: turns codes into images.
      output: directory, made if needed; what an earlier draw wrote there is removed.
      settings: JSON-able, what the images depend on.
      count: images of each.
      live: whether utterances come until Ctrl-C ends them; what was drawn before it is whole then.

    Raises:
      InputError: a directory that cannot be written, or images that cannot be drawn.
    """
    output = epath.Path(output)
    samples.begin_anew(output)

    def drawn(utterance: Utterance, start: int) -> tuple[np.ndarray, str, Stages]:
        stages = Stages()
        if utterance.silence:
            stages.seconds["silence"] = utterance.silence
        features, name = hear(utterance.waveform, stages)
        with stages("drawing"):
            sample = sampler(samplers.rows_of(features))
            codes = jax.block_until_ready(sample(np.zeros(count, int), start))
        with stages("decoding"):
            images = pixels(tokenizer, codes)
        return images, name, stages

    log.info("compiling")
    drawn(Utterance(np.zeros(audio.RATE, np.float32), 0.0), 0)
    log.info("listening")
    parts, names, rows = [], [], []
    ended = False
    try:
        for number, (source, utterance) in enumerate(utterances):
            images, said, stages = drawn(utterance, number * count)
            unfinished.mark(output, samples.written(None, (number + 1) * count))
            with stages("writing"):
                samples.write_images(output, images, number * count)
            log.info("%s: %s; from the end of speech to the images %s", source, said, stages)
            parts.append(images)
            names.append(said)
            rows.append({"utterance": source, "said": said, "seconds": stages.seconds})
        ended = True
    except KeyboardInterrupt:  # how listening to a microphone ends
        ended = live
        raise
    finally:
        files.write_json(output / "latency.json", rows)
        if ended and parts:
            labels = np.repeat(np.arange(len(names)), count)
            about = {**settings, "images": len(labels), "said": names}
            samples.finish(output, np.concatenate(parts), labels, names, count, about)
        elif ended:
            unfinished.end(output)


def hearing(
    generator: Generator, directory: str, recognizer: str | None, verify: bool = True
) -> Hear:
    """How a generator understands speech: directly, or as text that a recogniser writes down.

    Args:
      generator: of speech or of text.
      directory: of its encoder, as in `encoder_of`.
      recognizer: directory of a Whisper; for a generator of text, and only there.
      verify: as api.load.

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

    def directly(waveform: np.ndarray, stages: Stages) -> tuple[Features, str]:
        with stages("features"):
            features = speech.features(
                encoder, [waveform], config.condition_tokens, config.feature_dim
            )
            return jax.block_until_ready(features), f"{len(waveform) / audio.RATE:.1f} s"

    return directly


def _as_text(whisper: SpeechEncoder, encoder: TextEncoder, tokens: int) -> Hear:
    def as_text(waveform: np.ndarray, stages: Stages) -> tuple[Features, str]:
        with stages("recognising"):
            text = whisper.transcribe(waveform)
        with stages("features"):
            return jax.block_until_ready(encoder.features([text], tokens)), text

    return as_text
