"""Batches as a pure function of the step.

Examples are shuffled and repeated without end, and each process loads its rows of each batch: the
global batch of a step is the same, in the same order, for any number of processes, and a run
resumes at step n by starting at batch n. No iterator state is ever saved.

A batch holds examples of one shape, its bucket.
"""

import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from absl import flags
from PIL import Image

from maskgil_jax.data.images import cropping
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.images.color import check_color
from maskgil_jax.data.mixture import Examples
from maskgil_jax.data.records.image_records import Record, opened_image
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.runtime.errors import InputError, Unreadable

Example = dict[str, np.ndarray | np.generic]
Load = Callable[[int, np.random.Generator], Example]
UNREADABLE_IN_A_ROW = 100  # then the source is wrong, not an image
ENDLESS = 2**40  # Grain's own endless repeat() is sys.maxsize long, which overflows once sliced
MIXED = 1000  # examples in which the sources of a mixture have their shares

# (image, height, width, rng) -> uint8 [height, width, 3], by the name in config.data.crop.
CROPS: dict[str, Callable[[Image.Image, int, int, np.random.Generator], np.ndarray]] = {
    "random": cropping.random_crop,
    "whole_side": functools.partial(cropping.random_crop, smallest=1.0),
    "center": lambda image, height, width, rng: cropping.bucket_crop(image, height, width),
}


def check_crop(crop: str) -> None:
    """Raise InputError unless this is a key of CROPS."""
    if crop not in CROPS:
        raise InputError(f"config.data.crop = {crop!r}, expected one of {', '.join(CROPS)}")


@dataclasses.dataclass(frozen=True)
class Part:
    """Examples of one source and one shape, which are shuffled among themselves.

    Attributes:
      members: their indices, ascending.
      bucket: number of their shape; a batch is of one bucket.
      share: how many examples of a round of all the data are of this part; where sources are not
        mixed by weight, that is all of its members.
    """

    members: np.ndarray
    bucket: int
    share: float


def parts_of(buckets: Sequence[np.ndarray], weights: Sequence[float] = (1.0,)) -> tuple[Part, ...]:
    """The parts of sources that are joined one after the other.

    Args:
      buckets: of each source, the bucket of each of its examples, int [N].
      weights: of the sources: how often they are drawn from.
    """
    total, first, parts = sum(map(len, buckets)), 0, []
    for numbers, weight in zip(buckets, weights, strict=True):
        for bucket in np.unique(numbers).tolist():
            members = first + np.flatnonzero(numbers == bucket)
            share = len(members) * weight / sum(weights) * total / len(numbers)
            parts.append(Part(members, bucket, share))
        first += len(numbers)
    return tuple(parts)


def examples_in(parts: Sequence[Part]) -> int:
    """Number of examples in all of them."""
    return sum(len(part.members) for part in parts)


@dataclasses.dataclass(frozen=True)
class Turns:
    """Whose turn it is among several endless streams, as a function of the position.

    In each round every stream has its number of turns, in an order drawn for the round. Fractions
    add up: a stream with 0.3 turns a round has one in some of the rounds.

    Attributes:
      counts: turns in a round.
      seed: of the orders.
    """

    counts: tuple[float, ...]
    seed: tuple[int, ...]

    def at(self, position: int) -> tuple[int, int]:
        """The stream, and which of its turns it is; within a round these are shuffled too."""
        return (0, position) if len(self.counts) == 1 else _turn(self, position)

    def before(self, rounds: int) -> np.ndarray:
        """Turns of each stream in so many rounds, int."""
        return np.floor(rounds * np.array(self.counts)).astype(int)


@functools.lru_cache(1024)
def _turn(turns: Turns, position: int) -> tuple[int, int]:
    # So many rounds have this many turns or, as fractions are cut off, fewer: begin before them.
    number = max(0, int(position / sum(turns.counts)) - 1)
    while turns.before(number + 1).sum() <= position:
        number += 1
    streams, ordinals = _round(turns, number)
    place = position - turns.before(number).sum()
    return int(streams[place]), int(ordinals[place])


