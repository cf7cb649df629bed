"""Frechet distance between Gaussians, and the Gaussians of features that come in batches.

Letters: N samples, M reference images, D features.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from maskgil_jax.metrics.features import BLOCK, check_finite, checked

# What rounding may do to a covariance, relative to its largest entry or eigenvalue. Files hold some
# that were computed in float32.
ROUNDING = 1e-5


class Gaussian(NamedTuple):
    """A normal distribution.

    Attributes:
      mean: float64 [D].
      covariance: float64 [D, D]; of features, over N - 1.
    """

    mean: np.ndarray
    covariance: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Sums over features from which a Gaussian follows; the moments of two batches add up.

    Attributes:
      count: N, 0 or more.
      mean: float64 [D].
      scatter: float64 [D, D], sum over rows of the outer products of their deviations from the
        mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Moments":
        """Moments of features [N, D]; ValueError for others, or where they are not finite."""
        features = np.asarray(features)
        if features.ndim != 2:
            raise ValueError(f"features of shape {features.shape}, expected [N, D]")
        check_finite("features", features)
        count, width = features.shape
        mean = features.mean(axis=0, dtype=np.float64) if count else np.zeros(width)
        scatter = np.zeros((width, width))
        for start in range(0, count, BLOCK):
            deviations = features[start : start + BLOCK] - mean
            scatter += deviations.T @ deviations
        return cls(count, mean, scatter)

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of the rows of both; ValueError for another D.

        Source: Chan, Golub and LeVeque 1979, equation 2.1. Sums of squares, from which the mean's
        square is taken at the end, lose all digits where the mean is large.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"moments of {len(self.mean)} and of {len(other.mean)} features do not add up"
            )
        count = self.count + other.count
        share = other.count / max(count, 1)
        step = other.mean - self.mean
        between = np.outer(step, step) * (self.count * share)
        return Moments(count, self.mean + step * share, self.scatter + other.scatter + between)

    def gaussian(self) -> Gaussian:
        """The Gaussian fitted to the rows; ValueError where they are fewer than 2."""
        if self.count < 2:
            raise ValueError(f"a covariance of {self.count} rows, expected at least 2")
        return Gaussian(self.mean, self.scatter / (self.count - 1))


def frechet_distance(reference: np.ndarray, samples: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two sets of features.

    Args:
      reference: [M, D].
      samples: [N, D].

    Returns:
      |mu_r - mu_s|^2 + tr(S_r + S_s - 2 (S_r S_s)^(1/2)) with covariances over N - 1.

    Raises:
      ValueError: fewer than 2 rows, other widths, or features that are not finite.

    Source: Heusel et al. 2017; openai/guided-diffusion, evaluations/evaluator.py.
    """
    reference, samples = checked(reference=reference, samples=samples)
    return distance(factored_features(reference), factored_features(samples))


def frechet_distance_of(reference: Gaussian, samples: Gaussian) -> float:
    """Frechet distance between two Gaussians, such as those that a file of statistics holds.

    Args:
      reference, samples: of one D. Covariances may be symmetric and positive semi-definite up to
        the rounding of float32.

    Returns:
      As frechet_distance.

    Raises:
      ValueError: a mean or a covariance that is not well-formed, or other widths.
    """
    if np.shape(reference.mean) != np.shape(samples.mean):
        raise ValueError(
            f"means of shapes {np.shape(reference.mean)} and {np.shape(samples.mean)}, expected "
            "one [D]"
        )
    return distance(
        factored_gaussian("reference", reference), factored_gaussian("samples", samples)
    )


class Factored(NamedTuple):
    """A Gaussian with a factor of its covariance, from which a distance is computed.

    Attributes:
      mean: float64 [D].
      factor: float64 [D, any], F with F F^T = covariance.
    """

    mean: np.ndarray
    factor: np.ndarray


def distance(reference: Factored, samples: Factored) -> float:
    """The Frechet distance between two Gaussians of one D whose covariances are factored."""
    # The eigenvalues of S_r S_s are the squared singular values of the product of the factors. The
    # matrix square root of the official code is slower, and not exact where S_r S_s is singular.
    root = np.linalg.svd(reference.factor.T @ samples.factor, compute_uv=False).sum()
    difference = reference.mean - samples.mean
    traces = (reference.factor**2).sum() + (samples.factor**2).sum() - 2 * root
    return float(difference @ difference + traces)


def factored_features(x: np.ndarray) -> Factored:
    """The Gaussian fitted to finite features, float [N, D] with N of 2 or more."""
    if len(x) > x.shape[1]:
        mean, covariance = Moments.of(x).gaussian()
        return Factored(mean, _factor(covariance))
    # Few rows are a factor themselves: all digits of small variances, and no eigenvectors to find.
    mean = x.mean(axis=0, dtype=np.float64)
    return Factored(mean, (x - mean).T / np.sqrt(len(x) - 1))


def factored_gaussian(name: str, gaussian: Gaussian) -> Factored:
    """A Gaussian with the factor of its covariance; ValueError, with `name`, where it has none."""
    try:
        check_gaussian(gaussian, "the mean", "the covariance")
        mean, covariance = (np.asarray(x, np.float64) for x in gaussian)
        return Factored(mean, _factor((covariance + covariance.T) / 2))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_gaussian(gaussian: Gaussian, mean_name: str, covariance_name: str) -> None:
    """Raise ValueError, with these names, unless a mean and a covariance are well-formed.

    The signs of the eigenvalues are not checked, which would take long.
    """
    mean, covariance = np.asarray(gaussian.mean), np.asarray(gaussian.covariance)
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{mean_name} is {mean.shape} and {covariance_name} is {covariance.shape}, expected "
            "[D] and [D, D]"
        )
    for name, values in ((mean_name, mean), (covariance_name, covariance)):
        if values.dtype.kind not in "iuf":
            raise ValueError(f"{name} is {values.dtype}, expected real numbers")
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{name} has {bad} of {values.size} values that are not finite")
    covariance = covariance.astype(np.float64)
    difference = np.abs(covariance - covariance.T).max()
    if difference > ROUNDING * np.abs(covariance).max():
        raise ValueError(
            f"{covariance_name} is not symmetric (entries that should be equal differ by "
            f"{difference:.3g})"
        )


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [D, rank] of a symmetric covariance."""
    try:
        values, vectors = np.linalg.eigh(covariance)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"the covariance has no eigenvalues: {error}") from None
    if values[0] < -ROUNDING * abs(values[-1]):
        raise ValueError(
            f"the covariance has eigenvalues from {values[0]:.3g} to {values[-1]:.3g}, "
            "expected none below zero"
        )
    # Below this they are rounding, whose square root would count for 1e-8 in each direction.
    zero = len(values) * np.finfo(np.float64).eps * values[-1]
    positive = values > zero
    return vectors[:, positive] * np.sqrt(values[positive])
