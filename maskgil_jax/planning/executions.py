"""How often each instruction of a compiled program runs.

The text prints a loop's body once, and not always how often it runs: that is found out from the
loop's own condition, start and increment.
"""

import dataclasses
import re
from collections.abc import Iterator

from maskgil_jax.planning.hlo import Computation, Instruction, Program


def executions(program: Program) -> Iterator[tuple[Instruction, int]]:
    """Every instruction that is scheduled, and how often it runs in all.

    The instructions within a fusion are not scheduled by themselves and so left out. All branches
    of a conditional count as run.
    """
    yield from _executions(program, program.entry, 1)


def _executions(program: Program, name: str, times: int) -> Iterator[tuple[Instruction, int]]:
    for instruction in program.computations[name].values():
        yield instruction, times
        for inner, repeats in inner_computations(program, name, instruction):
            yield from _executions(program, inner, times * repeats)


def inner_computations(
    program: Program, around: str, instruction: Instruction
) -> list[tuple[str, int]]:
    """Names of the computations that an instruction runs, and how often it runs each.

    Args:
      program: of the instruction.
      around: name of the computation that it stands in.
      instruction: a loop, a call or a conditional; others run none.
    """
    if instruction.opcode == "while":
        repeats = trips(program, program.computations[around], instruction)
        return [(instruction.called("body"), repeats)]
    if instruction.opcode == "call":
        return [(instruction.called("to_apply"), 1)]
    if instruction.opcode == "async-start":
        return [(instruction.called("calls"), 1)]
    if instruction.opcode == "conditional":
        branches = re.findall(r"branch_computations=\{([^}]*)\}", instruction.attributes)
        return [(branch, 1) for branch in re.findall(r"%([\w.\-]+)", branches[0])]
    return []


def trips(program: Program, around: Computation, loop: Instruction) -> int:
    """How often the body of a `while` runs.

    Args:
      program: that the loop is of.
      around: the computation that it stands in.
      loop: the `while`.

    Raises:
      ValueError: it is not a loop that counts up to a constant.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    try:
        return _counted(program, around, loop)
    except ValueError as error:
        raise ValueError(f"how often {loop.name} runs is not known: {error}") from None


def _counted(program: Program, around: Computation, loop: Instruction) -> int:
    condition = _Values(program, program.computations[loop.called("condition")])
    comparison = condition.root()
    if comparison.opcode != "compare" or "direction=LT" not in comparison.attributes:
        raise ValueError(f"it ends by {comparison.opcode} {comparison.name}")
    index = condition.element(comparison.operands[0])
    limit = condition.constant(comparison.operands[1])
    outside = _Values(program, around)
    start = outside.constant(outside.tuple_operand(loop.operands[0], index))
    body = _Values(program, program.computations[loop.called("body")])
    step = body.increment(body.tuple_operand(body.root().name, index), index)
    return -((start - limit) // step)


class _Values:
    """Follows scalars through a computation, to the constants and operands that they come from."""

    def __init__(self, program: Program, computation: Computation):
        self._program, self._computation = program, computation

    def root(self) -> Instruction:
        root = next(i for i in self._computation.values() if i.is_root)
        if root.opcode != "fusion":
            return root
        # A comparison that was fused: its operands are those of the fusion.
        inner = self._program.computations[root.called("calls")]
        result = next(i for i in inner.values() if i.is_root)
        operands = [
            root.operands[int(inner[name].operands[0])]
            if inner[name].opcode == "parameter"
            else name
            for name in result.operands
        ]
        self._computation = {**inner, **self._computation}
        return dataclasses.replace(result, operands=tuple(operands))

    def _through(self, name: str) -> Instruction:
        instruction = self._computation[name]
        while instruction.opcode in ("copy", "bitcast", "reshape", "copy-start", "copy-done"):
            instruction = self._computation[instruction.operands[0]]
        return instruction

    def constant(self, name: str) -> int:
        instruction = self._through(name)
        if instruction.opcode != "constant":
            raise ValueError(f"{name} is no constant but a {instruction.opcode}")
        return int(instruction.operands[0])

    def element(self, name: str) -> int:
        """Which element of the loop's state this is."""
        instruction = self._through(name)
        index = re.search(r"index=(\d+)", instruction.attributes)
        if instruction.opcode != "get-tuple-element" or not index:
            raise ValueError(f"{name} is no element of the loop's state but a {instruction.opcode}")
        return int(index[1])

    def tuple_operand(self, name: str, index: int) -> str:
        instruction = self._through(name)
        if instruction.opcode != "tuple":
            raise ValueError(f"{name} is no tuple but a {instruction.opcode}")
        return instruction.operands[index]

    def increment(self, name: str, index: int) -> int:
        instruction = self._through(name)
        if instruction.opcode != "add" or self.element(instruction.operands[0]) != index:
            raise ValueError(f"{name} does not count by a constant")
        return self.constant(instruction.operands[1])