@functools.lru_cache(256)
def _round(turns: Turns, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The stream of each turn of a round, and its ordinal within the stream."""
    first, last = turns.before(number), turns.before(number + 1)
    streams = np.repeat(np.arange(len(first)), last - first)
    ordinals = np.concatenate([np.arange(*ends) for ends in zip(first, last, strict=True)])
    order = np.random.default_rng((*turns.seed, number)).permutation(len(streams))
    return streams[order], ordinals[order]


class Order:
    """Which examples the batch of a step holds; the first step is 1.

    Each part is shuffled anew in each of its epochs, without end, so that what is left over of one
    epoch opens the next. A batch takes the next ones of a bucket: buckets have their turns in
    proportion to their examples (one smaller than a batch, in some rounds only), and the parts of a
    bucket, where sources are mixed, theirs within its batches.

    Args:
      parts: of the data.
      batch_size: global.
      seed: of all orders.

    Attributes:
      batch_size: as above.
      streams: indices of the examples of each part, shuffled and repeated.
    """

    def __init__(self, parts: Sequence[Part], batch_size: int, seed: int):
        self.batch_size = batch_size
        self.streams = [
            grain.MapDataset.source(part.members)
            .seed(seed + number)
            .shuffle()
            .repeat(ENDLESS // len(part.members))
            for number, part in enumerate(parts)
        ]
        self._buckets = sorted({part.bucket for part in parts})
        self._parts_of = [
            [i for i, part in enumerate(parts) if part.bucket == bucket] for bucket in self._buckets
        ]
        shares = [[parts[i].share for i in numbers] for numbers in self._parts_of]
        self._batches = Turns(tuple(sum(of) / batch_size for of in shares), (seed,))
        self._within = [
            Turns(tuple(MIXED * share / sum(of) for share in of), (seed, 1 + number))
            for number, of in enumerate(shares)
        ]

    def bucket(self, step: int) -> int:
        """Of all examples of the batch."""
        return self._buckets[self._batches.at(step - 1)[0]]

    def place(self, step: int, row: int) -> tuple[int, int]:
        """Number of the part that a row of the batch comes from, and its position in there."""
        bucket, batch = self._batches.at(step - 1)
        number, position = self._within[bucket].at(batch * self.batch_size + row)
        return self._parts_of[bucket][number], position

    def examples(self, step: int) -> list[int]:
        """Indices of the examples of the batch."""
        places = [self.place(step, row) for row in range(self.batch_size)]
        return [int(self.streams[part][position]) for part, position in places]


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
        if not flags.FLAGS.is_parsed():  # outside a command; Grain asks for flags of its own
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
        part, position = self.order.place(self.start + batch + 1, self.rows[row])
        return self.streams[part][position]


def unconditional(record: Record, rng: np.random.Generator) -> Example:
    """Nothing."""
    return {}


def image_loader(
    source: Examples[Record],
    buckets: np.ndarray,
    *,
    sizes: Sequence[Size],
    crop: str,
    flip: bool,
    color: str = "srgb",
    condition: Callable[[Record, np.random.Generator], Example] = unconditional,
) -> Load:
    """Examples {image: uint8 [H, W, 3], unreadable: int32, ...}, see `_readable`.

    Args:
      source: of the images.
      buckets: of each image, int [N].
      sizes: (height, width) that the images of each bucket are cropped to.
      crop: key of CROPS.
      flip: mirror half of the images.
      color: key of color.COLORS, see image_decoder.decode.
      condition: gives the rest of an example; may raise Unreadable.
    """
    check_crop(crop)
    check_color(color, "config.data.color")

    def load(index: int, bucket: int, rng: np.random.Generator) -> Example:
        record = source[index]
        height, width = sizes[bucket]
        with opened_image(record, color) as image:
            pixels = CROPS[crop](image, height, width, rng)
        if flip and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return {"image": np.ascontiguousarray(pixels), **condition(record, rng)}

    return _readable(load, buckets, fits_any=True)


def code_loader(
    shards: Examples[CodeRecord],
    buckets: np.ndarray,
    condition: Callable[[CodeRecord, np.random.Generator], Example],
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
        return {"codes": view, **condition(record, rng)}

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
