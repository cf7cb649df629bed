import functools
import operator
import warnings

import numpy as np
import pytest
import scipy.linalg

from maskgil_jax import metrics
from maskgil_jax.metrics import Gaussian, Moments
from tests.helpers import golden

GIVEN = golden.arrays("metrics")


def adm_distance(reference, samples):
    """As evaluations/evaluator.py defines it, for covariances that may be singular."""
    (mu_1, sigma_1), (mu_2, sigma_2) = reference, samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a singular product
        root = scipy.linalg.sqrtm(sigma_1 @ sigma_2)
        if not np.isfinite(root).all():
            offset = 1e-6 * np.eye(len(mu_1))
            root = scipy.linalg.sqrtm((sigma_1 + offset) @ (sigma_2 + offset))
    assert np.allclose(np.diagonal(root).imag, 0, atol=1e-3)
    return ((mu_1 - mu_2) ** 2).sum() + np.trace(sigma_1 + sigma_2 - 2 * root.real)


def fitted(x):
    return Gaussian(x.mean(axis=0), np.cov(x, rowvar=False))


def rotation(width):
    return scipy.linalg.qr(np.random.default_rng(width).normal(size=(width, width)))[0]


def test_distance_equals_the_golden_ones():
    a, b = GIVEN["features_a"], GIVEN["features_b"]
    np.testing.assert_allclose(metrics.frechet_distance(a, b), GIVEN["fid_f64"], rtol=1e-4)
    few = metrics.frechet_distance(a[:16], b)
    np.testing.assert_allclose(few, GIVEN["fid_rank_deficient_f64"], rtol=1e-3)
    mean, covariance = Moments.of(a).gaussian()
    np.testing.assert_allclose(mean, GIVEN["mu_a_f64"], atol=1e-6)
    np.testing.assert_allclose(covariance.diagonal(), GIVEN["sigma_a_diag_f64"], rtol=1e-6)


def test_distance_equals_that_of_torch_fidelity():
    rng = np.random.RandomState(0)
    reference, samples = rng.uniform(size=(150, 12)), rng.uniform(size=(130, 12)) ** 1.1
    distance = metrics.frechet_distance(reference, samples)
    np.testing.assert_allclose(distance, 0.058626896073289636, rtol=1e-10)  # torch-fidelity 0.4.0


@pytest.mark.parametrize(
    "M, N, D, rtol",
    [(200, 90, 24, 1e-9), (1500, 37, 13, 1e-9), (3, 2, 1, 1e-9), (29, 83, 47, 1e-4)],
)
def test_distance_is_that_of_the_adm_evaluator(M, N, D, rtol):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(M, D)).astype(np.float32)
    b = rng.gamma(0.7, size=(N, D)) @ rng.normal(size=(D, D))
    gaussians = [
        Gaussian(x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)))
        for x in (a.astype(np.float64), b)
    ]
    expected = adm_distance(*gaussians)
    np.testing.assert_allclose(metrics.frechet_distance(a, b), expected, rtol=rtol)
    np.testing.assert_allclose(metrics.frechet_distance_of(*gaussians), expected, rtol=rtol)


@pytest.mark.parametrize("M, N, rank", [(15, 20, 30), (400, 20, 30), (400, 300, 12)])
def test_distance_is_exact_where_covariances_are_singular(M, N, rank):
    """Of features without a common direction, and of features that are twice the others."""
    rng = np.random.default_rng(0)
    rotated = rotation(60)
    a = rng.normal(size=(M, rank)) @ rotated[:rank]
    b = rng.normal(size=(N, rank)) @ rotated[-rank:]
    variances = np.var(a, axis=0, ddof=1).sum(), np.var(b, axis=0, ddof=1).sum()
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(metrics.frechet_distance(a, b), means + sum(variances), rtol=1e-12)
    shift = (a.mean(axis=0) ** 2).sum()
    doubled = metrics.frechet_distance(a, 2 * a)
    np.testing.assert_allclose(doubled, shift + variances[0], rtol=1e-12)
    np.testing.assert_allclose(metrics.frechet_distance(a, a[::-1]), 0, atol=1e-12 * sum(variances))


def test_distance_of_a_singular_covariance_to_a_full_one_is_exact():
    rng = np.random.default_rng(0)
    rotated, roots = rotation(200), rng.uniform(1, 2, (2, 200))
    roots[0, :150] = 0
    first, second = (
        Gaussian(np.zeros(200), (rotated * root**2) @ rotated.T).covariance for root in roots
    )
    distance = metrics.frechet_distance_of(
        Gaussian(np.zeros(200), first), Gaussian(np.full(200, 0.5), second)
    )
    expected = 200 * 0.25 + ((roots[0] - roots[1]) ** 2).sum()
    np.testing.assert_allclose(distance, expected, rtol=1e-11)


