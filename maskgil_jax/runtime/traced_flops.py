"""FLOPs of a traced function, loops and recomputation included."""

import math
from typing import Any

import jax
import jax.extend


def traced_flops(jaxpr: Any) -> int:
    """FLOPs of all matrix products and convolutions, over all devices; a multiply-add is two.

    Counted in what JAX traced, before any compiler sees it: the body of a scan as often as it runs,
    what is recomputed for the backward pass twice, the costlier branch of a condition, a kernel as
    often as its grid has points.

    Args:
      jaxpr: of `jax.stages.Traced.jaxpr`, or an inner one.
    """
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            left = equation.invars[0].aval.shape
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(left[axis] for axis in contracted)
            total += 2 * equation.outvars[0].aval.size * depth
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            features = equation.params["dimension_numbers"].rhs_spec[0]
            depth = kernel.size // kernel.shape[features]
            total += 2 * equation.outvars[0].aval.size * depth
        inner = [traced_flops(j) for j in jax.extend.core.jaxprs_in_params(equation.params)]
        times = equation.params.get("length", 1)
        if name == "pallas_call":
            times = math.prod(equation.params["grid_mapping"].grid)
        elif name == "shard_map":
            axes = equation.params["newly_manual_axes"]  # what is within is of one device of these
            times = math.prod(equation.params["mesh"].shape[axis] for axis in axes)
        total += max(inner) if name == "cond" else times * sum(inner)
    return total
