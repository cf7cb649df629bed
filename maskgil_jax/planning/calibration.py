"""What products alone reach on a chip: a bound that no program of them can pass.

A plain product and the products of a model are compiled by themselves. What the compiler estimates
for them, as a share of the chip's peak, is the most that its estimate of the whole model can be.
"""

import collections
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from maskgil_jax.planning import hlo
from maskgil_jax.planning.chips import Chip
from maskgil_jax.planning.compilation import Compiler
from maskgil_jax.planning.executions import executions
from maskgil_jax.planning.programs import Program
from maskgil_jax.runtime import sharding

PLAIN = (4096, 8192)  # rows and columns of square products
LARGEST = 10  # shapes of a model that are compiled


class Shape(NamedTuple):
    """Of a product of matrices [rows, depth] and [depth, columns]."""

    rows: int
    depth: int
    columns: int

    @property
    def flops(self) -> int:
        """A multiply-add is two."""
        return 2 * self.rows * self.depth * self.columns

    def __str__(self) -> str:
        return "x".join(map(str, self))


def calibrate(
    program: hlo.Program, device: Any, chip: Chip, options: Mapping[str, Any], compiler: Compiler
) -> dict[str, Any]:
    """The share of peak of plain products and of a compiled program's own, for JSON.

    Args:
      program: of the model, compiled for devices like `device`.
      device: one of a topology.
      chip: that it is.
      options: of the compiler, for the model's products; plain ones have its own.
      compiler: of programs.

    Returns:
      `plain` and `model`: shares by shape, those of the model for its largest products;
      `model_share`: of these together; `covered`: their share of the FLOPs of all its products;
      `products_seconds`: of all its products at that share. Without products all but `plain` are
      left out.
    """
    flops = collections.Counter[Shape]()
    for shape, times in products(program):
        flops[shape] += shape.flops * times
    share = lambda shape: _share(shape, device, chip, options, compiler)  # noqa: E731
    squares = [Shape(n, n, n) for n in PLAIN]
    plain = {str(shape): _share(shape, device, chip, {}, compiler) for shape in squares}
    largest = dict(flops.most_common(LARGEST))
    if not largest:
        return {"plain": plain}
    of_model = {shape: share(shape) for shape in largest}
    together = sum(largest.values()) / sum(n / of_model[shape] for shape, n in largest.items())
    return {
        "plain": plain,
        "model": {str(shape): one for shape, one in of_model.items()},
        "model_share": together,
        "covered": sum(largest.values()) / sum(flops.values()),
        "products_seconds": sum(flops.values()) / chip.flops / together,
    }


def products(program: hlo.Program) -> Iterator[tuple[Shape, int]]:
    """The products of matrices of a compiled program, of one device, and how often each runs."""
    for instruction, times in executions(program):
        for around, one in _within(program, instruction):
            if one.opcode in ("convolution", "dot") and (shape := _shape(around, one)):
                yield shape, times


def _within(
    program: hlo.Program, instruction: hlo.Instruction
) -> Iterator[tuple[hlo.Computation, hlo.Instruction]]:
    """The instructions of a fusion and of those in it, each with the computation it stands in."""
    if instruction.opcode != "fusion":
        return
    around = program.computations[instruction.called("calls")]
    for one in around.values():
        yield around, one
        yield from _within(program, one)


def _shape(around: hlo.Computation, one: hlo.Instruction) -> Shape | None:
    """The sides of a product, from the sizes of its three arrays; None: it is a convolution."""
    arrays = [one, *(around[name] for name in one.operands if name in around)]
    sizes = [math.prod(array.sizes) for array in arrays]
    if len(sizes) != 3:
        return None
    out, left, right = sizes
    sides = [(left * out, right), (left * right, out), (right * out, left)]
    roots = [math.isqrt(product // by) for product, by in sides]
    exact = all(
        root * root * by == product for root, (product, by) in zip(roots, sides, strict=True)
    )
    return Shape(*roots) if exact else None


def _share(
    shape: Shape, device: Any, chip: Chip, options: Mapping[str, Any], compiler: Compiler
) -> float:
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1), [device])
    of = lambda *sides: jax.ShapeDtypeStruct(  # noqa: E731
        sides, jnp.bfloat16, sharding=sharding.replicated(mesh)
    )
    arguments = of(shape.rows, shape.depth), of(shape.depth, shape.columns)
    program = Program(jnp.matmul, arguments, {}, mesh, 1, 1, 0, shape.flops, options)
    compiled, _ = compiler(program)
    text = hlo.parse(compiled.text)
    cycles = sum((one.cycles or 0) * times for one, times in executions(text))
    return shape.flops / (cycles / chip.clock) / chip.flops