def test_small_variances_of_few_rows_count():
    def rows(deviations):
        return np.concatenate([np.diag(deviations), -np.diag(deviations)])

    first, second = np.full(10, 1e-8), np.ones(10)
    first[0] = 3
    a, b = (np.pad(rows(x), ((0, 0), (0, 10))) for x in (first, second))
    expected = 2 * ((first - second) ** 2).sum() / 19
    np.testing.assert_allclose(metrics.frechet_distance(a, b), expected, rtol=1e-13)


@pytest.mark.parametrize("offset, deviation", [(0, 1), (1e3, 1e-2)])
@pytest.mark.parametrize("counts", [(700,), (1, 0, 2, 1, 500, 3, 1030, 17), (1,) * 40, (2500, 1)])
def test_moments_of_blocks_add_up_to_those_of_all(offset, deviation, counts):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(9, 9)) / 3
    x = offset + deviation * rng.normal(size=(sum(counts), 9)) @ mixing
    blocks = [Moments.of(rows) for rows in np.split(x, np.cumsum(counts)[:-1])]
    pairs = [functools.reduce(operator.add, blocks[i : i + 2]) for i in range(0, len(blocks), 2)]
    for total in (functools.reduce(operator.add, blocks), functools.reduce(operator.add, pairs)):
        assert total.count == len(x)
        mean, covariance = total.gaussian()
        expected = np.cov(x, rowvar=False)
        np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(covariance, expected, rtol=0, atol=1e-10 * expected.max())


def test_moments_that_do_not_fit_are_refused():
    one = Moments.of(np.ones((1, 3)))
    with pytest.raises(ValueError, match="covariance of 1 rows"):
        one.gaussian()
    with pytest.raises(ValueError, match="of 3 and of 4 features"):
        one + Moments.of(np.ones((5, 4)))
    with pytest.raises(ValueError, match="shape"):
        Moments.of(np.ones(3))
    assert (one + one).gaussian().covariance.tolist() == np.zeros((3, 3)).tolist()


def test_covariances_that_were_rounded_to_float32_are_taken():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(900, 30)) @ rng.normal(size=(30, 80)) for _ in range(2))
    exact = metrics.frechet_distance(a, b)
    rounded = []
    for x in (a, b):
        mean, covariance = fitted(x)
        lower = np.tril(covariance * (1 + 1e-6), -1)
        uneven = (np.triu(covariance) + lower).astype(np.float32)
        assert (uneven != uneven.T).any() and np.linalg.eigvalsh(uneven)[0] < 0
        rounded.append(Gaussian(mean, uneven))
    distance = metrics.frechet_distance_of(*rounded)
    np.testing.assert_allclose(distance, exact, rtol=1e-2)
    assert abs(distance / exact - 1) > 1e-12  # the rounding is there
    other_half = [Gaussian(mean, covariance.T) for mean, covariance in rounded]
    assert metrics.frechet_distance_of(*other_half) == distance


GOOD = np.diag([1.0, 2, 3])
NOT_FINITE = GOOD * [1, np.nan, 1]
NOT_SYMMETRIC = GOOD + [[0, 0.01, 0], [0, 0, 0], [0, 0, 0]]
NEGATIVE = np.diag([1.0, 2, -0.01])


@pytest.mark.parametrize(
    "mean, covariance, message",
    [
        (np.zeros(3), GOOD[:2], "expected .D. and .D, D."),
        (np.zeros(3), np.diag(GOOD), "expected .D. and .D, D."),
        (np.zeros(3), np.eye(4), "expected .D. and .D, D."),
        (np.zeros((3, 1)), GOOD, "means of shapes"),
        (np.zeros(2), np.eye(2), "means of shapes"),
        (np.full(3, np.inf), GOOD, "not finite"),
        (np.zeros(3), NOT_FINITE, "not finite"),
        (np.zeros(3), NOT_SYMMETRIC, "not symmetric .* differ by 0.01"),
        (np.zeros(3), NEGATIVE, "eigenvalues from -0.01 to 2"),
        (np.zeros(3), -GOOD, "eigenvalues from -3 to -1"),
    ],
)
def test_what_is_no_covariance_is_refused(mean, covariance, message):
    good, bad = Gaussian(np.zeros(3), GOOD), Gaussian(mean, covariance)
    assert metrics.frechet_distance_of(good, good) == pytest.approx(0, abs=1e-12)
    for reference, samples in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match=message):
            metrics.frechet_distance_of(reference, samples)
