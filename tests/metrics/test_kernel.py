import inspect

import numpy as np
import pytest

from maskgil_jax import metrics
from tests.helpers import golden

GIVEN = golden.arrays("metrics")


def mean_discrepancy(x, y):
    """The unbiased estimate, each sum of kernels by itself."""
    m, width = x.shape
    inner = [[(a @ b / width + 1) ** 3 for b in (*x, *y)] for a in (*x, *y)]
    kernel = np.array(inner)
    others = ~np.eye(m, dtype=bool)
    own = kernel[:m, :m][others].mean() + kernel[m:, m:][others].mean()
    return own - 2 * kernel[:m, m:].mean()


def test_distance_of_all_rows_equals_the_golden_one():
    sets = (GIVEN[name][:100] for name in ("features_a", "features_b"))
    mean, deviation = metrics.kernel_distance(*sets, subsets=3, subset_size=100)
    np.testing.assert_allclose(mean, GIVEN["kid_poly_f64"], rtol=0, atol=1e-6)
    assert deviation < 1e-12  # each subset is all of them


def test_distance_equals_that_of_torch_fidelity():
    rng = np.random.RandomState(0)
    reference, samples = rng.uniform(size=(150, 12)), rng.uniform(size=(130, 12)) ** 1.1
    distance = metrics.kernel_distance(reference, samples, subsets=20, subset_size=70)
    expected = (0.0011097146152932336, 0.005529002443115759)  # 0.4.0, samples as input 1
    np.testing.assert_allclose(distance, expected, rtol=1e-11)


@pytest.mark.parametrize("M, N, D, size", [(31, 23, 7, 11), (9, 40, 50, 9), (5, 5, 1, 2)])
def test_distance_is_its_definition(M, N, D, size):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(M, D)).astype(np.float32)
    samples = rng.gamma(1.0, size=(N, D))
    draws = np.random.RandomState(7)
    values = []
    for _ in range(4):
        x = samples[draws.choice(N, size, replace=False)]
        y = reference[draws.choice(M, size, replace=False)].astype(np.float64)
        values.append(mean_discrepancy(x, y))
    distance = metrics.kernel_distance(reference, samples, subsets=4, subset_size=size, seed=7)
    np.testing.assert_allclose(distance, (np.mean(values), np.std(values)), rtol=1e-11)


def test_the_defaults_are_those_of_torch_fidelity():
    parameters = inspect.signature(metrics.kernel_distance).parameters.values()
    assert [x.default for x in parameters][2:] == [100, 1000, 2020]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(), "9 reference and 12 sample features: expected at least subset_size = 1000"),
        (dict(subset_size=10), "expected at least subset_size = 10"),
        (dict(subset_size=1), "1 subset of at least 2"),
        (dict(subset_size=5, subsets=0), "0 subsets"),
    ],
)
def test_subsets_that_cannot_be_drawn_are_refused(options, message):
    few, many = np.eye(12)[:9], np.eye(12)
    with pytest.raises(ValueError, match=message):
        metrics.kernel_distance(few, many, **options)
    if "subsets" not in options:
        with pytest.raises(ValueError, match="subset"):
            metrics.kernel_distance(many, few, **options)
