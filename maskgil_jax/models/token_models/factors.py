"""Codes as numbers of several digits, each with a small vocabulary instead of one of all codes.

A table has a row and a head a column for each value of each digit: 64 + 4,096 instead of 262,144.
The first digit counts the least, as Open-MAGVIT2 cuts its 18 bits (TencentARC/SEED-Voken: the first
6 channels, then 12). Given the features, digits are independent, as MaskBit's groups of bits
are (Weber et al. 2024, section 3.3).

Letters: ... any leading axes, V codes.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp


def digits(codes: jax.Array, sizes: tuple[int, ...]) -> list[jax.Array]:
    """Digits of codes, int32 [...] each, in 0 .. size - 1."""
    places = itertools.accumulate(sizes[:-1], initial=1, func=lambda a, b: a * b)
    return [codes // place % size for place, size in zip(places, sizes, strict=True)]


def joined(digits: list[jax.Array], sizes: tuple[int, ...]) -> jax.Array:
    """The codes that have these digits."""
    return functools.reduce(
        lambda code, i: code * sizes[i] + digits[i], reversed(range(len(sizes) - 1)), digits[-1]
    )


def split(logits: jax.Array, sizes: tuple[int, ...]) -> list[jax.Array]:
    """Logits of each digit, [..., size], of those of all, [..., sum of sizes].

    One vocabulary may lack columns, which are then not drawn from.
    """
    starts = list(itertools.accumulate(sizes))[:-1]
    return jnp.split(logits, starts, axis=-1)


def joint(logits: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Logits of all codes, [..., V], of those of their digits: sums, up to a constant."""
    first, *others = split(logits, sizes)
    for part in others:
        first = (part[..., :, None] + first[..., None, :]).reshape(*first.shape[:-1], -1)
    return first


def check(sizes: tuple[int, ...], codes: int) -> None:
    """Raise ValueError where numbers of these digits are not `codes` many."""
    if sizes and (min(sizes) < 2 or math.prod(sizes) != codes):
        raise ValueError(
            f"factors = {sizes}, whose product is {math.prod(sizes)}: expected {codes} (the codes)"
        )
