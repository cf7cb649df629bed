"""Utterances of a live stream of sound: where speech begins and ends in it."""

import collections
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from maskgil_jax.data.sound import audio

BLOCK = audio.RATE // 50  # samples that are looked at together: 20 ms
LEAD = 10  # blocks stored from before speech is noticed, which begins softly
LOUD = 4.0  # times as loud as the quiet around it is speech
FLOOR = 1e-3  # of full scale: what is softer is not speech in any quiet
ADAPTS = 0.95  # weight of the old estimate of the quiet at each block


class Utterance(NamedTuple):
    """What was said.

    Attributes:
      waveform: float32 [samples] in [-1, 1], at most audio.LONGEST_SECONDS of them.
      silence: seconds at its end that are no speech, in which it was not known to have ended.
    """

    waveform: np.ndarray
    silence: float


def from_stream(stream: BinaryIO, silence: float) -> Iterator[Utterance]:
    """The utterances of a stream, each as soon as it has ended.

    Args:
      stream: raw sound, 16-bit little-endian, mono, audio.RATE samples a second.
      silence: seconds without speech after which an utterance has ended; the stream's end ends it
        too.
    """
    before: collections.deque[np.ndarray] = collections.deque(maxlen=LEAD)
    spoken: list[np.ndarray] = []
    quiet, silent, longest = FLOOR, 0, audio.LONGEST_SECONDS * 50
    for block in _blocks(stream):
        loudness = float(np.sqrt(np.mean(block**2)))
        loud = loudness > max(LOUD * quiet, FLOOR)
        if not loud:
            quiet = ADAPTS * quiet + (1 - ADAPTS) * loudness
        if not spoken and not loud:
            before.append(block)
            continue
        spoken = spoken or list(before)
        spoken.append(block)
        silent = 0 if loud else silent + 1
        if silent * BLOCK >= silence * audio.RATE or len(spoken) >= longest:
            yield Utterance(np.concatenate(spoken), silent * BLOCK / audio.RATE)
            before.clear()
            spoken, silent = [], 0
    if spoken:
        yield Utterance(np.concatenate(spoken), silent * BLOCK / audio.RATE)


def _blocks(stream: BinaryIO) -> Iterator[np.ndarray]:
    # A last block that is not whole is less than 20 ms, and goes.
    while len(data := stream.read(2 * BLOCK)) == 2 * BLOCK:
        yield np.frombuffer(data, "<i2").astype(np.float32) / 32768
