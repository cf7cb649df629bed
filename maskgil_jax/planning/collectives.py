"""The exchanges between chips in a compiled program, each counted once."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from maskgil_jax.planning.executions import executions
from maskgil_jax.planning.hlo import Computation, Instruction, Program, fused
from maskgil_jax.planning.replica_groups import groups_of

# Bytes that a chip sends (or receives) for each byte of the full array, in a ring of n chips.
SENT = {
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}


class Collective(NamedTuple):
    """An exchange between chips.

    Attributes:
      kind: one of SENT.
      groups: of devices that exchange with one another, [groups, chips].
      sent_bytes: by each of them, in one execution.
    """

    kind: str
    groups: tuple[tuple[int, ...], ...]
    sent_bytes: float

    @property
    def chips(self) -> int:
        """That exchange with one another."""
        return len(self.groups[0])


class Phase(NamedTuple):
    """What an instruction is of an exchange.

    Attributes:
      name: "whole"; of an asynchronous one "start", "step" (part of a fusion with other work) or
        "done".
      key: by which the start and the done of one exchange know each other.
      collective: the exchange.
    """

    name: str
    key: str
    collective: Collective


def counted(program: Program, devices: int) -> Iterator[tuple[Collective, bool, int]]:
    """Every exchange of a program for this many devices: it, if it is asynchronous, how often.

    An asynchronous one is counted where it starts.
    """
    for instruction, times in executions(program):
        for phase in phases(program, instruction, devices):
            if phase.name in ("whole", "start"):
                yield phase.collective, phase.name == "start", times


def phases(program: Program, instruction: Instruction, devices: int) -> list[Phase]:
    """What a scheduled instruction is of exchanges: of none, one, or in a fusion several."""
    if instruction.opcode.endswith("-done"):
        return _done(program, instruction, devices)
    inside = {one.name: one for one in fused(program, instruction)}
    targets = {one.target for one in inside.values()}
    found = []
    for one in inside.values():
        kind = one.opcode.removesuffix("-start")
        if kind not in SENT:
            continue
        collective = _collective(one, kind, inside, devices)
        chain = re.search(r'chain_id="(\d+)"', one.attributes)
        if one.opcode.endswith("-start"):
            found.append(Phase("start", one.name, collective))
        elif chain:  # what the TPU compiler calls an asynchronous collective fusion
            name = "start" if "AsyncCollectiveStart" in targets else "step"
            name = "done" if "AsyncCollectiveDone" in targets else name
            found.append(Phase(name, f"chain {chain[1]}", collective))
        else:
            found.append(Phase("whole", one.name, collective))
    return found


def _done(program: Program, instruction: Instruction, devices: int) -> list[Phase]:
    """The end of an exchange whose start has an opcode of its own, as all-gather-start."""
    kind = instruction.opcode.removesuffix("-done")
    if kind not in SENT:
        return []
    everywhere = program.computations.values()
    around = next(c for c in everywhere if c.get(instruction.name) == instruction)
    start = around[instruction.operands[0]]
    return [Phase("done", start.name, _collective(start, kind, {}, devices))]


def _collective(one: Instruction, kind: str, inside: Computation, devices: int) -> Collective:
    nbytes = one.nbytes
    if one.opcode.endswith("-start"):  # of operand and result together
        nbytes = max(size for _, size in one.arrays)
    # How the TPU compiler writes a reduce-scatter.
    sliced = (i.operands[0] for i in inside.values() if i.opcode == "dynamic-slice")
    if kind == "all-reduce" and one.name in sliced:
        kind = "reduce-scatter"
    groups = groups_of(one.attributes, devices)
    sent = SENT[kind](groups.shape[1]) * nbytes
    return Collective(kind, tuple(map(tuple, groups.tolist())), sent)
