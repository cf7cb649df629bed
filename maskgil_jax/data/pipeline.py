"""Batches as a pure function of the step: examples are loaded in their order, and batched.

Each process loads its rows of each batch: the global batch of a step is the same, in the same
order, for any number of processes, and a run resumes at step n by starting at batch n. No iterator
state is ever saved.
"""

import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from absl import flags

from maskgil_jax.data.images import cropping
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.images.color import check_color
from maskgil_jax.data.mixture import Examples
from maskgil_jax.data.order import ENDLESS, Order
from maskgil_jax.data.records.image_records import Record, opened_image, opened_pixels
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.runtime.errors import InputError, Unreadable

Example = dict[str, np.ndarray | np.generic]
Load = Callable[[int, np.random.Generator], Example]
UNREADABLE_IN_A_ROW = 100  # then the source is wrong, not an image


class Crop(NamedTuple):
    """How images are cropped.

    Attributes:
      smallest: share of a frame's side that the cut has at least, see cropping.random_crop.
      anywhere: whether the cut is at a random place, not in the middle.
    """

    smallest: float
    anywhere: bool


CROPS = {  # by the name in config.data.crop
    "random": Crop(0.8, True),
    "whole_side": Crop(1.0, True),
    "center": Crop(1.0, False),
}


def check_crop(crop: str) -> None:
    """Raise InputError unless this is a key of CROPS."""
    if crop not in CROPS:
        raise InputError(f"config.data.crop = {crop!r}, expected one of {', '.join(CROPS)}")


def batches(
    load: Load,
    order: Order,
    *,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    threads: int = 16,
    workers: int = 0,
) -> grain.DatasetIterator[Example]:
    """Some rows of the batches of the steps after `start_step`; to be closed where workers are.

    Args:
      load: (index, rng) -> example, a function of its arguments alone.
      order: of the examples; its seed is that of the random crops too.
      start_step: steps that are done.
      rows: of each batch, for this process; None: all.
      threads: that load examples, of each worker.
      workers: processes that load examples; 0: this one does.
    """
    streams = [stream.random_map(load) for stream in order.streams]
    mine = _Rows(streams, order, rows or range(order.batch_size), start_step)
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 1))
    data = grain.MapDataset.source(mine).batch(len(mine.rows)).to_iter_dataset(reading)
    if workers:
        if not flags.FLAGS.is_parsed():
            # Grain hands its own flags to its workers, and absl gives none before all are parsed.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers)
        data = data.mp_prefetch(options, worker_init_fn=_ignore_interrupts)
    return iter(data)


def _ignore_interrupts(worker: int, workers: int) -> None:
    """Ctrl-C reaches workers too, while the process that trains needs their batches to the end."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The examples at `rows` of each batch after that of step `start`."""

    streams: Sequence[grain.MapDataset]
    order: Order
    rows: Sequence[int]
    start: int

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Example:
        batch, row = divmod(int(index), len(self.rows))
        pool, position = self.order.place(self.start + batch + 1, self.rows[row])
        return self.streams[pool][position]


def unconditional(record: Record, rng: np.random.Generator, bucket: int) -> Example:
    """No condition: the rest of an example of images alone."""
    return {}


def image_loader(
    source: Examples[Record],
    buckets: np.ndarray,
    *,
    sizes: Sequence[Size],
    crop: str,
    flip: bool,
    color: str = "srgb",
    resize: str = "exact",
    condition: Callable[[Record, np.random.Generator, int], Example] = unconditional,
) -> Load:
    """Examples {image: uint8 [H, W, 3], unreadable: int32, ...}, see `_readable`.

    Args:
      source: of the images.
      buckets: of each image, int [N].
      sizes: (height, width) that the images of each bucket are cropped to.
      crop: key of CROPS.
      flip: mirror half of the images.
      color: key of color.COLORS, see image_decoder.decode.
      resize: key of cropping.RESIZES; "fast" also decodes JPEG at a part of its size, where the
        crop needs no more.
      condition: gives the rest of an example of a bucket; may raise Unreadable.
    """
    check_crop(crop)
    check_color(color, "config.data.color")
    cropping.check_resize(resize)
    (smallest, anywhere), cover = CROPS[crop], cropping.RESIZES[resize]
    opened = opened_pixels if resize == "fast" else opened_image

    def load(index: int, bucket: int, rng: np.random.Generator) -> Example:
        record = source[index]
        height, width = sizes[bucket]
        enough = cropping.largest_frame(height, width, smallest) if resize == "fast" else None
        with opened(record, color, enough) as picture:
            if anywhere:
                pixels = cropping.random_crop(picture, height, width, rng, smallest, cover)
            else:
                pixels = cropping.bucket_crop(picture, height, width, cover=cover)
        if flip and rng.random() < 0.5:
            pixels = cropping.mirrored(pixels)
        return {"image": np.ascontiguousarray(pixels), **condition(record, rng, bucket)}

    return _readable(load, buckets, fits_any=True)


def code_loader(
    shards: Examples[CodeRecord],
    buckets: np.ndarray,
    condition: Callable[[CodeRecord, np.random.Generator, int], Example],
) -> Load:
    """Examples {codes: int32 [h, w], unreadable: int32, ...}, see `_readable`.

    One of the stored crops is taken at random.

    Args:
      shards: of the codes.
      buckets: of each example, int [N].
      condition: as in image_loader.
    """

    def load(index: int, bucket: int, rng: np.random.Generator) -> Example:
        record = shards[index]
        view = record.codes[rng.integers(len(record.codes))]
        return {"codes": view, **condition(record, rng, bucket)}

    return _readable(load, buckets, fits_any=False)


def _readable(
    load: Callable[[int, int, np.random.Generator], Example], buckets: np.ndarray, *, fits_any: bool
) -> Load:
    """The same, but in the place of an example that cannot be read stands another that can.

    So batches keep their size and stay a function of the step. `unreadable` is the index of the
    first example that was passed over, or -1.

    Args:
      load: (index, bucket, rng) -> example of the shape of this bucket.
      buckets: of each example, int [N].
      fits_any: whether examples can have the shape of other buckets than their own.
    """

    def readable(index: int, rng: np.random.Generator) -> Example:
        reasons: list[str] = []
        for candidate in _from(index, buckets, fits_any):
            try:
                example = load(candidate, int(buckets[index]), rng)
            except Unreadable as error:
                reasons.append(str(error))
                continue
            return {**example, "unreadable": np.int32(index if reasons else -1)}
        row = "images in a row" if fits_any else "examples of one size"
        raise InputError(f"{len(reasons)} {row} cannot be read, the first is {reasons[0]}")

    return readable


def _from(index: int, buckets: np.ndarray, fits_any: bool) -> Iterator[int]:
    """This example, then others of its bucket; then of others.

    Of images those that follow, around the end; of codes any, since a damaged shard may be
    thousands in a row.
    """
    yield index
    members = np.flatnonzero(buckets == buckets[index])
    if not fits_any:
        others = members[members != index]
        most = min(len(others), UNREADABLE_IN_A_ROW - 1)
        yield from np.random.default_rng(index).choice(others, most, replace=False).tolist()
        return
    members = np.roll(members, -int(np.searchsorted(members, index)))[1:UNREADABLE_IN_A_ROW]
    yield from members.tolist()
    # One bad image may be all that a rare bucket has.
    beside = np.arange(1, min(2 * UNREADABLE_IN_A_ROW, len(buckets)))
    around = (index + beside) % len(buckets)
    others = around[buckets[around] != buckets[index]]
    yield from others[: UNREADABLE_IN_A_ROW - 1 - len(members)].tolist()
