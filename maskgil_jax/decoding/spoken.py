"""Images of speech, as soon as it has ended, and how long each stage took."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from etils import epath

from maskgil_jax.api import Tokenizer
from maskgil_jax.data import audio
from maskgil_jax.data.images import to_uint8
from maskgil_jax.data.utterances import Utterance
from maskgil_jax.decoding import draw
from maskgil_jax.models.conditions import Features
from maskgil_jax.runtime import files

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
    sampler: Callable[[draw.Conditions], draw.Sample],
    tokenizer: Tokenizer,
    output: epath.PathLike,
    *,
    count: int,
) -> None:
    """Draw `count` images of each utterance as it comes.

    Writes what draw.write_samples writes, the single images at once and the rest at the end, and
    OUTPUT/latency.json: for each utterance, seconds from the end of speech to its images, by stage:
    first the silence that told that it had ended. All is compiled before the first one.

    Args:
      utterances: as they end.
      hear: turns one into features.
      sampler: of conditions.
      tokenizer: turns codes into images.
      output: directory, made if needed.
      count: images of each.
    """
    output = epath.Path(output)
    output.mkdir(parents=True, exist_ok=True)

    def drawn(utterance: Utterance, start: int) -> tuple[np.ndarray, str, Stages]:
        stages = Stages()
        if utterance.silence:
            stages.seconds["silence"] = utterance.silence
        features, name = hear(utterance.waveform, stages)
        with stages("drawing"):
            sample = sampler(draw.rows_of(features))
            codes = jax.block_until_ready(sample(np.zeros(count, int), start))
        with stages("decoding"):
            images = to_uint8(tokenizer.decode(codes))
        return images, name, stages

    log.info("compiling")
    drawn(Utterance(np.zeros(audio.RATE, np.float32), 0.0), 0)
    log.info("listening")
    parts, names, rows = [], [], []
    try:
        for number, (source, utterance) in enumerate(utterances):
            images, said, stages = drawn(utterance, number * count)
            with stages("writing"):
                draw.write_images(output, images, number * count)
            log.info("%s: %s; from the end of speech to the images %s", source, said, stages)
            parts.append(images)
            names.append(said)
            rows.append({"utterance": source, "said": said, "seconds": stages.seconds})
    finally:  # Ctrl-C is how listening to a microphone ends
        files.write_json(output / "latency.json", rows)
        if parts:
            labels = np.repeat(np.arange(len(names)), count)
            draw.write_together(output, np.concatenate(parts), labels, names, count)
