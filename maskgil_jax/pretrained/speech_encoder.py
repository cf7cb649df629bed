"""Speech as a user holds it: features of recordings, and their words.

Letters: B batch, F frames of the log-mel, M its bins, T = F / 2 tokens of speech, C width.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from maskgil_jax.data.sound import audio
from maskgil_jax.models.encoders.whisper import Whisper
from maskgil_jax.pretrained import networks
from maskgil_jax.runtime.errors import InputError

VOCABULARY = "tokenizer.json"  # Hugging Face's file
TRAINED_SECONDS = 30  # of every window that Whisper learnt to write down


class SpeechEncoder(networks.PretrainedNetwork):
    """Whisper: speech to features, or to text.

    Waveforms are floats [samples], audio.RATE a second, as audio.decode gives them.
    """

    kind = "speech_encoder"

    def __init__(
        self, network: Whisper, vocabulary: bytes, path: str = "", fingerprint: str | None = None
    ):
        """Take a network, and the content of its tokenizer.json."""
        super().__init__(network, path, fingerprint, {VOCABULARY: vocabulary})

    @property
    def width(self) -> int:
        """C, of its features."""
        return self.network.config.dim

    @property
    def provenance(self) -> dict[str, Any]:
        """What generators record of the encoder that they depend on."""
        return super().provenance | {"width": self.width}

    def log_mel(self, waveform: npt.ArrayLike, seconds: float) -> np.ndarray:
        """What the network takes of the first `seconds` of a waveform: float32 [F, M].

        Raises:
          InputError: as audio.log_mel.
        """
        return audio.log_mel(np.asarray(waveform), seconds, self.network.config.mel_bins)

    def features(self, mel_BFM: npt.ArrayLike) -> jax.Array:
        """Features of speech; may be called under jit.

        Args:
          mel_BFM: float32 [B, F, M] of windows of an even number of frames, up to 30 s.

        Returns:
          [B, F / 2, C].

        Raises:
          InputError: another shape.
        """
        mel_BFM = jnp.asarray(mel_BFM)
        if mel_BFM.ndim != 3:
            raise InputError(f"a log-mel has shape {mel_BFM.shape}, expected [B, F, M]")
        try:
            return _features(self.network, mel_BFM)
        except ValueError as error:
            raise InputError(str(error)) from None

    def transcribe(self, waveform: npt.ArrayLike, language: str = "en") -> str:
        """The words of a waveform, by the likeliest token after another.

        Args:
          waveform: of any length; windows of 30 s are written down one after another.
          language: its code, such as "de"; of networks for English alone "en".

        Raises:
          InputError: not [samples], a language that the network does not know, or the library
            `tokenizers` is not installed.
        """
        waveform = np.asarray(waveform)
        prompt_P, end = jnp.asarray(self._prompt(language)), self._id("<|endoftext|>")
        step = TRAINED_SECONDS * audio.RATE
        texts = []
        for start in range(0, len(waveform), step):
            mel_FM = self.log_mel(waveform[start : start + step], TRAINED_SECONDS)
            tokens_R = np.asarray(_greedy(self.network, mel_FM[None], prompt_P, end))[0]
            texts.append(
                self._tokenizer.decode(tokens_R.tolist(), skip_special_tokens=True).strip()
            )
        return " ".join(texts)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        try:
            import tokenizers
        except ImportError:
            raise InputError(
                "writing down speech needs tokenizers: pip install 'maskgil_jax[speech]'"
            ) from None
        try:
            return tokenizers.Tokenizer.from_buffer(self._beside[VOCABULARY])
        except Exception as error:  # the library raises no other class
            raise InputError(f"the network's {VOCABULARY} is not readable: {error}") from None

    def _prompt(self, language: str) -> list[int]:
        multilingual = self.network.config.multilingual
        if not multilingual and language != "en":
            raise InputError(f"language {language!r}: this network knows English alone, 'en'")
        task = (f"<|{language}|>", "<|transcribe|>") if multilingual else ()
        return [self._id(t) for t in ("<|startoftranscript|>", *task, "<|notimestamps|>")]

    def _id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise InputError(f"the network's {VOCABULARY} has no token {token}")
        return token_id


@jax.jit
def _features(network: Whisper, mel_BFM: jax.Array) -> jax.Array:
    return network.encode(mel_BFM)


@jax.jit
def _greedy(network: Whisper, mel_BFM: jax.Array, prompt_P: jax.Array, end: int) -> jax.Array:
    return network.greedy(network.encode(mel_BFM), prompt_P, end)
