"""Kernel distance (KID): a maximum mean discrepancy that is unbiased at any number of images.

Letters: N samples, M reference images, D features.
"""

import numpy as np

from maskgil_jax.metrics import features


def kernel_distance(
    reference: np.ndarray,
    samples: np.ndarray,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """Mean and standard deviation over subsets of the squared maximum mean discrepancy.

    The kernel is (x.y / D + 1)^3. Values slightly below zero are possible, and mean that the sets
    are alike.

    Args:
      reference: [M, D].
      samples: [N, D].
      subsets: how many random subsets to take of both sets, rows with replacement among subsets
        but not within one.
      subset_size: rows of each, 2 or more.
      seed: of the subsets, those of the samples first, as torch-fidelity takes its input 1 first.

    Returns:
      The mean, and the deviation over the number of subsets (not one less).

    Raises:
      ValueError: fewer rows than subset_size, other widths, or features that are not finite.

    Source: Binkowski et al. 2018; torch-fidelity 0.4.0, metric_kid.py with its defaults, which
    computes in the dtype of its features, float32.
    """
    reference, samples = features.checked(reference=reference, samples=samples)
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"{subsets} subsets of {subset_size} rows, expected at least 1 subset of at least 2"
        )
    if min(len(reference), len(samples)) < subset_size:
        raise ValueError(
            f"{len(reference)} reference and {len(samples)} sample features: expected at least "
            f"subset_size = {subset_size}"
        )
    # The old generator of numpy, since torch-fidelity takes the subsets that it gives.
    rng = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        x, y = (
            rows[rng.choice(len(rows), subset_size, replace=False)].astype(np.float64)
            for rows in (samples, reference)
        )
        distances.append(_off_diagonal_mean(x) + _off_diagonal_mean(y) - 2 * _kernel(x, y).mean())
    return float(np.mean(distances)), float(np.std(distances))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal_mean(x: np.ndarray) -> float:
    kernel = _kernel(x, x)
    return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))
