"""Which examples the batch of a step holds, as a function of the step and the seed.

A batch holds examples of one shape, its bucket. Each source and shape has a pool of examples that
is shuffled and repeated without end.
"""

import dataclasses
import functools
import threading
from collections.abc import Sequence

import grain
import numpy as np

from maskgil_jax.data.records.image_records import CACHE, Blocks

ENDLESS = 2**40  # Grain's own endless repeat() is sys.maxsize long, which overflows once sliced
WINDOW = CACHE // 4  # bytes of the blocks whose examples are shuffled together
SHORT_ROUND = 32  # batches in which all buckets of blocks have their shares
MIXING_ROUND = 1000  # examples in which the sources of a mixture have their shares


@dataclasses.dataclass(frozen=True)
class Pool:
    """Examples of one source and one shape, which are shuffled among themselves.

    Attributes:
      members: their indices, ascending.
      bucket: number of their shape; a batch is of one bucket.
      share: how many examples of a round of all the data are of this pool; where sources are not
        mixed by weight, that is all of its members.
      stored_in: the block that each member is stored in, int; None where any is read at once.
      block_sizes: bytes of each block of the source, int.
    """

    members: np.ndarray
    bucket: int
    share: float
    stored_in: np.ndarray | None = None
    block_sizes: np.ndarray | None = None


def pools_of(
    buckets: Sequence[np.ndarray],
    weights: Sequence[float] = (1.0,),
    blocks: Sequence[Blocks | None] = (),
) -> tuple[Pool, ...]:
    """The pools of sources that are joined one after the other.

    Args:
      buckets: of each source, the bucket of each of its examples, int [N].
      weights: of the sources: how often examples come from each.
      blocks: of the sources, see image_records.blocks_of; () where none has any.
    """
    total, first, pools = sum(map(len, buckets)), 0, []
    blocks = blocks or [None] * len(buckets)
    for numbers, weight, stored in zip(buckets, weights, blocks, strict=True):
        for bucket in np.unique(numbers).tolist():
            members = np.flatnonzero(numbers == bucket)
            share = len(members) * weight / sum(weights) * total / len(numbers)
            places = {}
            if stored is not None:
                in_blocks = np.searchsorted(stored.ends, members, side="right")
                places = dict(stored_in=in_blocks, block_sizes=stored.sizes)
            pools.append(Pool(first + members, bucket, share, **places))
        first += len(numbers)
    return tuple(pools)


def examples_in(pools: Sequence[Pool]) -> int:
    """Number of examples in all of them."""
    return sum(len(pool.members) for pool in pools)


@dataclasses.dataclass(frozen=True)
class Interleaving:
    """Several endless streams merged to one, as a function of the position.

    In each round every stream gives so many elements, in an order shuffled for the round. Fractions
    add up: a stream of 0.3 elements a round gives one in some of the rounds.

    Attributes:
      per_round: elements of each stream in a round.
      seed: of the orders.
      in_order: whether each stream keeps its own order within a round.
    """

    per_round: tuple[float, ...]
    seed: tuple[int, ...]
    in_order: bool = False

    def at(self, position: int) -> tuple[int, int]:
        """The stream, and the number of its element; within a round these are shuffled too."""
        return (0, position) if len(self.per_round) == 1 else _at(self, position)

    def before(self, rounds: int) -> np.ndarray:
        """Elements of each stream in so many rounds, int."""
        return np.floor(rounds * np.array(self.per_round)).astype(int)


@functools.lru_cache(1024)
def _at(interleaving: Interleaving, position: int) -> tuple[int, int]:
    # So many rounds have this many elements or, as fractions are cut off, fewer: begin before them.
    number = max(0, int(position / sum(interleaving.per_round)) - 1)
    while interleaving.before(number + 1).sum() <= position:
        number += 1
    streams, ordinals = _round(interleaving, number)
    place = position - interleaving.before(number).sum()
    return int(streams[place]), int(ordinals[place])


