"""What a Pallas kernel does on a TPU, counted in what JAX traced of it.

The compiler estimates no time for a kernel. Its own schedule of one fills a bundle of operations in
a cycle: of the MXUs, of four vector units, of one unit of exponentials and their like. Products and
the rest hardly share bundles, as what is multiplied depends on what is computed; vector operations
and exponentials do. So a kernel is charged the cycles of its products at peak and, beside them,
those of the busier of the two other units. tests/planning/test_kernel_work.py holds this count
against the compiler's schedules.
"""

import math
from collections.abc import Callable, Sequence
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
    at_a_point = _Counter(grid, chip.mxu).work(call.params["jaxpr"], {})
    return Work(hbm_bytes=_block_bytes(call)).plus(at_a_point, math.prod(grid))


# Of scalars: what a condition may be made of, with the number of a point in the grid.
_SCALARS: dict[str, Callable[..., Any]] = {
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal, "and": np.logical_and, "or": np.logical_or},
    **{"not": np.logical_not, "add": np.add, "sub": np.subtract, "mul": np.multiply},
    **{"max": np.maximum, "min": np.minimum, "convert_element_type": lambda x: x},
}
Known = dict[Any, Any]  # scalars by variable, at all points of the grid


class _Counter:
    """Counts the work at a point of a grid, on average over all of them."""

    def __init__(self, grid: Sequence[int], mxu: int):
        self._grid, self._mxu = grid, mxu

    def work(self, jaxpr: Any, known: Known) -> Work:
        """Of a part of a kernel; `known` are those of its inputs that the grid's point says."""
        jaxpr, total = getattr(jaxpr, "jaxpr", jaxpr), Work()
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name == "program_id":
                axis = equation.params["axis"]
                known[equation.outvars[0]] = np.indices(self._grid)[axis]
            elif name in _SCALARS and not equation.outvars[0].aval.shape:
                values = [_value(v, known) for v in equation.invars]
                if all(value is not None for value in values):
                    known[equation.outvars[0]] = _SCALARS[name](*values)
            elif name == "cond":
                total = total.plus(self._branches(equation, known))
            elif name == "while":
                raise ValueError("how often its loop runs is not known before it runs")
            else:
                total = total.plus(self._other(equation, known))
        return total

    def _branches(self, equation: Any, known: Known) -> Work:
        """Each branch as often as it is taken; the costlier where that is not known."""
        index, *operands = equation.invars
        works = [
            self.work(branch, _passed(branch.jaxpr.invars, operands, known))
            for branch in equation.params["branches"]
        ]
        if (chosen := _value(index, known)) is None:
            return max(works, key=lambda work: work.flops + work.vectors)
        total = Work()
        for i, work in enumerate(works):
            total = total.plus(work, float(np.mean(chosen == i)))
        return total

    def _other(self, equation: Any, known: Known) -> Work:
        if equation.primitive.name == "dot_general":
            return _product(equation, self._mxu)
        inner = list(jax.extend.core.jaxprs_in_params(equation.params))
        if not inner or equation.primitive.name.startswith("reduce"):
            return _elementwise(equation)
        total = Work()
        for jaxpr in inner:
            same = equation.primitive.name == "jit"
            passed = _passed(jaxpr.invars, equation.invars, known) if same else {}
            total = total.plus(self.work(jaxpr, passed), equation.params.get("length", 1))
        return total


def _value(variable: Any, known: Known) -> Any:
    if isinstance(variable, jax.extend.core.Literal):
        return variable.val
    return known.get(variable)


def _passed(inner: Sequence[Any], outer: Sequence[Any], known: Known) -> Known:
    """What is known of the inputs of an inner jaxpr."""
    values = zip(inner, (_value(v, known) for v in outer), strict=True)
    return {variable: value for variable, value in values if value is not None}


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
