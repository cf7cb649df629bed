"""The keys that the parameters of a network are drawn with."""

from typing import cast

import jax
from flax import nnx


class _Keys:
    """One after another, those of nnx.Rngs, counted by Python."""

    def __init__(self, key: jax.Array):
        self._key, self._count = key, 0

    def params(self) -> jax.Array:
        key = jax.random.fold_in(self._key, self._count)
        self._count += 1
        return key


def rngs(key: jax.Array) -> nnx.Rngs:
    """What stands for `nnx.Rngs(key)` where a network of many layers is built, with the same keys.

    nnx.Rngs counts in an array. Under jit each count asks for the sharding of a traced array, which
    ends in an error message about all that was traced before: most of an initializer's tracing.
    """
    return cast(nnx.Rngs, _Keys(key))
