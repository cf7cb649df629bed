import numpy as np
import pytest

from maskgil_jax import metrics
from tests.helpers import golden

GIVEN = golden.arrays("metrics")


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def score(p):
    """As both sources write it."""
    divergence = p * (np.log(p) - np.log(p.mean(axis=0, keepdims=True)))
    return np.exp(divergence.sum(axis=1).mean())


def random_logits(count):
    return np.random.default_rng(0).normal(size=(count, 11)).astype(np.float32) * 3


def test_score_equals_the_golden_ones():
    for split_size, name in ((None, "is_f64"), (5000, "is_f64"), (200, "is_split200_f64")):
        mean, _ = metrics.inception_score(GIVEN["logits"], split_size)
        np.testing.assert_allclose(mean, GIVEN[name], rtol=1e-5)


def test_score_equals_that_of_torch_fidelity():
    logits = 8 * np.random.RandomState(0).uniform(size=(150, 12))
    logits = logits[np.random.RandomState(2020).permutation(150)]
    result = metrics.inception_score(logits, splits=10)
    np.testing.assert_allclose(result, (2.559827122525921, 0.15249817799752186), rtol=1e-12)
    result = metrics.inception_score(logits, splits=7)  # which does not divide 150
    np.testing.assert_allclose(result, (2.643188807522161, 0.11717159868187557), rtol=1e-12)


@pytest.mark.parametrize("count, size", [(103, 10), (103, 103), (103, 500), (5001, None), (1, 1)])
def test_splits_of_a_size_are_those_of_the_adm_evaluator(count, size):
    logits = random_logits(count)
    p = softmax(logits)
    scores = [score(p[i : i + (size or 5000)]) for i in range(0, count, size or 5000)]
    result = metrics.inception_score(logits, split_size=size)
    np.testing.assert_allclose(result, (np.mean(scores), np.std(scores)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count, splits", [(103, 10), (100, 7), (10, 10), (50, 1)])
def test_splits_of_a_number_are_those_of_torch_fidelity(count, splits):
    logits = random_logits(count)
    p = softmax(logits)
    scores = [score(p[i * count // splits : (i + 1) * count // splits]) for i in range(splits)]
    result = metrics.inception_score(logits, splits=splits)
    np.testing.assert_allclose(result, (np.mean(scores), np.std(scores)), rtol=1e-12, atol=1e-14)


def test_a_classifier_that_is_sure_gives_the_number_of_classes():
    result = metrics.inception_score(1e4 * np.tile(np.eye(7), (3, 1)))
    np.testing.assert_allclose(result, (7, 0), rtol=1e-14)


@pytest.mark.parametrize(
    "count, options, message",
    [
        (20, dict(split_size=5, splits=4), "split_size = 5 and splits = 4, expected one"),
        (20, dict(splits=21), "20 rows of logits, expected at least 21"),
        (0, dict(), "0 rows of logits"),
        (20, dict(splits=0), "splits = 0"),
        (20, dict(split_size=0), "split_size = 0"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(count, options, message):
    with pytest.raises(ValueError, match=message):
        metrics.inception_score(random_logits(count), **options)
    with pytest.raises(ValueError, match="shape"):
        metrics.inception_score(random_logits(20)[0], **options)