@functools.lru_cache(256)
def _round(interleaving: Interleaving, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The stream of each element of a round, and its number within the stream."""
    first, last = interleaving.before(number), interleaving.before(number + 1)
    streams = np.repeat(np.arange(len(first)), last - first)
    ordinals = np.concatenate([np.arange(*ends) for ends in zip(first, last, strict=True)])
    order = np.random.default_rng((*interleaving.seed, number)).permutation(len(streams))
    if interleaving.in_order:
        places = np.argsort(streams[order], kind="stable")
        ordinals[places] = ordinals.copy()
        return streams[order], ordinals
    return streams[order], ordinals[order]


class Windowed:
    """The members of a pool that are stored in blocks, shuffled and repeated, by position.

    In each epoch the blocks are shuffled, and then the members within each window: as many blocks,
    one after another, as have WINDOW bytes together, or one. So each block is decoded once where
    two windows are kept. The blocks of all pools of a source are in the same order.
    """

    def __init__(self, pool: Pool, seed: int, number: int):
        self._pool, self._seed, self._number = pool, seed, number
        self._orders: dict[int, np.ndarray] = {}  # of the last two epochs

    def __len__(self) -> int:
        members = len(self._pool.members)
        return ENDLESS // members * members

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(int(position), len(self._pool.members))
        with _one_at_a_time:
            if epoch not in self._orders:
                kept = {other: self._orders[other] for other in sorted(self._orders)[-1:]}
                self._orders = {**kept, epoch: self.order(epoch)}
            order = self._orders[epoch]
        return int(self._pool.members[order[place]])

    def order(self, epoch: int) -> np.ndarray:
        """The places of the members in an epoch."""
        sizes, stored_in = self._pool.block_sizes, self._pool.stored_in
        assert sizes is not None and stored_in is not None
        blocks = np.random.default_rng((self._seed, epoch)).permutation(len(sizes))
        windows = np.empty(len(sizes), int)
        windows[blocks] = (np.cumsum(sizes[blocks]) - sizes[blocks]) // WINDOW
        rng = np.random.default_rng((self._seed, epoch, self._number))
        return np.lexsort((rng.permutation(len(stored_in)), windows[stored_in]))


_one_at_a_time = threading.Lock()  # or each of many threads would compute the order of an epoch


class Order:
    """Which examples the batch of a step holds; the first step is 1.

    Each pool is reshuffled in each of its epochs, without end, so that what is left over of one
    epoch opens the next. A batch takes the next ones of a bucket: the batches of buckets are
    interleaved in proportion to their examples (one smaller than a batch comes in some rounds
    only), and so, where sources are mixed, are the pools of a bucket within its batches. Pools that
    are stored in blocks are shuffled as Windowed says, and go through those side by side.

    Args:
      pools: of the data.
      batch_size: global.
      seed: of all orders.

    Attributes:
      batch_size: as above.
      streams: indices of the examples of each pool, shuffled and repeated.
    """

    def __init__(self, pools: Sequence[Pool], batch_size: int, seed: int):
        self.batch_size = batch_size
        self.streams = [_stream(pool, seed, number) for number, pool in enumerate(pools)]
        self._buckets = sorted({pool.bucket for pool in pools})
        self._pools_of = [
            [i for i, pool in enumerate(pools) if pool.bucket == bucket] for bucket in self._buckets
        ]
        shares = [[pools[i].share for i in numbers] for numbers in self._pools_of]
        per_round = np.array([sum(of) / batch_size for of in shares])
        if stored := any(pool.stored_in is not None for pool in pools):
            per_round *= min(1.0, SHORT_ROUND / per_round.sum())
        self._batches = Interleaving(tuple(per_round.tolist()), (seed,), stored)
        self._within = [
            Interleaving(
                tuple(MIXING_ROUND * share / sum(of) for share in of), (seed, 1 + number), stored
            )
            for number, of in enumerate(shares)
        ]

    def bucket(self, step: int) -> int:
        """Of all examples of the batch."""
        return self._buckets[self._batches.at(step - 1)[0]]

    def place(self, step: int, row: int) -> tuple[int, int]:
        """Number of the pool that a row of the batch comes from, and its position in there."""
        bucket, batch = self._batches.at(step - 1)
        number, position = self._within[bucket].at(batch * self.batch_size + row)
        return self._pools_of[bucket][number], position

    def examples(self, step: int) -> list[int]:
        """Indices of the examples of the batch."""
        places = [self.place(step, row) for row in range(self.batch_size)]
        return [int(self.streams[pool][position]) for pool, position in places]


def _stream(pool: Pool, seed: int, number: int) -> grain.MapDataset:
    if pool.stored_in is not None:
        return grain.MapDataset.source(Windowed(pool, seed, number)).seed(seed + number)
    shuffled = grain.MapDataset.source(pool.members).seed(seed + number).shuffle()
    return shuffled.repeat(ENDLESS // len(pool.members))
