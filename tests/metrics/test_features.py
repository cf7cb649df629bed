import numpy as np
import pytest

from maskgil_jax import metrics
from maskgil_jax.metrics import features


def test_class_accuracy_counts_the_right_classes():
    rng = np.random.default_rng(0)
    centres, labels = np.eye(3) * 10, np.arange(30) % 3
    reference = centres[labels] + rng.normal(size=(30, 3))
    wrong = np.where(np.arange(30) < 6, (labels + 1) % 3, labels)
    assert metrics.class_accuracy(reference, labels, reference, labels) == 1.0
    assert metrics.class_accuracy(reference, labels, reference, wrong) == 0.8


def test_pixel_features_are_block_means():
    images = np.zeros((1, 16, 24, 3), np.uint8)
    images[0, :2, :3, 1] = 255
    pixels = features.pixel_features(images)
    assert pixels.shape == (1, 192)
    assert pixels.reshape(8, 8, 3)[0, 0].tolist() == [0, 1, 0] and pixels.sum() == 1


@pytest.mark.parametrize("block", [1024, 2])
def test_features_that_are_not_finite_are_counted(block, monkeypatch):
    monkeypatch.setattr(features, "BLOCK", block)
    good, bad = np.zeros((100, 4), np.float32), np.zeros((100, 4), np.float32)
    bad[3, 2], bad[40, 0], bad[99] = np.nan, -np.inf, np.inf
    message = r"samples features of 3 of 100 rows are not finite \(the first is row 3\)"
    for metric in (metrics.frechet_distance, metrics.precision_recall, metrics.density_coverage):
        with pytest.raises(ValueError, match=message):
            metric(good, bad)
    with pytest.raises(ValueError, match=message):
        metrics.kernel_distance(good, bad, subset_size=10)
    with pytest.raises(ValueError, match="logits of 3 of 100 rows .* row 3"):
        metrics.inception_score(bad)
    with pytest.raises(ValueError, match="features of 3 of 100 rows .* row 3"):
        metrics.Moments.of(bad)


@pytest.mark.parametrize("other", [(9, 3), (9,), (1, 4), (9, 4, 1)])
def test_features_that_cannot_be_compared_are_refused(other):
    for sets in ((np.zeros((9, 4)), np.zeros(other)), (np.zeros(other), np.zeros((9, 4)))):
        for metric in (metrics.frechet_distance, metrics.precision_recall):
            with pytest.raises(ValueError, match="with one D and at least 2 rows"):
                metric(*sets)
