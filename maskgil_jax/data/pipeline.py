"""Batches as a pure function of the step.

Shuffled and repeated globally, then each process loads its rows of each batch: the global batch of
a step is the same, in the same order, for any number of processes, and a run resumes at step n by
starting at batch n. No iterator state is ever saved.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from PIL import Image

from maskgil_jax.data import images
from maskgil_jax.data.features import FeatureFiles
from maskgil_jax.data.shards import CodeShards
from maskgil_jax.data.sources import Source
from maskgil_jax.errors import InputError, Unreadable

Example = dict[str, np.ndarray | np.generic]
Load = Callable[[int, np.random.Generator], Example]
UNREADABLE_IN_A_ROW = 100  # then the source is wrong, not an image

# (image, height, width, rng) -> uint8 [height, width, 3], by the name in config.data.crop.
CROPS: dict[str, Callable[[Image.Image, int, int, np.random.Generator], np.ndarray]] = {
    "random": images.random_crop,
    "whole_side": functools.partial(images.random_crop, smallest=1.0),
    "center": lambda image, height, width, rng: images.bucket_crop(image, height, width),
}


def batches(
    load: Load,
    length: int,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    threads: int = 16,
) -> Iterator[Example]:
    """Some rows of the batches start_step, start_step + 1, ...

    Args:
      load: (index, rng) -> example, a function of its arguments alone.
      length: number of examples in an epoch.
      batch_size: global.
      seed: of the order and of the random crops.
      rows: of each batch, for this process; None: all.
      threads: that load examples.
    """
    examples = _order(length, seed).random_map(load)
    mine = _Rows(examples, batch_size, rows or range(batch_size), start_step)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 1))
    data = grain.MapDataset.source(mine).batch(len(mine.rows))
    return iter(data.to_iter_dataset(options))


def batch_indices(length: int, *, batch_size: int, seed: int, step: int) -> list[int]:
    """Which examples of the epoch the whole batch of a step holds (the first step is 1)."""
    order = _order(length, seed)
    return [int(order[i]) for i in range((step - 1) * batch_size, step * batch_size)]


def _order(length: int, seed: int) -> grain.MapDataset:
    # Grain's endless repeat() is sys.maxsize long, which overflows once it is sliced.
    return grain.MapDataset.range(length).seed(seed).shuffle().repeat(2**40 // length)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The examples at `rows` of each batch, from batch `start` on."""

    examples: grain.MapDataset
    batch_size: int
    rows: Sequence[int]
    start: int

    def __len__(self) -> int:
        return (len(self.examples) // self.batch_size - self.start) * len(self.rows)

    def __getitem__(self, index: int) -> Example:
        batch, row = divmod(int(index), len(self.rows))
        return self.examples[(self.start + batch) * self.batch_size + self.rows[row]]


def image_loader(
    source: Source, *, size: int, crop: str, flip: bool, features: FeatureFiles | None = None
) -> Load:
    """Examples {image: uint8 [size, size, 3], label: int32, unreadable: int32}, see `_readable`.

    Args:
      source: of the images.
      size: side of the crop.
      crop: key of CROPS.
      flip: mirror half of the images.
      features: also gives {features: float32 [T, C], mask: bool [T]}.
    """
    if crop not in CROPS:
        raise InputError(f"config.data.crop = {crop!r}, expected one of {', '.join(CROPS)}")

    def load(index: int, rng: np.random.Generator) -> Example:
        record = source[index]
        try:
            image, found = images.decode(record.image), _features(features, record.id)
        except Unreadable as error:
            raise Unreadable(f"{record.id}: {error}") from error
        pixels = CROPS[crop](image, size, size, rng)
        if flip and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return {"image": np.ascontiguousarray(pixels), "label": np.int32(record.label), **found}

    return _readable(load, len(source))


def code_loader(shards: CodeShards, features: FeatureFiles | None = None) -> Load:
    """Examples {codes: int32 [h, w], label: int32, unreadable: int32}, see `_readable`.

    One of the stored crops is taken at random.

    Args:
      shards: of the codes.
      features: as in image_loader.
    """

    def load(index: int, rng: np.random.Generator) -> Example:
        record = shards[index]
        view = record.codes[rng.integers(len(record.codes))]
        return {"codes": view, "label": np.int32(record.label), **_features(features, record.id)}

    return _readable(load, len(shards))


def _features(features: FeatureFiles | None, name: str) -> Example:
    if features is None:
        return {}
    found = features[name]
    return {"features": found.features_TC, "mask": found.mask_T}


def _readable(load: Load, length: int) -> Load:
    """The same, but in the place of an example that cannot be read stands the next one that can.

    So batches keep their size and stay a function of the step. `unreadable` is the index of the
    first example that was passed over, or -1.
    """

    def readable(index: int, rng: np.random.Generator) -> Example:
        unreadable, reason, tries = -1, "", min(UNREADABLE_IN_A_ROW, length)
        for offset in range(tries):
            try:
                example = load((index + offset) % length, rng)
            except Unreadable as error:
                if unreadable < 0:
                    unreadable, reason = index, str(error)
                continue
            return {**example, "unreadable": np.int32(unreadable)}
        raise InputError(f"{tries} images in a row cannot be read, the first is {reason}")

    return readable
