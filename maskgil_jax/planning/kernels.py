"""The Pallas kernels of a compiled program, and what each of them does."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.extend

from maskgil_jax.planning.chips import Chip
from maskgil_jax.planning.executions import executions
from maskgil_jax.planning.hlo import Instruction, Program, fused
from maskgil_jax.planning.kernel_work import Work, work_of

# XLA's names of element types that are not NumPy's.
_TYPES = {"bfloat16": "bf16", "bool": "pred"}
_KINDS = {"float": "f", "int": "s", "uint": "u"}


class Kernel(NamedTuple):
    """A kernel in a compiled program.

    Attributes:
      signature: shapes of its operands and results.
      instruction: that runs it: the call, or a fusion around the call.
      times: it runs.
      work: of one run; None where what JAX traced does not say it.
    """

    signature: str
    instruction: Instruction
    times: int
    work: Work | None


def traced(jaxpr: Any, chip: Chip) -> dict[str, Work]:
    """What each kernel of a traced program does on one device, by the shapes it is called with.

    Of kernels with the same shapes that do different things, the costlier counts for all.
    """
    works: dict[str, Work] = {}
    for call in calls(jaxpr):
        shapes = signature(call)
        try:
            work = work_of(call, chip)
        except ValueError:
            continue  # the plan says that it has no estimate
        known = works.get(shapes, work)
        works[shapes] = max(known, work, key=lambda one: one.seconds(chip))
    return works


def calls(jaxpr: Any) -> Iterator[Any]:
    """The equations that call kernels."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield equation
        else:
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from calls(inner)


def signature(call: Any) -> str:
    """Shapes of the operands and results of a `pallas_call`, as XLA writes them."""
    operands, results = map(_shape, call.invars), map(_shape, call.outvars)
    return " ".join(operands) + " -> " + " ".join(results)


def _shape(variable: Any) -> str:
    aval = variable.aval
    name = str(aval.dtype)
    kind = re.match(r"([a-z]+)(\d+)$", name)
    name = _TYPES.get(name) or (f"{_KINDS.get(kind[1], kind[1])}{kind[2]}" if kind else name)
    return f"{name}[{','.join(map(str, aval.shape))}]"


def compiled(program: Program, works: Mapping[str, Work]) -> list[Kernel]:
    """All kernels of a compiled program.

    Args:
      program: compiled.
      works: of its trace, from `traced`.
    """
    return [
        Kernel(_of_call(call), instruction, times, works.get(_of_call(call)))
        for instruction, times in executions(program)
        for call in fused(program, instruction)
        if call.target == "tpu_custom_call"
    ]


def _of_call(call: Instruction) -> str:
    shapes = re.search(r"operand_layout_constraints=\{(.*?\})\}, ", call.attributes)
    find = lambda text: " ".join(re.findall(r"\b[a-z]+\d*\[[\d,]*\]", text))  # noqa: E731
    return f"{find(shapes[1]) if shapes else ''} -> {find(call.shape)}"
