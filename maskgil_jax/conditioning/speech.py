"""Recordings as a condition: a window of log-mel frames, some of them to a token.

Letters: B recordings, F frames of 10 ms, M mel bins, T tokens, C width of a token.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.conditioning.base import Conditioning, Example
from maskgil_jax.data.companions.recordings import Recordings
from maskgil_jax.data.records.image_records import Record
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.data.sound import audio
from maskgil_jax.models.encoders.whisper import Whisper
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained.speech_encoder import SpeechEncoder
from maskgil_jax.runtime.errors import InputError

INSIDE = "inside"  # in the place of a folder: recordings that tars or code shards hold
LOG_MEL = "log_mel"  # in the place of an encoder's directory: the frames themselves are features
BINS = 80  # of those


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frames:
    """Turns log-mel frames into features: several frames side by side are one token.

    Attributes:
      whisper: the encoder; None: the frames themselves are features.
    """

    whisper: Whisper | None

    def features(self, prompt_BFM: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """[B, T, C], zero where the mask is false."""
        x = prompt_BFM if self.whisper is None else self.whisper.encode(prompt_BFM)
        return jnp.where(mask_BT[..., None], x.reshape(*mask_BT.shape, -1), 0)


@dataclasses.dataclass(frozen=True)
class Window:
    """The beginning of a recording, as much as the tokens of a condition hold.

    Attributes:
      tokens: T.
      frames: in a token.
      bins: M.
    """

    tokens: int
    frames: int
    bins: int

    @property
    def seconds(self) -> float:
        """How much speech the window holds."""
        return self.tokens * self.frames / 100

    def prompt(self, waveform: np.ndarray) -> Example:
        """`prompt`, float32 [F, M], and `mask`, bool [T], false after the end of the recording.

        Args:
          waveform: float32 [samples] at audio.RATE; what is longer than the window is cut off.
        """
        tokens = -(-len(waveform) * 100 // (audio.RATE * self.frames))  # rounded up
        return {
            "prompt": audio.log_mel(waveform, self.seconds, self.bins),
            "mask": np.arange(self.tokens) < tokens,
        }


@dataclasses.dataclass(frozen=True)
class RecordingReader:
    """A recording that the image goes with.

    Attributes:
      recordings: in files; None: in the tars or code shards of the images.
      window: as much of each as is read.
    """

    recordings: Recordings | None
    window: Window

    def __call__(
        self, record: Record | CodeRecord, rng: np.random.Generator, bucket: int
    ) -> Example:
        """The condition's fields of an example, see base.Read."""
        if self.recordings is not None:
            data = self.recordings.read(record.id, record.label, rng)
        else:
            data = record.recording if isinstance(record, CodeRecord) else record.read_recording()
        return self.window.prompt(audio.decode(data))


def window_of(encoder: SpeechEncoder | None, tokens: int, width: int) -> Window:
    """The window of a generator.

    Args:
      encoder: of speech; None: log-mel frames.
      tokens, width: T and C of the generator's condition.

    Raises:
      InputError: a width that is no multiple of the encoder's, or more speech than it hears.
    """
    unit, frames = (BINS, 1) if encoder is None else (encoder.width, 2)
    if width % unit:
        raise InputError(
            f"feature_dim = {width}, expected a multiple of {unit} (of a frame; as many, side by "
            "side, are one token)"
        )
    if encoder is None:
        return Window(tokens, width // unit, BINS)
    window = Window(tokens, frames * width // unit, encoder.network.config.mel_bins)
    if tokens * window.frames > (most := 2 * encoder.network.config.speech_positions):
        raise InputError(
            f"condition_tokens = {tokens} of feature_dim = {width} are {window.seconds:g} s of "
            f"speech, but the encoder hears {most / 100:g}: expected fewer or narrower tokens"
        )
    return window


def of_recordings(
    encoder: SpeechEncoder | None, recordings: Recordings | None, tokens: int, width: int
) -> Conditioning:
    """Recordings as a condition of some tokens.

    Args:
      encoder, tokens, width: as in `window_of`.
      recordings: as in RecordingReader.
    """
    provenance = {"path": LOG_MEL, "fingerprint": LOG_MEL, "width": BINS}
    return Conditioning(
        RecordingReader(recordings, window_of(encoder, tokens, width)),
        Frames(jax.device_get(encoder.network) if encoder else None),
        encoder.provenance if encoder else provenance,
    )


def features(
    encoder: SpeechEncoder | None, waveforms: Sequence[np.ndarray], tokens: int, width: int
) -> Features:
    """Features of recordings, [B, T, C]; the other arguments are those of `window_of`."""
    window = window_of(encoder, tokens, width)
    prompts = [window.prompt(waveform) for waveform in waveforms]
    prompt, mask = (np.stack([p[key] for p in prompts]) for key in ("prompt", "mask"))
    network = Frames(encoder.network if encoder else None)
    return Features(_features(network, prompt, mask), jnp.asarray(mask))


@jax.jit
def _features(network: Frames, prompt_BFM: jax.Array, mask_BT: jax.Array) -> jax.Array:
    return network.features(prompt_BFM, mask_BT)
