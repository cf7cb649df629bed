"""Which examples the batch of a step holds, as a function of the step and the seed.

A batch holds examples of one shape, its bucket. Each source and shape has a pool of examples that
is shuffled and repeated without end.
"""

import dataclasses
import functools
from collections.abc import Sequence

import grain
import numpy as np

ENDLESS = 2**40  # Grain's own endless repeat() is sys.maxsize long, which overflows once sliced
MIXING_ROUND = 1000  # examples in which the sources of a mixture have their shares


@dataclasses.dataclass(frozen=True)
class Pool:
    """Examples of one source and one shape, which are shuffled among themselves.

    Attributes:
      members: their indices, ascending.
      bucket: number of their shape; a batch is of one bucket.
      share: how many examples of a round of all the data are of this pool; where sources are not
        mixed by weight, that is all of its members.
    """

    members: np.ndarray
    bucket: int
    share: float


def pools_of(buckets: Sequence[np.ndarray], weights: Sequence[float] = (1.0,)) -> tuple[Pool, ...]:
    """The pools of sources that are joined one after the other.

    Args:
      buckets: of each source, the bucket of each of its examples, int [N].
      weights: of the sources: how often examples come from each.
    """
    total, first, pools = sum(map(len, buckets)), 0, []
    for numbers, weight in zip(buckets, weights, strict=True):
        for bucket in np.unique(numbers).tolist():
            members = first + np.flatnonzero(numbers == bucket)
            share = len(members) * weight / sum(weights) * total / len(numbers)
            pools.append(Pool(members, bucket, share))
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
    """

    per_round: tuple[float, ...]
    seed: tuple[int, ...]

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
    return streams[order], ordinals[order]


class Order:
    """Which examples the batch of a step holds; the first step is 1.

    Each pool is reshuffled in each of its epochs, without end, so that what is left over of one
    epoch opens the next. A batch takes the next ones of a bucket: the batches of buckets are
    interleaved in proportion to their examples (one smaller than a batch comes in some rounds
    only), and so, where sources are mixed, are the pools of a bucket within its batches.

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
        self.streams = [
            grain.MapDataset.source(pool.members)
            .seed(seed + number)
            .shuffle()
            .repeat(ENDLESS // len(pool.members))
            for number, pool in enumerate(pools)
        ]
        self._buckets = sorted({pool.bucket for pool in pools})
        self._pools_of = [
            [i for i, pool in enumerate(pools) if pool.bucket == bucket] for bucket in self._buckets
        ]
        shares = [[pools[i].share for i in numbers] for numbers in self._pools_of]
        self._batches = Interleaving(tuple(sum(of) / batch_size for of in shares), (seed,))
        self._within = [
            Interleaving(tuple(MIXING_ROUND * share / sum(of) for share in of), (seed, 1 + number))
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
