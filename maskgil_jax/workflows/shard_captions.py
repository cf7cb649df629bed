"""Captions on their way into code shards: as token ids, and as features where those are kept."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from maskgil_jax.data.records.image_records import Record, captions_of
from maskgil_jax.pretrained.text_encoder import TextEncoder, Tokens

SMALLEST = 8  # captions, and tokens of each, that features are computed of; and twice as many, ...


class Captions(NamedTuple):
    """The captions of one image.

    Attributes:
      ids: int32 [n] of each.
      features: [n, C] of each, in the dtype of the encoder's computation; or none.
    """

    ids: tuple[np.ndarray, ...]
    features: tuple[np.ndarray, ...] = ()


class CaptionEncoder:
    """Turns captions into token ids and features, as the encoder of text does.

    Args:
      encoder: of captions.
      tokens: that are kept of a caption, from its beginning.
      batch_size: captions encoded at once.
    """

    def __init__(self, encoder: TextEncoder, tokens: int, batch_size: int):
        self._encoder, self._tokens, self._batch_size = encoder, tokens, batch_size

    def read(self, record: Record) -> Captions:
        """The token ids of an image's captions.

        Raises:
          Unreadable: it has none that can be used.
        """
        tokens = self._encoder.tokenize(captions_of(record), self._tokens)
        return Captions(tuple(ids[mask] for ids, mask in zip(*tokens, strict=True)))

    def with_features(self, images: Sequence[Captions]) -> list[Captions]:
        """The same with the features of all captions, those of about one length together."""
        ids = [caption for image in images for caption in image.ids]
        lengths = np.array([_rounded(len(caption), self._tokens) for caption in ids])
        features: list[np.ndarray] = [np.empty(0)] * len(ids)
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            for start in range(0, len(places), self._batch_size):
                some = places[start : start + self._batch_size]
                size = _rounded(len(some), self._batch_size)
                batch = _batch([ids[place] for place in some], length, size)
                encoded, mask = (np.asarray(x) for x in self._encoder.encode(batch))
                for place, values, valid in zip(some, encoded, mask, strict=False):
                    features[place] = values[valid]
        following = iter(features)
        return [Captions(image.ids, tuple(next(following) for _ in image.ids)) for image in images]


def _rounded(count: int, most: int) -> int:
    """The next of SMALLEST, twice that, ...: few shapes are compiled, and little is padding."""
    size = SMALLEST
    while size < count:
        size *= 2
    return min(size, most)


def _batch(captions: Sequence[np.ndarray], length: int, size: int) -> Tokens:
    """Captions padded on the left to `length`, and rows of nothing but padding to `size`."""
    ids_BT, mask_BT = np.zeros((size, length), np.int32), np.zeros((size, length), bool)
    for row, caption in enumerate(captions):
        ids_BT[row, length - len(caption) :] = caption
        mask_BT[row, length - len(caption) :] = True
    return Tokens(ids_BT, mask_BT)
