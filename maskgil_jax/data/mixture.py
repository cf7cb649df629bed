"""Mixtures: several sources of images, or directories of code shards, trained on together."""

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from ml_collections import ConfigDict

from maskgil_jax.runtime.errors import InputError

Item = TypeVar("Item", covariant=True)


class Examples(Protocol[Item]):
    """Random access to records, of images or of codes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


class Weighted(NamedTuple):
    """A data source, and how often examples come from it compared with the others."""

    source: str
    weight: float


def chosen(data: ConfigDict) -> list[Weighted]:
    """The sources that config.data names: `mixture`, or `source` alone.

    Raises:
      InputError: both, weights that are none, or images together with code shards.
    """
    if not data.mixture:
        return [Weighted(data.source, 1.0)]
    expected = "expected (('SOURCE', WEIGHT), ...) with positive weights"
    if data.source:
        raise InputError(
            f"config.data.source = {data.source!r} and config.data.mixture are both given: "
            "expected one of them"
        )
    try:
        weighted = [Weighted(str(source), float(weight)) for source, weight in data.mixture]
    except (TypeError, ValueError):
        raise InputError(f"config.data.mixture = {data.mixture!r}, {expected}") from None
    if not all(0 < weight < math.inf for _, weight in weighted):
        raise InputError(f"config.data.mixture = {data.mixture!r}, {expected}")
    if len({is_shards(source) for source, _ in weighted}) > 1:
        raise InputError(
            f"config.data.mixture = {data.mixture!r} has images and code shards, expected either"
        )
    return weighted


def is_shards(source: str) -> bool:
    """Whether a source is code shards."""
    return source.startswith("arrayrecord:")


def joined(sources: Sequence[Examples[Item]]) -> Examples[Item]:
    """Sources one after the other, as one, with the classes of the first."""
    return sources[0] if len(sources) == 1 else _Joined(sources)


class _Joined(Examples[Item]):
    def __init__(self, sources: Sequence[Examples[Item]]):
        self._sources = sources
        self._ends = list(itertools.accumulate(map(len, sources)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self._sources[0].class_names

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Item:
        number = bisect.bisect_right(self._ends, index)
        return self._sources[number][index - (self._ends[number] - len(self._sources[number]))]


def check_classes(names: Sequence[str], sources: Sequence[Examples[Any]]) -> None:
    """Raise InputError unless all sources, of these names, have the same classes."""
    for name, source in zip(names, sources, strict=True):
        if source.class_names != sources[0].class_names:
            raise InputError(
                f"config.data.mixture: {name} has classes {_short(source.class_names)}, but "
                f"{names[0]} has {_short(sources[0].class_names)}: expected the same"
            )


def _short(names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
