"""Conditions of generators: how they are read with an image, and how the model gets them.

An example has either the class itself (`label`; 0 where there is no condition), or features that
were computed beforehand (`features`, `mask`), or what a frozen encoder makes features of in the
step (`prompt`: the token ids of a caption, or log-mel frames of a recording; `mask`), or the `ids`
of a prompt that the model reads itself (and `mask`).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from maskgil_jax.data.companions.features import FeatureFiles
from maskgil_jax.data.records.image_records import Record
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.models.token_models.conditions import Condition, Features, Text

Example = dict[str, np.ndarray | np.generic]
# Reads the condition's fields of an example, given the number of the size (data/images/buckets.py)
# that it is trained at; Unreadable where the image has none that can be used.
Read = Callable[[Record | CodeRecord, np.random.Generator, int], Example]
FIELDS = ("label", "features", "prompt", "ids", "mask")  # of an example, that are its condition's
ENCODED_AT_ONCE = 64  # prompts


def name_of_image(record: Record | CodeRecord, rng: np.random.Generator) -> str:
    """The name of the image's file."""
    return pathlib.PurePath(record.id).stem


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Where a generator's condition comes from.

    Attributes:
      read: reads it with each image; goes to worker processes, and so holds no network.
      network: the frozen encoder of prompts, for `condition_of`, in the host's memory: training
        puts its own on the devices; None where there are none.
      provenance: what a generator keeps of the encoder that it depends on.
      name: in words, what `read` reads of an image with the same random numbers.
      vocabulary: content of the tokenizer.json of a model that reads prompts itself.
    """

    read: Read
    network: Any = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: Callable[[Record | CodeRecord, np.random.Generator], str] = name_of_image
    vocabulary: bytes = b""


def read_class(record: Record | CodeRecord, rng: np.random.Generator, bucket: int) -> Example:
    """`label`, int32."""
    return {"label": np.int32(record.label)}


def read_nothing(record: Record | CodeRecord, rng: np.random.Generator, bucket: int) -> Example:
    """`label` 0, which stands for no condition in a model without classes."""
    return {"label": np.int32(0)}


@dataclasses.dataclass(frozen=True)
class FileReader:
    """`features`, float32 [T, C], and `mask`, bool [T], of a file for each image."""

    files: FeatureFiles

    def __call__(
        self, record: Record | CodeRecord, rng: np.random.Generator, bucket: int
    ) -> Example:
        """The condition's fields of an example, see Read."""
        return self.files[record.id]._asdict()


def condition_of(batch: Mapping[str, jax.Array], encoder: Any) -> Condition:
    """The condition that the model takes, of the examples of a batch, on the device.

    Args:
      batch: as `Conditioning.read` makes its examples.
      encoder: `Conditioning.network`.
    """
    if "label" in batch:
        return batch["label"]
    if "features" in batch:
        return Features(batch["features"], batch["mask"])
    if "ids" in batch:
        return Text(batch["ids"], batch["mask"])
    return Features(encoder.features(batch["prompt"], batch["mask"]), batch["mask"])


def stacked(examples: Sequence[Example], conditioning: Conditioning) -> Condition:
    """The condition of examples that are not in a batch yet, as NumPy arrays."""
    encode, network = jax.jit(condition_of), jax.device_put(conditioning.network)
    fields = [name for name in FIELDS if name in examples[0]]
    conditions = []
    for start in range(0, len(examples), ENCODED_AT_ONCE):
        some = examples[start : start + ENCODED_AT_ONCE]
        batch = {name: np.stack([example[name] for example in some]) for name in fields}
        conditions.append(jax.device_get(encode(batch, network)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *conditions)


def identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies an encoder: its provenance but for the path, since it may be moved."""
    return {name: value for name, value in provenance.items() if name != "path"}
