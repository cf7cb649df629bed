"""Text encoders as a user holds them: captions to token ids and to features.

Letters: B captions, T tokens, C width of features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.models.encoders.gemma import Gemma
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained import networks
from maskgil_jax.runtime.errors import InputError

VOCABULARY = "tokenizer.model"  # the file of sentencepiece, as Gemma is released with it


class Tokens(NamedTuple):
    """Token ids of captions, padded on the left.

    Attributes:
      ids_BT: int32 [B, T].
      mask_BT: bool [B, T], false at padding.
    """

    ids_BT: np.ndarray
    mask_BT: np.ndarray


class Vocabulary:
    """The pieces of text that token ids stand for, of a sentencepiece file.

    Args:
      data: content of the file.
      size: rows of the embedding that it is for.

    Raises:
      InputError: something else, or more pieces than that; or sentencepiece is not installed.
    """

    def __init__(self, data: bytes, size: int):
        self._pieces = _sentencepiece(data, size)

    @property
    def size(self) -> int:
        """Number of token ids."""
        return self._pieces.get_piece_size()

    def tokenize(self, captions: Sequence[str], tokens: int) -> Tokens:
        """Token ids, the beginning-of-sequence id first; of text that spells an id's name too.

        Args:
          captions: B of them.
          tokens: T; longer captions lose their end, shorter ones are padded on the left.

        Returns:
          Tokens of [B, T].

        Raises:
          InputError: one string instead of several, one with half a character (a surrogate without
            the other), or no room for a token.
        """
        check_texts(captions)
        if tokens < 1:
            raise InputError(f"tokens = {tokens}, expected 1 or more")
        ids_BT = np.full((len(captions), tokens), max(self._pieces.pad_id(), 0), np.int32)
        mask_BT = np.zeros(ids_BT.shape, bool)
        for row, ids in enumerate(self._pieces.encode(list(captions), add_bos=True)):
            ids = ids[:tokens]
            ids_BT[row, -len(ids) :] = ids
            mask_BT[row, -len(ids) :] = True
        return Tokens(ids_BT, mask_BT)

    def text(self, ids: np.ndarray) -> str:
        """The text that token ids [n] stand for."""
        return self._pieces.decode([int(i) for i in ids])


def check_texts(captions: Sequence[str]) -> None:
    """Raise InputError for one string instead of several, or one with half a character."""
    if isinstance(captions, str):
        raise InputError(f"captions are one string {captions[:40]!r}, expected a list of them")
    for caption in captions:
        try:
            caption.encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(caption[error.start]):04X}"
            raise InputError(
                f"the text {caption[:40]!r} holds {half}, which is half a character"
            ) from None


class TextEncoder(networks.PretrainedNetwork):
    """Captions to features that a generator is conditioned on.

    Attributes:
      network: the module; inside a step of one's own, `network.features(*tokens)` is what
        `encode` gives.
      vocabulary: makes token ids of captions.
    """

    kind = "text_encoder"

    def __init__(
        self, network: Gemma, vocabulary: bytes, path: str = "", fingerprint: str | None = None
    ):
        """Take a network, and the content of its sentencepiece file."""
        super().__init__(network, path, fingerprint, {VOCABULARY: vocabulary})
        self.vocabulary = Vocabulary(vocabulary, network.config.vocab_size)

    @property
    def width(self) -> int:
        """C."""
        return self.network.config.dim

    @property
    def provenance(self) -> dict[str, Any]:
        """What shards of features and generators record of the encoder that they depend on."""
        return super().provenance | {"width": self.width, "layer": self.network.config.layer}

    def tokenize(self, captions: Sequence[str], tokens: int) -> Tokens:
        """As Vocabulary.tokenize."""
        return self.vocabulary.tokenize(captions, tokens)

    def encode(self, tokens: Tokens) -> Features:
        """Features of token ids, [B, T, C], zero at padding, in the network's `config.dtype`."""
        ids_BT, mask_BT = tokens
        return Features(_features(self.network, ids_BT, mask_BT), jnp.asarray(mask_BT))

    def features(self, captions: Sequence[str], tokens: int) -> Features:
        """Features of captions, computed as one batch.

        Args:
          captions: as in `tokenize`.
          tokens: as in `tokenize`.

        Returns:
          As `encode`.

        Raises:
          InputError: as in `tokenize`.
        """
        return self.encode(self.tokenize(captions, tokens))


@jax.jit
def _features(network: Gemma, ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    return network.features(ids_BT, mask_BT)


def _sentencepiece(vocabulary: bytes, rows: int) -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise InputError(
            "text encoders need sentencepiece: pip install 'maskgil_jax[text]'"
        ) from None
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    except RuntimeError as error:
        raise InputError(f"{VOCABULARY} is not a sentencepiece model: {error}") from None
    if pieces.bos_id() < 0 or pieces.get_piece_size() > rows:
        raise InputError(
            f"{VOCABULARY} has {pieces.get_piece_size()} pieces and id {pieces.bos_id()} for the "
            f"beginning of a text, expected at most {rows} and one: those of the embedding"
        )
    return pieces
