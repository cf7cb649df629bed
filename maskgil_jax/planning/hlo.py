"""A compiled TPU program, read from the text that its compiler prints.

The text prints a loop's body once, and not always how often it runs: `executions` finds that out
from the loop's own condition, start and increment.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# Bytes of an element; others (tokens, tuples) hold no data of their own.
_BYTES = dict(pred=1, s8=1, u8=1, s16=2, u16=2, bf16=2, f16=2, s32=4, u32=4, f32=4, s64=8, u64=8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of its result.
      shape: type of its result, as printed, such as `bf16[32,256]{1,0}`.
      opcode: such as `fusion`.
      operands: names, or the text between the parentheses of a constant or parameter.
      attributes: the rest of the line.
      is_root: whether it is the result of its computation.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate for one execution, None where it makes none."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match[1]) if match else None

    @property
    def source(self) -> str:
        """Path of the operation that it comes from, as JAX names it."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def target(self) -> str:
        """Of a custom call: what it calls."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def nbytes(self) -> int:
        """Bytes of the result, without padding."""
        return sum(size for _, size in self.arrays)

    @property
    def arrays(self) -> list[tuple[str, int]]:
        """Element type and bytes of each array of the result."""
        arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", self.shape)
        return [
            (dtype, _BYTES.get(dtype, 0) * math.prod(int(n) for n in sizes.split(",") if n))
            for dtype, sizes in arrays
        ]

    def called(self, attribute: str) -> str:
        """Name of the computation that `attribute` names."""
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        if not match:
            raise ValueError(f"{self.opcode} {self.name} has no {attribute}")
        return match[1]


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations of a module, by name."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """Read the text of `jax.stages.Compiled.as_text`."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    # The costs that a kernel states may be printed over several lines.
    for line in re.sub(r'\n(?="|}, )', " ", text).splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            instruction = _instruction(line.strip())
            current[instruction.name] = instruction
    return Program(computations, entry)


def _instruction(line: str) -> Instruction:
    name, _, rest = line.partition(" = ")
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing(f"({rest}", 0) - 1
    operands = re.sub(r"/\*.*?\*/", "", rest[: end - 1])
    return Instruction(
        name=name.removeprefix("ROOT ").lstrip("%"),
        shape=shape,
        opcode=opcode,
        operands=tuple(x.strip().split(" ")[-1].lstrip("%") for x in operands.split(",")),
        attributes=rest[end:],
        is_root=name.startswith("ROOT "),
    )


def _closing(text: str, start: int) -> int:
    """Index after the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"unbalanced: {text[:80]}")


def executions(program: Program) -> Iterator[tuple[Instruction, int]]:
    """Every instruction that is scheduled, and how often it runs in all.

    The instructions within a fusion are not scheduled by themselves and so left out. All branches
    of a conditional count as run.
    """
    yield from _executions(program, program.entry, 1)


def _executions(program: Program, name: str, times: int) -> Iterator[tuple[Instruction, int]]:
    for instruction in program.computations[name].values():
        yield instruction, times
        if instruction.opcode == "while":
            inner = times * trips(program, program.computations[name], instruction)
            yield from _executions(program, instruction.called("body"), inner)
        elif instruction.opcode in ("call", "async-start"):
            attribute = "to_apply" if instruction.opcode == "call" else "calls"
            yield from _executions(program, instruction.called(attribute), times)
        elif instruction.opcode == "conditional":
            branches = re.findall(r"branch_computations=\{([^}]*)\}", instruction.attributes)
            for branch in re.findall(r"%([\w.\-]+)", branches[0]):
                yield from _executions(program, branch, times)


class Kernel(NamedTuple):
    """A Pallas kernel and the costs that its author states, since the compiler estimates none.

    Attributes:
      instruction: that runs it: the call, or a fusion around the call.
      times: it runs.
      flops, transcendentals, bytes_accessed: of one run.
    """

    instruction: Instruction
    times: int
    flops: int
    transcendentals: int
    bytes_accessed: int


def kernels(program: Program) -> list[Kernel]:
    """All kernels of a program."""
    every = []
    for instruction, times in executions(program):
        for call in _fused(program, instruction):
            if call.target == "tpu_custom_call":
                stated = re.search(r'"cost_estimate":\s*\{([^}]*)\}', call.attributes)
                cost = dict(re.findall(r'"(\w+)":\s*"?(\d+)', stated[1])) if stated else {}
                numbers = (int(cost.get(name, 0)) for name in Kernel._fields[2:])
                every.append(Kernel(instruction, times, *numbers))
    return every


def _fused(program: Program, instruction: Instruction) -> list[Instruction]:
    """The instructions that a fusion consists of; of any other instruction itself alone."""
    if instruction.opcode != "fusion":
        return [instruction]
    return list(program.computations[instruction.called("calls")].values())


# Bytes that a chip sends (or receives) for each byte of the full array, in a ring of n chips.
COLLECTIVES = {
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}


class Collective(NamedTuple):
    """An exchange between chips.

    Attributes:
      kind: one of COLLECTIVES.
      chips: that exchange with one another.
      sent_bytes: by each of them, in all executions.
      times: it is executed.
    """

    kind: str
    chips: int
    sent_bytes: float
    times: int


def collectives(program: Program, devices: int) -> list[Collective]:
    """All exchanges of a program for this many devices."""
    every = []
    for instruction, times in executions(program):
        for one in _fused(program, instruction):
            kind = one.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            nbytes = one.nbytes
            if one.opcode.endswith("-start"):  # of operand and result together
                nbytes = max(size for _, size in one.arrays)
            # How the TPU compiler writes a reduce-scatter.
            if kind == "all-reduce" and one is not instruction:
                kind = "reduce-scatter"
            chips = _group_size(one.attributes, devices)
            sent = COLLECTIVES[kind](chips) * nbytes * times
            every.append(Collective(kind, chips, sent, times))
    return every


def _group_size(attributes: str, devices: int) -> int:
    """Number of devices in a group; groups are written in three forms."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", attributes):
        sizes = dict(axis.split("=") for axis in mesh[1].replace("'", "").split(","))
        return math.prod(int(sizes[axis]) for axis in mesh[2].replace("'", "").split(","))
    if grid := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(grid[1])
    if groups := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return groups[1].count(",") + 1
    return devices


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
