"""Muon: the matrices of layers move along the nearest orthogonal matrix of their momentum."""

import re
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from maskgil_jax.runtime import sharding

# Newton-Schulz iterations, from a matrix scaled by its Schatten-4 norm. Three learned better than
# two or five (README.md has the figures), and cost less than the usual five.
ITERATIONS = 3
# Of gradients, before all else. No update depends on it, but optax scales a matrix by too little
# where the square of its norm is below 1e-8. So norms of 1e-8 to 5e5 are in range, not 1e-4 to 4e9.
SCALE = 2.0**13
MOMENTUM = 0.95  # Nesterov's, of the source
RMS = 0.2  # of an update of learning rate 1: about that of AdamW, so that its rates serve here too

# Which axes of a parameter are a matrix's rows and columns; over the others, as depth, there are
# many matrices. What is in no layer (embeddings, heads, first and last convolutions, the
# projections around a codebook, discriminators) has no row here.
MATRICES = {
    # token models: [depth, D, 2 or 3 or 6, ...], where queries, keys, gates are matrices each
    r"blocks/(qkv|key_value)$": MuonDimensionNumbers(1, (3, 4)),
    r"blocks/query$": MuonDimensionNumbers(1, (2, 3)),
    r"blocks/out$": MuonDimensionNumbers((1, 2), 3),
    r"blocks/(gate_up|modulation)$": MuonDimensionNumbers(1, 3),
    r"blocks/(up|down)$": MuonDimensionNumbers(1, 2),
    # tokenizers: [height, width, in, out]
    r"(levels|middle)/.*kernel$": MuonDimensionNumbers((0, 1, 2), 3),
}


def muon_of_matrices(
    rate: optax.Schedule, weight_decay: float, mask: Any, others: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Muon with weight decay for the parameters of MATRICES, and `others` for the rest.

    Args:
      rate: learning rate by step.
      weight_decay: decoupled, times the learning rate.
      mask: of what is decayed, as of optax.adamw; None: all.
      others: a whole optimizer, with its rate and decay.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the size of an update,
    and weight decay: Liu et al. 2025, arXiv 2502.16982, section 2.2.
    """
    matrices = muon(
        rate,
        beta=MOMENTUM,
        weight_decay=weight_decay,
        weight_decay_mask=mask,
        consistent_rms=RMS,
        ns_steps=ITERATIONS,
        preconditioning="schatten",
        muon_weight_dimension_numbers=_dimensions,
    )
    matrices = optax.chain(optax.scale(SCALE), matrices)
    return optax.partition({"matrices": matrices, "others": others}, _kinds)


def _dimensions(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: _axes(path), params)


def _kinds(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: "matrices" if _axes(path) else "others", params)


def _axes(path: tuple[Any, ...]) -> MuonDimensionNumbers | None:
    name = sharding.name_of(path)
    return next((axes for row, axes in MATRICES.items() if re.search(row, name)), None)
