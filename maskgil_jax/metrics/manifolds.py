"""How far two sets of features lie within each other: precision, recall, density, coverage.

A set's manifold is the union of balls around its points, each of which reaches as far as the k-th
nearest other point of the set. Distances are squared and in float64. They are computed block by
block and never stored: beside the features there are a few blocks of BLOCK x BLOCK and BLOCK x D.

Letters: N samples, M reference images, D features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from maskgil_jax.metrics import features

# 8 MiB of distances: they stay in a processor's cache from the product to the last comparison.
BLOCK = 1024


class Overlap(NamedTuple):
    """Shares in [0, 1], except for the density, which can be above 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(
    reference: np.ndarray, samples: np.ndarray, precision_k: int = 3, density_k: int = 5
) -> Overlap:
    """All four from one pass over the distances.

    Args:
      reference: [M, D].
      samples: [N, D].
      precision_k: as k of precision_recall.
      density_k: as k of density_coverage.

    Raises:
      ValueError: no more rows than either k, other widths, or features that are not finite.
    """
    reference, samples = features.checked(reference=reference, samples=samples)
    _check_counts(precision_k, reference=reference, samples=samples)
    _check_counts(density_k, reference=reference)
    precision_radii, density_radii = _radii(reference, (precision_k, density_k))
    (sample_radii,) = _radii(samples, (precision_k,))
    return _overlap(reference, samples, precision_radii, density_radii, sample_radii, density_k)


def precision_recall(reference: np.ndarray, samples: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall.

    Args:
      reference: [M, D].
      samples: [N, D].
      k: neighbour whose distance is the radius around each point.

    Returns:
      Share of samples within the manifold of the reference, and the other way round. A ball holds
      the points on its surface.

    Raises:
      ValueError: no more than k rows, other widths, or features that are not finite.

    Source: Kynkaanniemi et al. 2019; openai/guided-diffusion, evaluations/evaluator.py, which
    computes the distances in float16 where they are finite there.
    """
    overlap = prdc(reference, samples, k, k)
    return overlap.precision, overlap.recall


def density_coverage(reference: np.ndarray, samples: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Density and coverage.

    Args:
      reference: [M, D].
      samples: [N, D].
      k: neighbour whose distance is the radius around each point of the reference.

    Returns:
      Number of balls that a sample lies in, over k, mean over samples; share of balls with a sample
      in them. A ball does not hold the points on its surface.

    Raises:
      ValueError: no more than k rows of the reference, other widths, or features that are not
        finite.

    Source: Naeem et al. 2020; their package prdc 0.2.
    """
    reference, samples = features.checked(reference=reference, samples=samples)
    _check_counts(k, reference=reference)
    (radii,) = _radii(reference, (k,))
    # No balls around samples: neither needs them, and they cost as much as a third of all else.
    overlap = _overlap(reference, samples, radii, radii, np.full(len(samples), -np.inf), k)
    return overlap.density, overlap.coverage


def _overlap(
    reference: np.ndarray,
    samples: np.ndarray,
    precision_radii: np.ndarray,
    density_radii: np.ndarray,
    sample_radii: np.ndarray,
    density_k: int,
) -> Overlap:
    """Squared radii: two [M] of the reference's balls, one [N] of the samples'."""
    precise = np.zeros(len(samples), bool)
    recalled, covered = np.zeros((2, len(reference)), bool)
    held = 0
    for i, x in _blocks(reference):
        for j, y in _blocks(samples):
            distances = _squared_distances(x, y)
            precise[j] |= (distances <= precision_radii[i, None]).any(axis=0)
            recalled[i] |= (distances <= sample_radii[j]).any(axis=1)
            inside = distances < density_radii[i, None]
            covered[i] |= inside.any(axis=1)
            held += int(np.count_nonzero(inside))
    density = held / (density_k * len(samples))
    return Overlap(float(precise.mean()), float(recalled.mean()), density, float(covered.mean()))


def _radii(points: np.ndarray, ks: tuple[int, ...]) -> list[np.ndarray]:
    """Squared distance [N] of every point to its k-th nearest other, for each k."""
    # Ascending; index k is the k-th neighbour, since the nearest point is the point itself.
    nearest = np.full((len(points), max(ks) + 1), np.inf)
    for i, x in _blocks(points):
        for j, y in _blocks(points, i.start):
            distances = _squared_distances(x, y)
            _keep_nearest(nearest[i], distances)
            if i != j:
                _keep_nearest(nearest[j], distances.T)
    return [nearest[:, k] for k in ks]


def _keep_nearest(nearest: np.ndarray, distances: np.ndarray) -> None:
    """Put the smallest of both, row by row, into nearest [rows, k + 1]."""
    # After the first blocks most rows hold nothing further than what comes, and are left alone.
    rows = (distances < nearest[:, -1:]).any(axis=1)
    both = np.concatenate([nearest[rows], distances[rows]], axis=1)
    last = nearest.shape[1] - 1
    both.partition(last, axis=1)
    nearest[rows] = np.sort(both[:, : last + 1], axis=1)


def _blocks(points: np.ndarray, start: int = 0) -> Iterator[tuple[slice, np.ndarray]]:
    for i in range(start, len(points), BLOCK):
        rows = slice(i, min(i + BLOCK, len(points)))
        yield rows, points[rows].astype(np.float64)


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    distances = x @ y.T
    distances *= -2
    distances += np.einsum("nd,nd->n", x, x)[:, None]  # without an array of all the squares
    distances += np.einsum("nd,nd->n", y, y)
    return np.maximum(distances, 0, out=distances)


def _check_counts(k: int, **sets: np.ndarray) -> None:
    if k < 1 or min(map(len, sets.values())) <= k:
        counts = " and ".join(f"{len(x)} {name}" for name, x in sets.items())
        raise ValueError(f"{counts} features, k = {k}: expected k of 1 or more, and more than k")
