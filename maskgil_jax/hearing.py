"""Speech as a condition: a window of log-mel frames, and features of it in a number of tokens.

Letters: B recordings, F frames of 10 ms, M mel bins, T tokens, C width of a token.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.data import audio
from maskgil_jax.errors import InputError
from maskgil_jax.models.conditions import Features
from maskgil_jax.models.whisper import Whisper
from maskgil_jax.speech_encoders import SpeechEncoder

LOG_MEL = "log_mel"  # in the place of an encoder's directory: the frames themselves
BINS = 80  # of those


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frames:
    """Features of log-mel frames in a training step: the encoder's outputs, some to a token."""

    whisper: Whisper | None

    def features(self, prompt_BFM: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """[B, T, C], zero where the mask is false."""
        x = prompt_BFM if self.whisper is None else self.whisper.encode(prompt_BFM)
        x_BTC = x.reshape(*mask_BT.shape, -1)
        return jnp.where(mask_BT[..., None], x_BTC, 0)


class Hearing:
    """Recordings as a generator takes them.

    Args:
      encoder: of speech; None: the log-mel frames themselves are the features.
      tokens: T.
      width: C, a multiple of the encoder's width, or of BINS: as many of its frames are one token.

    Attributes:
      network: what makes features of prompts.
      provenance: of the encoder.
      seconds: of the window.

    Raises:
      InputError: a width that is no multiple.
    """

    def __init__(self, encoder: SpeechEncoder | None, tokens: int, width: int):
        unit, hertz = (BINS, 100) if encoder is None else (encoder.width, 50)
        if width % unit:
            raise InputError(
                f"config.model.feature_dim = {width}, expected a multiple of {unit} (the width of "
                "a frame; several frames, side by side, are one token)"
            )
        self._frames = 100 // hertz * (width // unit)  # of 10 ms, in a token
        self._tokens, self._bins = tokens, BINS if encoder is None else encoder.bins
        self.seconds = tokens * self._frames / 100
        self.network = Frames(None if encoder is None else encoder.network)
        self.provenance: dict[str, Any] = (
            {"path": LOG_MEL, "fingerprint": LOG_MEL} if encoder is None else encoder.provenance
        )

    def prompt(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        """What `network` makes features of: `prompt`, float32 [F, M], and `mask`, bool [T].

        Args:
          waveform: float32 [samples] at audio.RATE; what is longer than the window is cut off.
        """
        heard = -(-len(waveform) * 100 // (audio.RATE * self._frames))  # tokens, rounded up
        return {
            "prompt": audio.log_mel(waveform, self.seconds, self._bins),
            "mask": np.arange(self._tokens) < heard,
        }

    def features(self, waveforms: list[np.ndarray]) -> Features:
        """Features of recordings, [B, T, C]."""
        prompts = [self.prompt(waveform) for waveform in waveforms]
        prompt, mask = (jnp.stack([p[key] for p in prompts]) for key in ("prompt", "mask"))
        return Features(_features(self.network, prompt, mask), mask)


@jax.jit
def _features(network: Frames, prompt_BFM: jax.Array, mask_BT: jax.Array) -> jax.Array:
    return network.features(prompt_BFM, mask_BT)
