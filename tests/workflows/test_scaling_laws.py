"""Laws are recovered from noisy points that obey them."""

import numpy as np
import pytest

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import scaling_laws

SIZES, TOKENS = np.geomspace(1e5, 1.3e6, 4), np.geomspace(6e5, 4.8e6, 4)
GRID_PM = np.array([(size, tokens) for size in SIZES for tokens in TOKENS])


def loss_of(x_PM):
    return 2.5 + 30 / x_PM[:, 0] ** 0.3 + 200 / x_PM[:, 1] ** 0.4


def noisy(losses_P, noise, seed):
    return losses_P * np.exp(noise * np.random.default_rng(seed).standard_normal(len(losses_P)))


def test_a_law_without_noise_is_found_exactly():
    fit = scaling_laws.fit(GRID_PM, loss_of(GRID_PM), seed=0)
    fitted = [fit.floor, fit.exponent(0), fit.exponent(1), fit.factor(0), fit.factor(1)]
    np.testing.assert_allclose([one.value for one in fitted], (2.5, 0.3, 0.4, 30, 200), rtol=1e-3)
    assert fit.determined and fit.scale < 1e-6


def test_intervals_hold_the_truth_as_often_as_they_say():
    far = (1e7, 1e8)
    truth = (2.5, 0.3, 0.4, loss_of(np.array([far]))[0])
    held = []
    for seed in range(12):
        fit = scaling_laws.fit(GRID_PM, noisy(loss_of(GRID_PM), 1e-3, seed), seed)
        fitted = (fit.floor, fit.exponent(0), fit.exponent(1), fit.loss(far))
        held.append([one.low <= t <= one.high for one, t in zip(fitted, truth, strict=True)])
        assert fit.determined
        # They are of some use: the exponents are known to a third, the loss to a twentieth.
        assert fitted[1].high - fitted[1].low < 0.1 and fitted[3].high - fitted[3].low < 0.15
    assert np.mean(held) >= 0.85


def test_a_law_of_one_variable():
    x_P1 = np.geomspace(1e11, 1e14, 7)[:, None]
    held = []
    for seed in range(12):
        losses_P = noisy(2.5 + (1e9 / x_P1[:, 0]) ** 0.3, 1e-3, seed)
        fit = scaling_laws.fit(x_P1, losses_P, seed)
        fitted, truth = (fit.floor, fit.exponent(0)), (2.5, 0.3)
        held.append([one.low <= t <= one.high for one, t in zip(fitted, truth, strict=True)])
    assert np.mean(held) >= 0.8


def test_noise_as_large_as_the_effect_leaves_the_law_undetermined():
    fit = scaling_laws.fit(GRID_PM, noisy(np.full(16, 4.0), 0.02, 0), seed=0)
    assert not fit.determined


@pytest.mark.parametrize(
    "x_PM, words",
    [
        (GRID_PM[:5], "5 points with 2 different values: a law of 5 numbers needs 6"),
        (GRID_PM[:8], "8 points with 2 different values"),
        (GRID_PM[:3, 1:], "3 points with 3 different values: a law of 3 numbers needs 4"),
        (GRID_PM[:0], "0 points"),
    ],
)
def test_too_few_points_are_refused(x_PM, words):
    with pytest.raises(InputError, match=words):
        scaling_laws.fit(x_PM, np.full(len(x_PM), 3.0), seed=0)
