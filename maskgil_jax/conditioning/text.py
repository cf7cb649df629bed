"""Captions as a condition.

Letters: T tokens, C width of features.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from maskgil_jax.conditioning.base import Conditioning, Example, identity
from maskgil_jax.data.companions.features import padded
from maskgil_jax.data.records.image_records import Record, captions_of
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.data.shards.shard_index import Index
from maskgil_jax.pretrained.text_encoder import TextEncoder, Vocabulary
from maskgil_jax.runtime.errors import InputError, Unreadable


def of_captions(encoder: TextEncoder, tokens: int, shards: Sequence[Index]) -> Conditioning:
    """Captions as a condition of some tokens.

    Args:
      encoder: of them.
      tokens: T.
      shards: indices of the code shards that hold them; none for images.

    Raises:
      InputError: shards of another encoder, or that keep less of each caption.
    """
    for index in shards:
        _check_captions(index, encoder, tokens)
    beforehand = bool(shards) and all(index.features for index in shards)
    reader = CaptionReader(encoder.vocabulary, tokens, features=beforehand)
    network = None if beforehand else jax.device_get(encoder.network)
    return Conditioning(reader, network, encoder.provenance, reader.caption)


def _check_captions(index: Index, encoder: TextEncoder, tokens: int) -> None:
    where = f"the code shards of {index.source['name']}"
    if identity(index.encoder) != identity(encoder.provenance):
        captions = f"captions for {identity(index.encoder)}" if index.encoder else "no captions"
        raise InputError(
            f"{where} hold {captions}, but the encoder here is {identity(encoder.provenance)}: "
            f"tokenize with encoder={encoder.provenance['path']}"
        )
    if index.caption_tokens < tokens:
        raise InputError(
            f"{where} keep {index.caption_tokens} tokens of a caption, but the model takes "
            f"condition_tokens = {tokens}: expected as many or fewer"
        )


@dataclasses.dataclass(frozen=True)
class CaptionReader:
    """Reads one of the captions of an image, at random.

    Attributes:
      vocabulary: of the encoder; code shards hold ids of it already.
      tokens: T; longer captions lose their end.
      features: take `features`, [T, C], which the code shards hold, and not `prompt`, int32 [T].
    """

    vocabulary: Vocabulary
    tokens: int
    features: bool

    def __call__(
        self, record: Record | CodeRecord, rng: np.random.Generator, bucket: int
    ) -> Example:
        """The condition's fields of an example, see base.Read."""
        if isinstance(record, Record):
            captions = [self.caption(record, rng)]
            ids_BT, mask_BT = self.vocabulary.tokenize(captions, self.tokens)
            return {"prompt": ids_BT[0], "mask": mask_BT[0]}
        largest = max(int(ids.max()) for ids in record.captions)
        if largest >= self.vocabulary.size:
            raise Unreadable(
                f"token id {largest} of a caption, expected 0 to {self.vocabulary.size - 1}"
            )
        field = "features" if self.features else "prompt"
        choices = record.features if self.features else record.captions
        values, mask_T = padded(choices[rng.integers(len(choices))], self.tokens)
        return {field: values, "mask": mask_T}

    def caption(self, record: Record | CodeRecord, rng: np.random.Generator) -> str:
        """The caption that `__call__` reads with these random numbers."""
        if isinstance(record, Record):
            captions = captions_of(record)
            return captions[rng.integers(len(captions))]
        return self.vocabulary.text(record.captions[rng.integers(len(record.captions))])
