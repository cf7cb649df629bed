"""What generators are conditioned on: how it is read with an image, and how the model gets it.

An example of a batch has either the class itself (`label`), or features that were computed
beforehand (`features`, `mask`), or what a frozen encoder makes features of in the step (`prompt`:
token ids of a caption, or the log-mel frames of a recording; `mask`).
"""

import pathlib
from typing import Any, Protocol

import jax
import numpy as np

from maskgil_jax.data.features import FeatureFiles, padded
from maskgil_jax.data.shards import CodeRecord
from maskgil_jax.data.sources import Record, captions_of
from maskgil_jax.errors import InputError, Unreadable
from maskgil_jax.models.conditions import Condition, Features
from maskgil_jax.text_encoders import TextEncoder

Example = dict[str, np.ndarray | np.generic]


class Conditioning(Protocol):
    """Reads the condition of an image.

    Attributes:
      network: the frozen encoder of prompts that the training step needs, or None.
      provenance: what a generator keeps of the encoder that it depends on; {} for none.
    """

    network: Any
    provenance: dict[str, Any]

    def example(self, record: Record | CodeRecord, rng: np.random.Generator) -> Example:
        """The condition's part of an example.

        Raises:
          Unreadable: the image has none that can be used.
        """


class ByClass:
    """The class of the image."""

    network = None
    provenance: dict[str, Any] = {}

    def example(self, record: Record | CodeRecord, rng: np.random.Generator) -> Example:
        """`label`, int32."""
        return {"label": np.int32(record.label)}


class ByFiles:
    """Features of a file for each image."""

    network = None
    provenance: dict[str, Any] = {}

    def __init__(self, files: FeatureFiles):
        self._files = files

    def example(self, record: Record | CodeRecord, rng: np.random.Generator) -> Example:
        """`features`, float32 [T, C], and `mask`, bool [T]."""
        return self._files[record.id]._asdict()


class ByText:
    """One of the captions of the image, drawn anew each time.

    Args:
      encoder: of captions.
      tokens: of a condition; longer captions lose their end.
    """

    def __init__(self, encoder: TextEncoder, tokens: int):
        self._encoder, self._tokens = encoder, tokens
        self.network, self.provenance = encoder.network, encoder.provenance

    def example(self, record: Record | CodeRecord, rng: np.random.Generator) -> Example:
        """`prompt`, int32 [T], and `mask`; or the features of shards that hold them."""
        if isinstance(record, Record):
            captions = captions_of(record)
            prompt, mask = self._encoder.tokenize(
                [captions[rng.integers(len(captions))]], self._tokens
            )
            return {"prompt": prompt[0], "mask": mask[0]}
        choice = rng.integers(len(record.captions))
        if record.features:
            return padded(record.features[choice], self._tokens)._asdict()
        return padded(record.captions[choice], self._tokens)


class BySpeech:
    """A recording that the image goes with.

    Args:
      recordings: of the images.
      encoder: of speech; None: the log-mel frames are the features.
      tokens: of a condition; what is longer is cut off.
      width: of a token, which is several frames side by side.

    Raises:
      InputError: a width that is no multiple of the encoder's.
    """

    def __init__(
        self, recordings: Recordings, encoder: SpeechEncoder | None, tokens: int, width: int
    ):
        self._recordings, self._hearing = recordings, Hearing(encoder, tokens, width)
        self.network, self.provenance = self._hearing.network, self._hearing.provenance

    def example(self, record: Record | CodeRecord, rng: np.random.Generator) -> Example:
        """`prompt`, float32 [F, M], and `mask`, bool [T], false after the recording's end."""
        data = self._recordings.read(record.id, record.label, rng)
        return self._hearing.prompt(audio.decode(data))


def condition_of(batch: dict[str, jax.Array], encoder: Any) -> Condition:
    """What the model takes of the examples of a batch, on the device.

    Args:
      batch: as the Conditionings make them.
      encoder: the network of one.
    """
    if "label" in batch:
        return batch["label"]
    mask_BT = batch["mask"]
    if "features" in batch:
        return Features(batch["features"], mask_BT)
    return Features(encoder.features(batch["prompt"], mask_BT), mask_BT)
