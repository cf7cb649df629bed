"""Power laws of the loss, fitted with intervals: of numbers alone, whatever the models are.

loss = E + sum over i of K_i / x_i ** gamma_i, of one x (compute) or of two (parameters and tokens:
Hoffmann et al. 2022, section 3.3).

Letters: P points, M variables of the law, J = 1 + 2 M its numbers, R resamples, S starts.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from maskgil_jax.runtime.errors import InputError

LEVEL = 0.95  # of all intervals
RESAMPLES = 400
EXPONENTS = (1e-3, 3.0)  # smallest and largest
SMALLEST_SHARE = 1e-6  # of a term in the loss, at the middle of the points
ITERATIONS = 100


class Number(NamedTuple):
    """An estimate and its interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
      middle_M: mean of the points' log x, where the terms are compared.
      numbers_J: logarithms of E, of each term at the middle, and of the exponents.
      resampled_RJ: the same of each resample.
      scale: standard deviation of the points' log losses around the law.
    """

    middle_M: np.ndarray
    numbers_J: np.ndarray
    resampled_RJ: np.ndarray
    scale: float

    @property
    def floor(self) -> Number:
        """E: the loss that neither size nor data gets below."""
        return self._number(lambda numbers: np.exp(numbers[..., 0]))

    def exponent(self, i: int) -> Number:
        """gamma_i."""
        return self._number(lambda numbers: np.exp(numbers[..., 1 + len(self.middle_M) + i]))

    def factor(self, i: int) -> Number:
        """K_i."""
        at = 1 + len(self.middle_M) + i
        return self._number(
            lambda numbers: np.exp(
                numbers[..., 1 + i] + np.exp(numbers[..., at]) * self.middle_M[i]
            )
        )

    def loss(self, x_M: Sequence[float]) -> Number:
        """The law at x; its interval is of the law, not of a single run."""
        centred_M = np.log(x_M) - self.middle_M
        return self._number(
            lambda numbers: np.exp(special.logsumexp(_terms(numbers, centred_M), axis=-1))
        )

    @property
    def determined(self) -> bool:
        """Whether each exponent's interval is narrower than its value, and within EXPONENTS."""
        exponents = [self.exponent(i) for i in range(len(self.middle_M))]
        return all(
            one.high - one.low < one.value and one.high < 0.99 * EXPONENTS[1] for one in exponents
        )

    def _number(self, of: Callable[[np.ndarray], np.ndarray]) -> Number:
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(of(self.resampled_RJ), (tail, 1 - tail))
        return Number(float(of(self.numbers_J)), float(low), float(high))


def check_points(x_PM: np.ndarray) -> None:
    """Raise InputError where points are too few, or too much alike, for the numbers of a law.

    Args:
      x_PM: of the points.
    """
    points, variables = x_PM.shape
    numbers = 1 + 2 * variables
    different = min((len(np.unique(column)) for column in x_PM.T), default=0)
    if points <= numbers or different < 3:
        raise InputError(
            f"{points} points with {different} different values: a law of {numbers} numbers needs "
            f"{numbers + 1} points or more, and 3 different values of each variable"
        )


def fit(x_PM: np.ndarray, losses_P: np.ndarray, seed: int) -> Fit:
    """The law that is closest to the points, by least squares of log losses.

    The intervals are of a parametric bootstrap: laws fitted to the fitted one plus normal noise as
    large as the residuals. How large these are is itself drawn as uncertain as P - J residuals
    leave it, so that few points give the wide intervals of Student's t. Noise is taken to be
    independent from point to point.

    Args:
      x_PM: positive.
      losses_P: positive.
      seed: of the noise.

    Raises:
      InputError: as check_points.

    Source: Hoffmann et al. 2022, section 3.3 (the law, log losses, a grid of starts); squares
    instead of their Huber loss, since all points are ends of whole schedules.
    """
    check_points(x_PM)
    points, variables = x_PM.shape
    log_x_PM, log_P = np.log(x_PM), np.log(losses_P)
    middle_M = log_x_PM.mean(axis=0)
    centred_PM = log_x_PM - middle_M
    starts_SJ = _starts(log_P, variables)
    fitted_SJ, squares_S = _closest(starts_SJ, centred_PM, np.tile(log_P, (len(starts_SJ), 1)))
    best_J = fitted_SJ[squares_S.argmin()]
    free = points - 1 - 2 * variables
    scale = np.sqrt(squares_S.min() / free)
    rng = np.random.default_rng(seed)
    scales_R = scale * np.sqrt(free / rng.chisquare(free, RESAMPLES))
    noise_RP = scales_R[:, None] * rng.standard_normal((RESAMPLES, points))
    resampled_RJ, _ = _closest(
        np.tile(best_J, (RESAMPLES, 1)), centred_PM, _log_loss(best_J, centred_PM) + noise_RP
    )
    return Fit(middle_M, best_J, resampled_RJ, float(scale))


