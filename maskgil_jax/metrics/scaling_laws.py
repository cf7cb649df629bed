"""Power laws of the loss, fitted with intervals: of numbers alone, whatever the models are.

loss = E + sum over i of K_i / x_i ** gamma_i, of one x (parameters, or compute) or of two
(parameters and tokens: Hoffmann et al. 2022, section 3.3).

Letters: P points, M variables of the law, J = 1 + 2 M its numbers, R resamples.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from maskgil_jax.errors import InputError

LEVEL = 0.95  # of all intervals
RESAMPLES = 400
HUBER = 1e-3  # of the log loss; larger residuals count as outliers (Hoffmann et al., appendix D.2)
LARGEST_EXPONENT = 3.0
SMALLEST_SHARE = 1e-8  # of a term in the loss, at the middle of the points


class Number(NamedTuple):
    """An estimate and its interval."""

    value: float
    low: float
    high: float

    @property
    def determined(self) -> bool:
        """Whether the interval is no wider than the estimate is large."""
        return self.high - self.low <= self.value


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
      middle_M: mean of the points' log x, where the terms are compared.
      numbers_J: logarithms of E and of each term at the middle, then the exponents.
      resampled_RJ: the same of each resample.
      points: P.
    """

    middle_M: np.ndarray
    numbers_J: np.ndarray
    resampled_RJ: np.ndarray
    points: int

    @property
    def floor(self) -> Number:
        """E: the loss that neither size nor data gets below."""
        return self._number(lambda numbers: np.exp(numbers[..., 0]))

    def exponent(self, i: int) -> Number:
        """gamma_i."""
        return self._number(lambda numbers: numbers[..., 1 + len(self.middle_M) + i])

    def factor(self, i: int) -> Number:
        """K_i."""
        at = 1 + len(self.middle_M) + i
        return self._number(
            lambda numbers: np.exp(numbers[..., 1 + i] + numbers[..., at] * self.middle_M[i])
        )

    def loss(self, x_M: Sequence[float]) -> Number:
        """The law at x; its interval is of the law, not of a single run."""
        centred_M = np.log(x_M) - self.middle_M
        return self._number(
            lambda numbers: np.exp(special.logsumexp(_terms(numbers, centred_M), axis=-1))
        )

    def _number(self, of: Callable[[np.ndarray], np.ndarray]) -> Number:
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(of(self.resampled_RJ), (tail, 1 - tail))
        return Number(float(of(self.numbers_J)), float(low), float(high))


def fit(x_PM: np.ndarray, losses_P: np.ndarray, seed: int) -> Fit:
    """The law that is closest to the points, by the Huber loss of log losses.

    The intervals are of a parametric bootstrap: laws fitted to the fitted one plus normal noise as
    large as the residuals. How large these are is itself drawn as uncertain as P - J residuals
    leave it, so that few points give the wide intervals of Student's t. Noise is taken to be
    independent from point to point.

    Args:
      x_PM: positive.
      losses_P: positive.
      seed: of the noise.

    Raises:
      InputError: too few points, or too few different x, for the numbers of the law.

    Source: Hoffmann et al. 2022, section 3.3 (loss, optimiser, a grid of starts); sums rather than
    means, and tight tolerances, as Besiroglu et al. 2024 found needed.
    """
    points, variables = x_PM.shape
    numbers = 1 + 2 * variables
    different = min(len(np.unique(column)) for column in x_PM.T)
    if points <= numbers or different < 3:
        raise InputError(
            f"{points} points with {different} different values: a law of {numbers} numbers needs "
            f"{numbers + 1} points or more, and 3 different values of each variable"
        )
    log_x_PM, log_P = np.log(x_PM), np.log(losses_P)
    middle_M = log_x_PM.mean(axis=0)
    centred_PM = log_x_PM - middle_M
    starts = list(_starts(log_P, variables))
    best_J = _closest(starts, centred_PM, log_P)
    fitted_P = special.logsumexp(_terms(best_J, centred_PM), axis=-1)
    free = points - numbers
    scale = np.sqrt(((log_P - fitted_P) ** 2).sum() / free)
    rng = np.random.default_rng(seed)
    scales_R = scale * np.sqrt(free / rng.chisquare(free, RESAMPLES))
    noise_RP = scales_R[:, None] * rng.standard_normal((RESAMPLES, points))
    resampled = [_closest([best_J], centred_PM, fitted_P + noise_P) for noise_P in noise_RP]
    return Fit(middle_M, best_J, np.array(resampled), points)


def _terms(numbers_J: np.ndarray, centred_M: np.ndarray) -> np.ndarray:
    """Logarithms of E and of each term, [..., 1 + M]."""
    variables = centred_M.shape[-1]
    floor, logs, exponents = np.split(numbers_J, (1, 1 + variables), axis=-1)
    terms = logs - exponents * centred_M
    return np.concatenate([np.broadcast_to(floor, (*terms.shape[:-1], 1)), terms], axis=-1)


def _starts(log_P: np.ndarray, variables: int) -> Iterator[np.ndarray]:
    for floor_share, *exponents in itertools.product(
        (0.3, 0.7, 0.95), *[(0.1, 0.4, 1.0)] * variables
    ):
        floor = np.log(floor_share) + log_P.min()
        term = np.log((np.exp(log_P.mean()) - np.exp(floor)) / variables)
        yield np.array([floor, *[term] * variables, *exponents])


def _closest(starts: Sequence[np.ndarray], centred_PM: np.ndarray, log_P: np.ndarray) -> np.ndarray:
    """The numbers, [J], with the smallest Huber loss that is found from any start."""
    variables = centred_PM.shape[1]
    smallest = log_P.min() + np.log(SMALLEST_SHARE)
    bounds = [(smallest, log_P.max())] * (1 + variables) + [(0.0, LARGEST_EXPONENT)] * variables

    def distance(numbers_J: np.ndarray) -> tuple[float, np.ndarray]:
        terms_PI = _terms(numbers_J, centred_PM)
        predicted_P = special.logsumexp(terms_PI, axis=-1)
        residuals_P = predicted_P - log_P
        shares_PI = np.exp(terms_PI - predicted_P[:, None])
        slopes_PJ = np.concatenate([shares_PI, -shares_PI[:, 1:] * centred_PM], axis=-1)
        pulls_P = np.clip(residuals_P / HUBER, -1, 1)
        return special.huber(HUBER, residuals_P).sum() / HUBER, pulls_P @ slopes_PJ

    tight = dict(maxiter=2000, maxfun=4000, ftol=1e-12, gtol=1e-9)
    found = [
        optimize.minimize(
            distance, start, jac=True, method="L-BFGS-B", bounds=bounds, options=tight
        )
        for start in starts
    ]
    return min(found, key=lambda result: result.fun).x
