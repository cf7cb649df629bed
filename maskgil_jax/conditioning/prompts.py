"""Captions as prompts of a model that reads text itself, as Lumina-mGPT.

Letters: T tokens of a prompt and of what begins the image.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from maskgil_jax.conditioning.base import Conditioning, Example
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.records.image_records import Record, captions_of
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.pretrained import prompts
from maskgil_jax.pretrained.prompts import PromptVocabulary
from maskgil_jax.runtime.errors import InputError, Unreadable


def of_captions(path: str, tokens: int, size: int, grids: Sequence[Size]) -> Conditioning:
    """Captions of images as prompts of T tokens.

    Args:
      path: a tokenizer.json, or a directory with it.
      tokens: T; longer captions lose their end.
      size: ids of the model's vocabulary.
      grids: (height, width) in tokens of each size of images.

    Raises:
      InputError: no vocabulary there, one of another model, or sizes that the model has no ids for.
    """
    file = epath.Path(path)
    file = file / prompts.VOCABULARY if file.is_dir() else file
    if not path or not file.exists():
        raise InputError(
            f"config.vocabulary = {path!r}: there is no {prompts.VOCABULARY}, which captions are "
            "read by. Expected its path, or a directory of Lumina-mGPT with it"
        )
    content = file.read_bytes()
    vocabulary = PromptVocabulary(content)
    if vocabulary.size > size:
        raise InputError(
            f"{file} has {vocabulary.size} ids, but config.model.vocabulary = {size}: expected as "
            "many or more"
        )
    try:
        openings = [lumina_sequence.opening(grid) for grid in grids]
    except ValueError as error:
        raise InputError(f"config.data.image_size, config.data.buckets: {error}") from None
    shortest = max(len(vocabulary.ids("", grid)) for grid in grids) + len(openings[0])
    if tokens < shortest:
        raise InputError(
            f"config.model.condition_tokens = {tokens}, expected {shortest} or more: a prompt has "
            "as many without a caption"
        )
    reader = PromptReader(vocabulary, tokens, tuple(grids))
    return Conditioning(reader, name=reader.caption, vocabulary=content)


@dataclasses.dataclass(frozen=True)
class PromptReader:
    """Reads one of the captions of an image, at random, as the prompt for it.

    Attributes:
      vocabulary: of the model.
      tokens: T.
      grids: (height, width) in tokens of each size of images.
    """

    vocabulary: PromptVocabulary
    tokens: int
    grids: tuple[Size, ...]

    def __call__(
        self, record: Record | CodeRecord, rng: np.random.Generator, bucket: int
    ) -> Example:
        """`ids`, int32 [T], and `mask`, bool [T]: padded on the left."""
        grid = self.grids[bucket]
        try:
            *ids, end = self.vocabulary.ids(self.caption(record, rng), grid)
        except InputError as error:  # it holds the name of a sign
            raise Unreadable(str(error)) from None
        opening = lumina_sequence.opening(grid)
        room = self.tokens - len(opening) - 1
        ids_BT, mask_BT = prompts.batch([[*ids[:room], end]], opening, self.tokens)
        return {"ids": ids_BT[0], "mask": mask_BT[0]}

    def caption(self, record: Record | CodeRecord, rng: np.random.Generator) -> str:
        """The caption that `__call__` reads with these random numbers."""
        if not isinstance(record, Record):
            raise TypeError(f"a record of {type(record).__name__}, expected an image")
        captions = captions_of(record)
        return captions[rng.integers(len(captions))]
