"""What memory a program takes on a device, what is free there, and the largest batch that fits.

The compiler is asked, so that nothing is guessed. All numbers are bytes of one device, beside the
program's arguments (the weights), which are there already.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from maskgil_jax.runtime.batches import even_batch
from maskgil_jax.runtime.errors import InputError

GIB = 2**30
T = TypeVar("T")


class TooLarge(InputError):
    """A program that needs more memory than there is.

    Args:
      what: it does, as "drawing 8 images".
      needed, available: bytes.
    """

    def __init__(self, what: str, needed: float, available: float):
        self.needed, self.available = needed, available
        self.reason = (
            f"{what} takes {needed / GIB:.2f} GiB of a device's memory beside the weights, but "
            f"{available / GIB:.2f} GiB are free"
        )
        super().__init__(f"{self.reason}: expected less at once, or a device with more")


def run_within(
    memory: float | None, what: str, function: Any, *arguments: Any, **static: Any
) -> Any:
    """What a function of jax.jit gives, unless its compiler says that the memory is too small.

    Args:
      memory: bytes to stay within; None: what is free on the devices of the arguments, which is
        not asked for where devices do not tell it (CPUs).
      what: the function does, as "drawing 8 images".
      function: of jax.jit.
      *arguments: its arguments.
      **static: those of its arguments that are static.

    Raises:
      TooLarge: before anything runs.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments)):
        return function(*arguments, **static)  # it is a part of another program
    available = _free(arguments) if memory is None else memory
    if available is not None:
        lowered = function.lower(*arguments, **static)
        needed = _needed(lowered, arguments)  # the call compiles nothing anew
        if needed > available:
            raise TooLarge(what, needed, available)
    return function(*arguments, **static)


def _free(arguments: Any) -> float | None:
    """What is free on the devices of these arguments, of which one is in arrays."""
    arrays = [x for x in jax.tree.leaves(arguments) if isinstance(x, jax.Array)]
    devices = {device for x in arrays for device in x.devices()}
    statistics = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in one for one in statistics):
        return None
    return min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in statistics)


def _needed(lowered: jax.stages.Lowered, arguments: Any) -> float:
    """Bytes of temporaries and results, also of a program that the compiler refuses."""
    try:
        program = lowered.compile().runtime_executable()
    except jax.errors.JaxRuntimeError as error:
        if (refused := refusal(str(error))) is None:
            raise
        return refused[0] - sum(map(of_argument, jax.tree.leaves(arguments)))
    return _bytes_of(program)


def of_argument(x: Any) -> float:
    """Bytes of an array, or of its shape, that a device holds."""
    if not hasattr(x, "dtype"):  # a number
        return 0
    layout = getattr(x, "sharding", None)
    shape = x.shape if layout is None else layout.shard_shape(x.shape)
    return math.prod(shape) * x.dtype.itemsize


@functools.lru_cache(maxsize=16)  # asking takes half a second, at each call of the same program
def _bytes_of(program: Any) -> float:
    """Bytes of temporaries and results of an executable."""
    memory = program.get_compiled_memory_stats()
    output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.temp_size_in_bytes + output


def refusal(message: str) -> tuple[float, float] | None:
    """Bytes that a refused program needs, arguments included, and those of the device.

    Args:
      message: of the compiler, which words it in two ways.

    Returns:
      None where it refuses for another reason than memory.
    """
    number = r"\(?([\d.]+)([GM])\)?"
    unit = {"G": 2**30, "M": 2**20}
    for words in (rf"Used {number} of {number} hbm", rf"{number} exceeds available HBM {number}"):
        if match := re.search(words, message):
            return float(match[1]) * unit[match[2]], float(match[3]) * unit[match[4]]
    return None


def largest_batch(attempt: Callable[[int], T], wanted: int) -> tuple[int, T, list[TooLarge]]:
    """The batch to go through `wanted` rows in, as few times as the memory allows.

    Args:
      attempt: of a batch of this many rows.
      wanted: rows, of each device.

    Returns:
      The batch, what the attempt gave, and the refusals before it.

    Raises:
      TooLarge: that of the smallest batch.
    """
    refusals: dict[int, TooLarge] = {}
    batch = wanted
    while True:
        try:
            return batch, attempt(batch), list(refusals.values())
        except TooLarge as error:
            if batch <= 1:
                raise
            refusals[batch] = error
        batch = _smaller(refusals, wanted)


def _smaller(refusals: dict[int, TooLarge], wanted: int) -> int:
    """The next batch: where the line through the two smallest refused ones meets the memory."""
    batch, *larger = sorted(refusals)
    needed, available = refusals[batch].needed, refusals[batch].available
    slope = needed / batch  # what no rows at all need is not known yet
    if larger and (difference := refusals[larger[0]].needed - needed) > 0:
        slope = difference / (larger[0] - batch)
    size = batch - int((needed - available) / slope) - 1
    return even_batch(max(size, 1), wanted, 1)
