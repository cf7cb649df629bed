import tracemalloc

import numpy as np
import pytest

from maskgil_jax import metrics
from maskgil_jax.metrics import features, manifolds
from tests.helpers import golden

GIVEN = golden.arrays("metrics")
SIZES = [(37, 22, 5), (20, 51, 64), (6, 6, 1), (64, 128, 3)]


def use_blocks_of(rows, monkeypatch):
    monkeypatch.setattr(manifolds, "BLOCK", rows)
    monkeypatch.setattr(features, "BLOCK", rows)


def squared_distances(x, y):
    return ((x[:, None].astype(np.float64) - y.astype(np.float64)) ** 2).sum(axis=-1)


def adm_precision_recall(reference, samples, k):
    """As ManifoldEstimator of evaluations/evaluator.py defines it, without its float16."""
    radii = [np.sort(squared_distances(x, x), axis=1)[:, k] for x in (reference, samples)]
    between = squared_distances(reference, samples)
    precision = (between <= radii[0][:, None]).any(axis=0).mean()
    return precision, (between <= radii[1]).any(axis=1).mean()


def naeem_prdc(reference, samples, k):
    """As Naeem et al. 2020 define the four, with balls that are open."""
    radii = []
    for x in (reference, samples):
        own = squared_distances(x, x)
        np.fill_diagonal(own, np.inf)
        radii.append(np.sort(own, axis=1)[:, k - 1])
    between = squared_distances(reference, samples)
    inside = between < radii[0][:, None]
    return (
        inside.any(axis=0).mean(),
        (between < radii[1]).any(axis=1).mean(),
        inside.sum() / (k * len(samples)),
        (between.min(axis=1) < radii[0]).mean(),
    )


def random_sets(M, N, D):
    rng = np.random.default_rng(0)
    return rng.normal(size=(M, D)).astype(np.float32), rng.normal(size=(N, D)) * 0.8 + 0.2


def lattice_sets(M, N, D):
    """Many points in one place and at one distance, which float64 knows exactly, float32 not."""
    rng = np.random.default_rng(0)
    sets = rng.integers(0, 4, (M, D)), rng.integers(0, 3, (N, D))
    return [x.astype(np.float32) + np.float32(5000) for x in sets]


def test_precision_and_recall_equal_the_golden_ones(monkeypatch):
    for block in (1024, 17):
        use_blocks_of(block, monkeypatch)
        result = metrics.precision_recall(GIVEN["features_a"], GIVEN["features_b"])
        np.testing.assert_array_equal(result, GIVEN["precision_recall_f64"])
        for name in "ab":
            (radii,) = manifolds._radii(GIVEN[f"features_{name}"], (3,))
            np.testing.assert_allclose(radii, GIVEN[f"radii_{name}"][:, 0], rtol=1e-5)


def test_all_four_equal_those_of_the_package_prdc():
    rng = np.random.RandomState(0)
    reference, samples = rng.uniform(size=(150, 12)), rng.uniform(size=(130, 12)) ** 1.1
    result = metrics.density_coverage(reference, samples)
    np.testing.assert_allclose(result, (0.9615384615384616, 0.9733333333333334))  # prdc 0.2, 5
    result = metrics.density_coverage(reference, samples, k=3)
    np.testing.assert_allclose(result, (0.9589743589743589, 0.8533333333333334))  # prdc 0.2, 3
    result = metrics.precision_recall(reference, samples)
    np.testing.assert_allclose(result, (0.8846153846153846, 0.9333333333333333))  # and its others


@pytest.mark.parametrize("sets", [random_sets, lattice_sets])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [3, 16, 64])
@pytest.mark.parametrize("size", SIZES)
def test_each_metric_is_its_definition_in_blocks_of_any_size(sets, k, block, size, monkeypatch):
    use_blocks_of(block, monkeypatch)
    reference, samples = sets(*size)
    precision_recall = adm_precision_recall(reference, samples, k)
    _, _, *density_coverage = naeem_prdc(reference, samples, 4)
    overlap = manifolds.prdc(reference, samples, precision_k=k, density_k=4)
    np.testing.assert_allclose(overlap, (*precision_recall, *density_coverage), rtol=1e-14)
    assert metrics.precision_recall(reference, samples, k) == precision_recall
    alone = metrics.density_coverage(reference, samples, 4)
    np.testing.assert_allclose(alone, density_coverage, rtol=1e-14)


def test_balls_hold_their_surface_for_precision_and_recall_only():
    reference, samples = lattice_sets(64, 128, 3)
    precision, recall, density, _ = naeem_prdc(reference, samples, 3)
    overlap = manifolds.prdc(reference, samples, 3, 3)
    assert overlap.precision > precision and overlap.recall > recall
    assert overlap.density == pytest.approx(density, rel=1e-14)


def test_blocks_that_do_not_divide_the_features_at_full_size():
    rng = np.random.default_rng(1)
    reference, samples = rng.normal(size=(1030, 6)), rng.normal(size=(2049, 6)) * 0.9
    assert len(reference) % manifolds.BLOCK and len(samples) > 2 * manifolds.BLOCK
    overlap = manifolds.prdc(reference, samples)
    assert (overlap.precision, overlap.recall) == adm_precision_recall(reference, samples, 3)
    expected = naeem_prdc(reference, samples, 5)[2:]
    np.testing.assert_allclose((overlap.density, overlap.coverage), expected, rtol=1e-14)


def test_squared_distances_are_not_negative():
    x = np.random.default_rng(0).normal(size=(50, 30)) + 1000
    assert manifolds._squared_distances(x, x).min() >= 0


def test_a_set_lies_within_itself():
    x = np.random.default_rng(0).integers(0, 9, (50, 4))
    assert manifolds.prdc(x, x)[:2] == (1, 1)
    apart = manifolds.prdc(x, x + 1000)
    assert apart == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "count, dim, block, bound",
    [
        (4000, 64, 1024, 40),  # the distances of one pair of sets are 122 MiB
        (500, 1500, 100, 4.5),  # a set in float64 is 5.7 MiB
    ],
)
def test_memory_is_that_of_a_few_blocks(count, dim, block, bound, monkeypatch):
    use_blocks_of(block, monkeypatch)
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((count, dim), np.float32) for _ in range(2)]
    tracemalloc.start()
    try:
        manifolds.prdc(*sets)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bound * 2**20


def test_too_few_features_are_refused():
    few, many = np.eye(5), np.eye(9)[:, :5]
    for sets in ((few, many), (many, few)):
        with pytest.raises(ValueError, match="k = 5: expected .* more than k"):
            metrics.precision_recall(*sets, k=5)
    with pytest.raises(ValueError, match="5 reference features, k = 5"):
        metrics.density_coverage(few, many)
    with pytest.raises(ValueError, match="5 reference features, k = 6"):
        manifolds.prdc(few, many, precision_k=1, density_k=6)
    metrics.density_coverage(many, few)  # needs no balls around samples
    with pytest.raises(ValueError, match="k = 0"):
        metrics.precision_recall(many, many, k=0)