def _terms(numbers_J: np.ndarray, centred_M: np.ndarray) -> np.ndarray:
    """Logarithms of E and of each term, [..., 1 + M]."""
    variables = centred_M.shape[-1]
    floor, logs, exponents = np.split(numbers_J, (1, 1 + variables), axis=-1)
    terms = logs - np.exp(exponents) * centred_M
    return np.concatenate([np.broadcast_to(floor, (*terms.shape[:-1], 1)), terms], axis=-1)


def _log_loss(numbers_J: np.ndarray, centred_M: np.ndarray) -> np.ndarray:
    return special.logsumexp(_terms(numbers_J, centred_M), axis=-1)


def _starts(log_P: np.ndarray, variables: int) -> np.ndarray:
    starts = []
    for share, *exponents in itertools.product((0.3, 0.7, 0.95), *[(0.1, 0.4, 1.0)] * variables):
        floor = share * np.exp(log_P.min())
        term = np.log((np.exp(log_P.mean()) - floor) / variables)
        starts.append([np.log(floor), *[term] * variables, *np.log(exponents)])
    return np.array(starts)


def _closest(
    starts_SJ: np.ndarray, centred_PM: np.ndarray, log_SP: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt from each start to its own losses: numbers [S, J], squares [S]."""
    variables = centred_PM.shape[1]
    log_least = log_SP.min() + np.log(SMALLEST_SHARE)
    low_J = np.array([log_least] * (1 + variables) + [np.log(EXPONENTS[0])] * variables)
    high_J = np.array([log_SP.max()] * (1 + variables) + [np.log(EXPONENTS[1])] * variables)
    numbers_SJ = starts_SJ
    residuals_SP = _log_loss(numbers_SJ[:, None], centred_PM) - log_SP
    damping_S = np.full(len(starts_SJ), 1e-2)
    for _ in range(ITERATIONS):
        terms_SPI = _terms(numbers_SJ[:, None], centred_PM)
        shares_SPI = special.softmax(terms_SPI, axis=-1)
        exponents_SM = np.exp(numbers_SJ[:, 1 + variables :])
        d_exponents_SPM = -shares_SPI[..., 1:] * exponents_SM[:, None] * centred_PM
        d_numbers_SPJ = np.concatenate([shares_SPI, d_exponents_SPM], axis=-1)
        curvature_SJJ = d_numbers_SPJ.mT @ d_numbers_SPJ + damping_S[:, None, None] * np.eye(
            len(low_J)
        )
        gradient_SJ = d_numbers_SPJ.mT @ residuals_SP[..., None]
        moved_SJ = np.clip(
            numbers_SJ - np.linalg.solve(curvature_SJJ, gradient_SJ)[..., 0], low_J, high_J
        )
        moved_SP = _log_loss(moved_SJ[:, None], centred_PM) - log_SP
        better_S = (moved_SP**2).sum(axis=-1) < (residuals_SP**2).sum(axis=-1)
        numbers_SJ = np.where(better_S[:, None], moved_SJ, numbers_SJ)
        residuals_SP = np.where(better_S[:, None], moved_SP, residuals_SP)
        damping_S = np.clip(np.where(better_S, damping_S / 3, damping_S * 4), 1e-12, 1e6)
    return numbers_SJ, (residuals_SP**2).sum(axis=-1)
