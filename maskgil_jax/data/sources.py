"""The table of image sources, and the function that opens one by its name."""

import functools
import logging
import os
from collections.abc import Callable

import numpy as np

from maskgil_jax.data.formats.arrow import Saved
from maskgil_jax.data.formats.coco import Coco
from maskgil_jax.data.formats.embedded import Embedded
from maskgil_jax.data.formats.folder import Folder
from maskgil_jax.data.formats.parquet import Parquet
from maskgil_jax.data.formats.tar import Tar
from maskgil_jax.data.formats.tfds import Tfds
from maskgil_jax.data.images import cropping
from maskgil_jax.data.records import image_records
from maskgil_jax.data.records.image_records import (
    Source,
    opened_image,
)
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")

# How a source is written, and what opens the part after the colon, by the part before it.
SOURCES: dict[str, tuple[str, Callable[[str], Source]]] = {
    "embedded": ("embedded", Embedded),
    "folder": ("folder:PATH", Folder),
    "nested": ("nested:PATH", functools.partial(Folder, each=True)),
    "parquet": ("parquet:PATTERN", Parquet),
    "hf": ("hf:DIR", Saved),
    "tar": ("tar:PATTERN", Tar),
    "coco": ("coco:JSON", Coco),
    "tfds": ("tfds:NAME/SPLIT", Tfds),
}


def open_source(spec: str) -> Source:
    """The source that `spec` names, as SOURCES writes it.

    Raises:
      InputError: an unknown kind, or a source without images.
    """
    kind, _, argument = spec.partition(":")
    if kind not in SOURCES:
        known = ", ".join(usage for usage, _ in SOURCES.values())
        if os.path.isdir(os.path.expanduser(spec)):
            known = f"folder:{spec}"
        raise InputError(
            f"data source {spec!r}: unknown kind {kind!r}, expected {known}"
            if spec
            else f"no data source is given (config.data.source, or data): expected {known}"
        )
    _, opener = SOURCES[kind]
    source = opener(argument)
    if not len(source):
        raise InputError(f"data source {spec!r} has no images")
    return source


def center_crops(
    source: Source,
    size: int | None,
    count: int,
    color: str = "srgb",
    name: str = "the data source",
) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` readable images, evenly spread over a source, with their labels.

    Args:
      source: what to read.
      size: side of the ADM centre crop; None keeps images as they are.
      count: how many.
      color: key of color.COLORS, see image_decoder.decode.
      name: of the source, for messages.

    Returns:
      uint8 [N, H, W, 3] and int64 [N].

    Raises:
      InputError: none can be read, or (without a crop) they differ in size.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int))
    pixels, labels, reasons = [], [], []
    for index in indices.tolist():
        record = source[index]
        try:
            with opened_image(record, color) as image:
                pixels.append(cropping.center_crop(image, size) if size else np.asarray(image))
        except Unreadable as error:
            reasons.append(str(error))
            log.warning("skipped an image that cannot be read: %s", error)
            continue
        labels.append(record.label)
    if len({p.shape for p in pixels}) != 1:
        raise InputError(
            f"{name} has images of sizes {sorted({p.shape[:2] for p in pixels})}, expected one size"
            if pixels
            else image_records.none_readable(name, len(indices), reasons)
        )
    return np.stack(pixels), np.array(labels)
