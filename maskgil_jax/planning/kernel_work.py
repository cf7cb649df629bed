"""What a Pallas kernel does on a TPU, counted in what JAX traced of it.

The compiler estimates no time for a kernel. Its own schedule of one fills a bundle of operations in
a cycle: of the MXUs, of four vector units, of one unit of exponentials and their like. Products and
the rest hardly share bundles, as what is multiplied depends on what is computed; vector operations
and exponentials do. So a kernel is charged the cycles of its products at peak and, beside them,
those of the busier of the two other units. tests/planning/test_kernel_work.py holds this count
against the compiler's schedules.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.extend
import numpy as np

from maskgil_jax.planning.chips import Chip

SUBLANES, LANES = 8, 128  # of a register of 32 bits an element
VECTOR_UNITS = 4  # of a core; each goes through a register in a cycle

# Operations of the vector units for a register of results, where it is not one.
_VECTOR = {
    **dict.fromkeys(("sin", "cos", "erf", "erf_inv", "pow"), 20),
    "div": 2,
    **dict.fromkeys(("slice", "squeeze", "reshape", "broadcast_in_dim", "split", "expand_dims"), 0),
    **dict.fromkeys(("get", "swap", "copy", "stop_gradient"), 0),
    **dict.fromkeys(("program_id", "num_programs", "dynamic_slice", "dynamic_update_slice"), 0),
    **dict.fromkeys(("dma_start", "dma_wait", "semaphore_wait", "semaphore_signal"), 0),
}
# What the unit of exponentials computes, a register in a cycle.
_EXPONENTIALS = {"exp2", "exp", "log", "log1p", "rsqrt", "sqrt", "tanh", "logistic", "div", "pow"}


class Work(NamedTuple):
    """Of a kernel or a part of it, on one device.

    Attributes:
      flops: of products, with all that the sides of an MXU add to their sizes.
      vectors: operations on single elements, with all that registers add.
      exponentials: elements of those operations that a unit of its own computes.
      hbm_bytes: of the blocks that are read and written.
    """

    flops: float = 0
    vectors: float = 0
    exponentials: float = 0
    hbm_bytes: float = 0

    def plus(self, other: "Work", times: float = 1) -> "Work":
        """Both, the other so many times."""
        return Work(*(a + times * b for a, b in zip(self, other, strict=True)))

    def seconds(self, chip: Chip) -> float:
        """On this chip; blocks are read and written beside the work on others."""
        registers = max(self.vectors / VECTOR_UNITS, self.exponentials) / (SUBLANES * LANES)
        others = registers / (chip.cores * chip.clock)
        return max(self.flops / chip.flops + others, self.hbm_bytes / chip.hbm_bandwidth)


def work_of(call: Any, chip: Chip) -> Work:
    """What all points of the grid of a `pallas_call` take.

    Args:
      call: the equation.
      chip: that it is compiled for.

    Raises:
      ValueError: a grid or a loop whose length is not known before it runs.
    """
    grid = call.params["grid_mapping"].grid
    if not all(isinstance(size, int) for size in grid):
        raise ValueError(f"its grid {grid} is not known before it runs")
    once = _work(call.params["jaxpr"], chip.mxu)
    return Work().plus(once, math.prod(grid)).plus(Work(hbm_bytes=_block_bytes(call)))


def _work(jaxpr: Any, mxu: int) -> Work:
    total = Work()
    for equation in jaxpr.eqns:
        inner = [_work(j, mxu) for j in jax.extend.core.jaxprs_in_params(equation.params)]
        name = equation.primitive.name
        if name == "cond":
            total = total.plus(max(inner, key=lambda work: work.flops + work.vectors))
        elif name == "while":
            raise ValueError("how often its loop runs is not known before it runs")
        elif inner and name not in ("reduce", "reduce_precision"):
            for one in inner:
                total = total.plus(one, equation.params.get("length", 1))
        elif name == "dot_general":
            total = total.plus(_product(equation, mxu))
        else:
            total = total.plus(_elementwise(equation))
    return total


def _product(equation: Any, mxu: int) -> Work:
    """A product of matrices, and the sums of the parts that an MXU makes of it."""
    (left, right), out = (v.aval for v in equation.invars), equation.outvars[0].aval
    (contracted, _), (batched, _) = equation.params["dimension_numbers"]
    depth = math.prod(left.shape[axis] for axis in contracted)
    batch = math.prod(left.shape[axis] for axis in batched)
    rows = left.size // (depth * batch)
    columns = right.size // (depth * batch)
    whole = lambda size, of: -(-size // of) * of  # noqa: E731
    streamed = min(
        whole(rows, SUBLANES) * whole(columns, mxu), whole(columns, SUBLANES) * whole(rows, mxu)
    )
    passes = 6 if left.dtype == np.float32 and _is_exact(equation) else 1
    flops = 2.0 * batch * streamed * whole(depth, mxu) * passes
    return Work(flops=flops, vectors=_elements(out) * (-(-depth // mxu) * passes - 1))


def _is_exact(equation: Any) -> bool:
    """Whether a product of float32 is made of six of bfloat16, as HIGHEST says."""
    return "HIGHEST" in str(equation.params["precision"])


def _elementwise(equation: Any) -> Work:
    name = equation.primitive.name
    avals = [v.aval for v in (*equation.invars[:1], *equation.outvars)]
    sizes = [_elements(aval) for aval in avals if getattr(aval, "shape", None)]
    if not sizes:  # scalars have a unit of their own
        return Work()
    if name.startswith(("reduce", "arg", "cum")):
        return Work(vectors=sizes[0])
    size = sizes[-1]
    if name == "convert_element_type":
        narrows = avals[0].dtype.itemsize > avals[-1].dtype.itemsize
        return Work(vectors=size * (0.5 if narrows else 1.0))
    exponentials = size if name in _EXPONENTIALS else 0
    return Work(vectors=size * _VECTOR.get(name, 1), exponentials=exponentials)


def _elements(aval: Any) -> int:
    """Elements of an array in whole registers."""
    shape = (1, 1, *aval.shape)
    rows, columns = shape[-2:]
    return math.prod(shape[:-2]) * -(-rows // SUBLANES) * -(-columns // LANES) * SUBLANES * LANES


def _block_bytes(call: Any) -> float:
    """Bytes of all blocks that are read or written, those that stay from point to point once."""
    mapping, total = call.params["grid_mapping"], 0.0
    for block in mapping.block_mappings:
        shape = [getattr(size, "block_size", size) for size in block.block_shape]
        size = math.prod(n for n in shape if isinstance(n, int))
        jaxpr = block.index_map_jaxpr.jaxpr
        axes = [i for i, v in enumerate(jaxpr.invars[: len(mapping.grid)]) if _reaches(jaxpr, v)]
        times = math.prod(mapping.grid[: max(axes, default=-1) + 1])
        total += times * size * block.array_aval.dtype.itemsize
    return total


def _reaches(jaxpr: Any, variable: Any) -> bool:
    """Whether any output of a jaxpr depends on one of its inputs."""
    reached = {variable}
    for equation in jaxpr.eqns:
        if _any_in(equation.invars, reached):
            reached.update(equation.outvars)
    return _any_in(jaxpr.outvars, reached)


def _any_in(variables: Any, reached: set[Any]) -> bool:
    return any(not isinstance(v, jax.extend.core.Literal) and v in reached for v in variables)
