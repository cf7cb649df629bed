"""A compiled program run in the order of its schedule: what it waits for exchanges."""

from collections.abc import Callable
from typing import NamedTuple

from maskgil_jax.planning import collectives
from maskgil_jax.planning.collectives import Collective
from maskgil_jax.planning.executions import inner_computations
from maskgil_jax.planning.hlo import Instruction, Program


class Times(NamedTuple):
    """Seconds of a program.

    Attributes:
      compute: of all that is no exchange.
      exchanges: of all exchanges, one after another.
      as_compiled: from start to end, with those exchanges that the compiler made asynchronous going
        on beside the compute between their start and their end.
    """

    compute: float
    exchanges: float
    as_compiled: float

    @property
    def nothing_overlapped(self) -> float:
        """One after another."""
        return self.compute + self.exchanges

    @property
    def all_hidden(self) -> float:
        """Compute and exchanges side by side throughout: no schedule is faster."""
        return max(self.compute, self.exchanges)


def run(
    program: Program,
    devices: int,
    compute: Callable[[Instruction], float],
    exchange: Callable[[Collective], float],
) -> Times:
    """Go through a program's schedule.

    The links are taken to carry one exchange after another. What is under way at the end of a
    loop's body is waited for there.

    Args:
      program: compiled for `devices` chips.
      devices: number of them.
      compute: seconds of one run of an instruction that is no exchange.
      exchange: seconds of one exchange.
    """
    return _run(program, program.entry, devices, compute, exchange)


class _Clock:
    """Where the compute and the links of a chip are in time."""

    def __init__(self) -> None:
        self.compute = self.exchanges = self.now = self._links_free = 0.0
        self._ends: dict[str, float] = {}

    def work(self, seconds: float) -> None:
        self.compute += seconds
        self.now += seconds

    def start(self, key: str, seconds: float) -> None:
        self.exchanges += seconds
        self._links_free = max(self.now, self._links_free) + seconds
        self._ends[key] = self._links_free

    def wait(self, key: str) -> None:
        self.now = max(self.now, self._ends.pop(key, 0.0))

    def within(self, inner: Times, repeats: int) -> None:
        """A loop, or a computation that is called, in which the links are taken to be its own."""
        self.compute += inner.compute * repeats
        self.exchanges += inner.exchanges * repeats
        self.now += inner.as_compiled * repeats

    def times(self) -> Times:
        return Times(self.compute, self.exchanges, max(self.now, self._links_free))


def _run(
    program: Program,
    name: str,
    devices: int,
    compute: Callable[[Instruction], float],
    exchange: Callable[[Collective], float],
) -> Times:
    clock = _Clock()
    for instruction in program.computations[name].values():
        phases = collectives.phases(program, instruction, devices)
        for phase in phases:
            if phase.name in ("start", "whole"):
                clock.start(phase.key, exchange(phase.collective))
            if phase.name in ("done", "whole"):
                clock.wait(phase.key)
        clock.work(compute(instruction))
        for inner, repeats in inner_computations(program, name, instruction):
            clock.within(_run(program, inner, devices, compute, exchange), repeats)
    return clock.times()
