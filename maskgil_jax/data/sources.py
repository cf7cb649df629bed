"""What images exist: one record type, one function a source, one table of names."""

import dataclasses
import io
import logging
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from maskgil_jax.data import images
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


@dataclasses.dataclass(frozen=True)
class Record:
    """One image: the bytes of its file, its class, a name for messages, and its captions."""

    image: bytes
    label: int
    id: str
    captions: tuple[str, ...] = ()


class Source(Protocol):
    """Random access to records."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class; its length is the number of classes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


def open_source(spec: str) -> Source:
    """The source that `spec` names: `embedded`, `folder:PATH` or `tfds:NAME/SPLIT`.

    Raises:
      InputError: an unknown kind, or a source without images.
    """
    kind, _, argument = spec.partition(":")
    if kind not in SOURCES:
        known = "embedded, folder:PATH or tfds:NAME/SPLIT"
        if os.path.isdir(os.path.expanduser(spec)):
            known = f"folder:{spec}"
        raise InputError(
            f"data source {spec!r}: unknown kind {kind!r}, expected {known}"
            if spec
            else f"no data source is given (config.data.source, or --data): expected {known}"
        )
    source = SOURCES[kind](argument)
    if not len(source):
        raise InputError(f"data source {spec!r} has no images")
    return source


class Embedded:
    """Handwritten digits that ship with scikit-learn (UCI, 1,797 real scans of 8x8 pixels).

    `embedded` or `embedded:train` are the first 1,437; `embedded:test` are the other 360, written
    by other people (scikit-learn keeps the order of the UCI files).
    """

    def __init__(self, split: str):
        from sklearn.datasets import load_digits

        bounds = {"": (0, 1437), "train": (0, 1437), "test": (1437, 1797)}
        if split not in bounds:
            raise InputError(f"data source embedded:{split}: expected embedded:train or :test")
        self._first, last = bounds[split]
        digits = load_digits()
        # Dark ink on white paper; values are 0 .. 16.
        self._pixels = np.round(255 - digits.images * 255 / 16).astype(np.uint8)[self._first : last]
        self._labels = digits.target[self._first : last]

    class_names = tuple("0123456789")

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Record:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self._pixels[index]).save(file, "PNG")
        name = f"digit {self._first + index}"
        return Record(file.getvalue(), int(self._labels[index]), name)


class Folder:
    """A folder with one sub-folder per class (in sorted order), searched at any depth.

    A folder that holds images itself and no sub-folders with images is one class.
    """

    def __init__(self, path: str):
        path = os.path.expanduser(path)
        if not os.path.isdir(path):
            raise InputError(f"data source folder:{path}: there is no such folder")
        direct = [e.path for e in os.scandir(path) if e.is_file() and _is_image(e.name)]
        nested = {
            entry.name: files
            for entry in sorted(os.scandir(path), key=lambda e: e.name)
            if entry.is_dir() and (files := _images_below(entry.path))
        }
        if not direct and not nested:
            raise InputError(
                f"data source folder:{path}: no images there; expected "
                f"folder/CLASS/name{{{','.join(EXTENSIONS)}}}"
            )
        if direct and nested:
            raise InputError(
                f"data source folder:{path}: {len(direct)} images lie beside {len(nested)} class "
                f"folders (as {sorted(direct)[0]} does); expected every image in a class folder"
            )
        classes = nested or {os.path.basename(os.path.abspath(path)): sorted(direct)}
        self.class_names = tuple(classes)
        self._files = [file for files in classes.values() for file in files]
        self._labels = np.repeat(np.arange(len(classes)), [len(f) for f in classes.values()])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        with open(self._files[index], "rb") as file:
            return Record(file.read(), int(self._labels[index]), self._files[index])


class Tfds:
    """A TFDS dataset in ArrayRecord form, `NAME/SPLIT`, with features `image` and `label`.

    Images stay encoded, and TensorFlow is not needed.
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
        except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as error:
            raise InputError(
                f"data source tfds:{name} cannot be read: {error} (prepare it with `tfds build "
                f"{dataset} --file_format=array_record`)"
            ) from None
        if not {"image", "label"} <= set(features):
            raise InputError(
                f"data source tfds:{name} has features {sorted(features)}, expected image and label"
            )
        self._name = name
        self.class_names = tuple(features["label"].names)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Record:
        example = self._data[index]
        return Record(bytes(example["image"]), int(example["label"]), f"{self._name}[{index}]")


SOURCES: dict[str, Callable[[str], Source]] = {
    "embedded": Embedded,
    "folder": Folder,
    "tfds": Tfds,
}


def center_crops(source: Source, size: int | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` readable images, evenly spread over a source, with their labels.

    Args:
      source: what to read.
      size: side of the ADM centre crop; None keeps images as they are.
      count: how many.

    Returns:
      uint8 [N, H, W, 3] and int64 [N].

    Raises:
      InputError: none can be read, or (without a crop) they differ in size.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int))
    pixels, labels = [], []
    for index in indices.tolist():
        record = source[index]
        try:
            image = images.decode(record.image)
        except images.UnreadableImage as error:
            log.warning("skipped an image that cannot be read: %s: %s", record.id, error)
            continue
        pixels.append(np.asarray(image) if size is None else images.center_crop(image, size))
        labels.append(record.label)
    if len({p.shape for p in pixels}) != 1:
        raise InputError(
            f"images of sizes {sorted({p.shape[:2] for p in pixels})}, expected one size"
            if pixels
            else f"none of {len(indices)} images can be read, as {record.id}"
        )
    return np.stack(pixels), np.array(labels)


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _images_below(path: str) -> Sequence[str]:
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if _is_image(name)
    )
