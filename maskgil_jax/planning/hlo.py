"""A compiled TPU program, read from the text that its compiler prints in the schedule's order."""

import dataclasses
import math
import re

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

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the result's dimensions, of the first array of several."""
        match = re.search(r"\[([\d,]*)\]", self.shape)
        return tuple(int(n) for n in match[1].split(",") if n) if match else ()

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


def fused(program: Program, instruction: Instruction) -> list[Instruction]:
    """The instructions that a fusion consists of; of any other instruction itself alone."""
    if instruction.opcode != "fusion":
        return [instruction]
    return list(program.computations[instruction.called("calls")].values())
