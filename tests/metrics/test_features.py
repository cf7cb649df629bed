import numpy as np
import pytest
import scipy.linalg

from maskgil_jax import metrics
from maskgil_jax.metrics.features import pixel_features
from tests import golden

GIVEN = golden.arrays("metrics")


def test_frechet_distance_equals_the_official_one():
    a, b = GIVEN["features_a"], GIVEN["features_b"]
    np.testing.assert_allclose(metrics.frechet_distance(a, b), GIVEN["fid_f64"], rtol=1e-4)
    few = metrics.frechet_distance(a[:16], b)
    np.testing.assert_allclose(few, GIVEN["fid_rank_deficient_f64"], rtol=1e-3)


def test_inception_score_equals_the_official_one():
    for split_size, name in ((5000, "is_f64"), (200, "is_split200_f64")):
        mean, _ = metrics.inception_score(GIVEN["logits"], split_size)
        np.testing.assert_allclose(mean, GIVEN[name], rtol=1e-5)


def test_precision_and_recall_equal_the_official_ones():
    found = metrics.precision_recall(GIVEN["features_a"], GIVEN["features_b"])
    np.testing.assert_array_equal(found, GIVEN["precision_recall_f64"])


def test_class_accuracy_counts_the_right_classes():
    rng = np.random.default_rng(0)
    centres, labels = np.eye(3) * 10, np.arange(30) % 3
    reference = centres[labels] + rng.normal(size=(30, 3))
    wrong = np.where(np.arange(30) < 6, (labels + 1) % 3, labels)
    assert metrics.class_accuracy(reference, labels, reference, labels) == 1.0
    assert metrics.class_accuracy(reference, labels, reference, wrong) == 0.8


def test_classes_are_compared_by_name(tmp_path):
    from PIL import Image

    from maskgil_jax.errors import InputError
    from maskgil_jax.metrics import compare

    for i, name in enumerate(("ant", "bee", "cat")):
        for folder in ("all", "few") if name != "ant" else ("all",):
            (tmp_path / folder / name).mkdir(parents=True)
            for j in range(8):
                shade = (90 * i + j, 0, 0)
                Image.new("RGB", (8, 8), shade).save(tmp_path / folder / name / f"{j}.png")
    whole, few = str(tmp_path / "all"), str(tmp_path / "few")
    assert compare.compare(few, whole, ["accuracy"])["metrics"]["pixel_class_accuracy"] == 1.0
    with pytest.raises(InputError, match="the reference has no images of classes .'ant'."):
        compare.compare(whole, few, ["accuracy"])


def test_features_that_are_not_finite_are_refused():
    bad = GIVEN["features_a"].copy()
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        metrics.frechet_distance(bad, GIVEN["features_b"])
    with pytest.raises(ValueError, match="one D"):
        metrics.frechet_distance(bad[:, :5], GIVEN["features_b"])


def test_pixel_features_are_block_means():
    images = np.zeros((1, 16, 24, 3), np.uint8)
    images[0, :2, :3, 1] = 255
    features = pixel_features(images)
    assert features.shape == (1, 192)
    assert features.reshape(8, 8, 3)[0, 0].tolist() == [0, 1, 0] and features.sum() == 1


def test_psnr_of_a_known_error():
    original = np.full((2, 4, 4, 3), 100, np.uint8)
    shifted = original + np.uint8(5)
    np.testing.assert_allclose(metrics.psnr(original, shifted), 20 * np.log10(255 / 5))


def test_codebook_usage_and_perplexity():
    usage, perplexity = metrics.codebook_usage(np.array([[0, 1], [1, 0]]), 8)
    assert usage == 0.25
    np.testing.assert_allclose(perplexity, 2.0)


def test_frechet_distance_is_its_formula():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 24)), rng.normal(size=(90, 24)) @ rng.normal(size=(24, 24))
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    expected = means + np.trace(covariances[0] + covariances[1] - 2 * root)
    np.testing.assert_allclose(metrics.frechet_distance(a, b), expected, rtol=1e-9)
    np.testing.assert_allclose(metrics.frechet_distance(a, a[::-1]), 0, atol=1e-9)


def test_another_network_gives_features_under_its_own_name(tmp_path):
    from maskgil_jax.data import sources
    from maskgil_jax.errors import InputError
    from maskgil_jax.metrics import compare

    spec = "tests.efficientnet:efficientnet_lite0"
    images, _ = sources.center_crops(sources.open_source("embedded"), 8, 60)
    shuffled = np.random.default_rng(0).permuted(images[:30], axis=2)
    for name, part in (("real", images[:30]), ("other", images[30:]), ("broken", shuffled)):
        np.savez(tmp_path / f"{name}.npz", arr_0=part)
    distances = []
    for name in ("other", "broken"):
        drawn, real = f"{tmp_path}/{name}.npz", f"{tmp_path}/real.npz"
        found = compare.compare(drawn, real, ["frechet"], network=spec)
        assert found["features"] == [spec]
        distances.append(found["metrics"].pop("efficientnet_lite0_frechet_distance"))
        assert not found["metrics"]
    assert distances[0] < distances[1]
    for bad in ("tests.efficientnet", "tests.none:f", "tests.efficientnet:none"):
        with pytest.raises(InputError, match=f"--features={bad}: .*expected MODULE:FUNCTION"):
            compare.chosen(["frechet"], network=bad)
