"""Data sets of TensorFlow Datasets, read from ArrayRecord files without TensorFlow."""

import functools
from collections.abc import Iterator
from typing import Any

from maskgil_jax.data.formats import array_records
from maskgil_jax.data.records import captions
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.image_records import Record, unusable
from maskgil_jax.runtime.errors import InputError


class Tfds:
    """A TFDS dataset in ArrayRecord form, `NAME/SPLIT`, with a feature `image`.

    Classes are those of `label`, or all images are one class; captions are in the first of the
    features `caption`, `captions` and `text` that is there, as one text, several, or a `text` in
    each of several. Images stay encoded, and TensorFlow is not needed.
    """

    def __init__(self, name: str):
        import tensorflow_datasets as tfds

        dataset, _, split = name.rpartition("/")
        if not dataset:
            raise InputError(f"data source tfds:{name}: expected tfds:NAME/SPLIT")
        try:
            builder = tfds.builder(dataset, file_format="array_record")
            features = builder.info.features
            self._data = builder.as_data_source(
                split, decoders={"image": tfds.decode.SkipDecoding()}
            )
            # TFDS would keep every file open that it reads.
            self._data.data_source = array_records.RecordRanges(
                [
                    (str(instruction.filename), instruction.skip, instruction.take)
                    for instruction in builder.info.splits[split].file_instructions
                ]
            )
        except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as error:
            raise InputError(
                f"data source tfds:{name} cannot be read: {error} (prepare it with `tfds build "
                f"{dataset} --file_format=array_record`)"
            ) from None
        if "image" not in features:
            raise InputError(
                f"data source tfds:{name} has features {sorted(features)}, expected image"
            )
        self._name = name
        self._labelled = "label" in features
        label = features["label"] if self._labelled else None
        if label and not (isinstance(label, tfds.features.ClassLabel) and label.num_classes):
            raise InputError(
                f"data source tfds:{name}: its label is {label}, expected one class of "
                "known names (tfds.features.ClassLabel)"
            )
        self._caption = next((field for field in captions.FIELDS if field in features), None)
        self.class_names = tuple(features["label"].names) if self._labelled else (dataset,)
        self.census = Census(len(self._data), self.class_names)
        self.census.captioned = None if self._caption else 0

    def __len__(self) -> int:
        return len(self._data)

    def names(self) -> Iterator[str]:
        """Ids of all records."""
        return map(self._id, range(len(self)))

    def _id(self, index: int) -> str:
        return f"{self._name}[{index}]"

    def __getitem__(self, index: int) -> Record:
        try:
            example = self._data[index]
        except Exception as error:  # readers raise whatever a damaged file makes them stumble over
            return unusable(self._id(index), str(error) or type(error).__name__)
        label = int(example["label"]) if self._labelled else 0
        if not 0 <= label < len(self.class_names):  # -1 where a test set keeps its labels secret
            last = len(self.class_names) - 1
            return unusable(self._id(index), f"its class is {label}, expected 0 to {last}")
        texts = example[self._caption] if self._caption else ()
        return Record(
            bytes(example["image"]),
            label,
            self._id(index),
            functools.partial(_texts, texts),
        )


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = value["text"]
    return tuple(map(captions.decode, [value] if isinstance(value, bytes) else value))
