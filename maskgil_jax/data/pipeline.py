"""Batches as a pure function of the step.

Shuffled and repeated globally, batched, then sliced by process: the global batch of a step is the
same, in the same order, for any number of processes, and a run resumes at step n by starting at
batch n. No iterator state is ever saved.
"""

import functools
from collections.abc import Callable, Iterator

import grain
import numpy as np
from PIL import Image

from maskgil_jax.data import images
from maskgil_jax.data.shards import CodeShards
from maskgil_jax.data.sources import Source
from maskgil_jax.errors import InputError

Example = dict[str, np.ndarray | np.generic]
UNREADABLE_IN_A_ROW = 100  # then the source is wrong, not an image

# (image, size, rng) -> uint8 [size, size, 3], by the name in config.data.crop.
CROPS: dict[str, Callable[[Image.Image, int, np.random.Generator], np.ndarray]] = {
    "random": images.random_crop,
    "whole_side": functools.partial(images.random_crop, smallest=1.0),
    "center": lambda image, size, rng: images.center_crop(image, size),
}


def batches(
    load: Callable[[int, np.random.Generator], Example],
    length: int,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process: int = 0,
    processes: int = 1,
    threads: int = 16,
) -> Iterator[Example]:
    """This process's part of the batches start_step, start_step + 1, ...

    Args:
      load: (index, rng) -> example, a function of its arguments alone.
      length: number of examples in an epoch.
      batch_size: global.
      seed: of the order and of the random crops.
      process, processes: which contiguous part of each batch.
      threads: that load examples.
    """
    # Grain's endless repeat() is sys.maxsize long, which overflows once it is sliced.
    epochs = 2**40 // length
    data = grain.MapDataset.range(length).seed(seed).shuffle().repeat(epochs).random_map(load)
    data = data.batch(batch_size // processes)[process::processes][start_step:]
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 1))
    return iter(data.to_iter_dataset(options))


def image_loader(
    source: Source, *, size: int, crop: str, flip: bool
) -> Callable[[int, np.random.Generator], Example]:
    """Examples {image: uint8 [size, size, 3], label: int32, unreadable: int32}.

    In the place of an image that cannot be read stands the next one that can, so that batches keep
    their size and stay a function of the step; `unreadable` is the index of the first image that
    was passed over, or -1.

    Args:
      crop: key of CROPS.
      flip: mirror half of the images.
    """
    if crop not in CROPS:
        raise InputError(f"config.data.crop = {crop!r}, expected one of {', '.join(CROPS)}")

    def load(index: int, rng: np.random.Generator) -> Example:
        unreadable, reason = -1, ""
        for offset in range(min(UNREADABLE_IN_A_ROW, len(source))):
            record = source[(index + offset) % len(source)]
            try:
                image = images.decode(record.image)
            except images.UnreadableImage as error:
                if unreadable < 0:
                    unreadable, reason = index, f"{record.id}: {error}"
                continue
            pixels = CROPS[crop](image, size, rng)
            if flip and rng.random() < 0.5:
                pixels = pixels[:, ::-1]
            return {
                "image": np.ascontiguousarray(pixels),
                "label": np.int32(record.label),
                "unreadable": np.int32(unreadable),
            }
        raise InputError(
            f"{min(UNREADABLE_IN_A_ROW, len(source))} images in a row cannot be read, the first "
            f"is {reason}"
        )

    return load


def code_loader(shards: CodeShards) -> Callable[[int, np.random.Generator], Example]:
    """Examples {codes: int32 [h, w], label: int32}; one of the stored crops at random."""

    def load(index: int, rng: np.random.Generator) -> Example:
        codes, label = shards[index]
        return {"codes": codes[rng.integers(len(codes))], "label": np.int32(label)}

    return load
