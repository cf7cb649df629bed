"""What a protocol, stored statistics, an order by class and a resize change or refuse."""

import json

import jax
import numpy as np
import pytest

from maskgil_jax import metrics
from maskgil_jax.evaluation import feature_networks, image_sets, protocols
from maskgil_jax.runtime.errors import InputError
from tests.helpers.image_pairs import NOISY, ORIGINALS, evaluate


@pytest.mark.slow
def test_a_protocol_changes_what_it_says_and_nothing_else(inception, pair, tmp_path):
    network, directory = inception
    measured = {
        name: evaluate(*pair, tmp_path, "fid", protocol=name, inception=directory)
        for name in ("adm", "clean-fid", "maskgil-released")
    }
    apply = jax.jit(lambda n, x, resize: n(x, resize), static_argnums=2)
    expected = {
        "adm": [apply(network, x, "tf1_bilinear") for x in (ORIGINALS, NOISY)],
        "clean-fid": [apply(network, x, "clean_bicubic") for x in (ORIGINALS, NOISY)],
        "maskgil-released": [
            apply(network, feature_networks.stretched(x), "tf1_bilinear")
            for x in (ORIGINALS, NOISY)
        ],
    }
    for name, features in expected.items():
        distance = metrics.frechet_distance(*(f.pool for f in features))
        np.testing.assert_allclose(measured[name]["metrics"]["fid"], distance, rtol=1e-4)
        assert measured[name]["protocol"]["name"] == name
    assert len({round(result["metrics"]["fid"], 3) for result in measured.values()}) == 3
    assert any("holds no statistics" in warning for warning in measured["adm"]["warnings"])
    assert any(
        "9 samples: the published numbers" in warning for warning in measured["adm"]["warnings"]
    )


def test_stretching_is_of_each_image_and_truncates():
    images = np.array([[10, 20, 31], [7, 7, 7], [0, 128, 255]], np.uint8).reshape(3, 1, 1, 3)
    measured = feature_networks.stretched(images).reshape(3, 3).tolist()
    assert measured == [[0, 121, 255], [0, 0, 0], [0, 128, 255]]


def adm_reference(path, inception, images=ORIGINALS, **arrays):
    """A file as OpenAI's, whose statistics are of other images than its own."""
    features = jax.jit(lambda n, x: n(x))(inception, NOISY[::-1] // 2)
    pool, spatial = (np.asarray(x, np.float64) for x in features[:2])
    statistics = {
        "mu": pool.mean(axis=0),
        "sigma": np.cov(pool, rowvar=False),
        "mu_s": spatial.mean(axis=0),
        "sigma_s": np.cov(spatial, rowvar=False),
    }
    np.savez(path, arr_0=images, **statistics | arrays)
    return features


@pytest.mark.slow
def test_stored_statistics_are_the_reference_of_fid_and_images_that_of_recall(
    inception, pair, tmp_path
):
    network, directory = inception
    stored = adm_reference(tmp_path / "reference.npz", network)
    options = dict(protocol="adm", inception=directory)
    measured = evaluate(pair[0], tmp_path / "reference.npz", tmp_path, **options)
    assert list(measured["metrics"]) == [
        *("fid", "sfid", "inception_score", "inception_score_deviation", "precision", "recall")
    ]
    generated, own = (jax.jit(lambda n, x: n(x))(network, x) for x in (NOISY, ORIGINALS))
    for name, i in (("fid", 0), ("sfid", 1)):
        expected = metrics.frechet_distance(stored[i], generated[i])
        np.testing.assert_allclose(measured["metrics"][name], expected, rtol=1e-4)
    expected = metrics.precision_recall(own.pool, generated.pool)
    assert (measured["metrics"]["precision"], measured["metrics"]["recall"]) == expected
    reference = measured["reference"]
    assert reference["sha256"] == image_sets.sha256_of(str(tmp_path / "reference.npz"))
    assert reference["count"] == 9 and reference["statistics"] == "of the file, not of its images"
    assert "fid" not in measured["real_to_real"] and "precision" in measured["real_to_real"]

    for name in ("rfid-val", "torch-fidelity", "maskgil-released"):
        with pytest.raises(InputError, match=f"protocol={name}: .*holds statistics"):
            evaluate(
                pair[0], tmp_path / "reference.npz", tmp_path, protocol=name, inception=directory
            )
    with pytest.raises(InputError, match=r"mu is \(2048,\) and sigma is \(3, 3\)"):
        adm_reference(tmp_path / "reference.npz", network, sigma=np.eye(3))
        evaluate(pair[0], tmp_path / "reference.npz", tmp_path, **options)
    with pytest.raises(InputError, match="mu has 2048 of 2048 values that are not finite"):
        adm_reference(tmp_path / "reference.npz", network, mu=np.full(2048, np.nan))
        evaluate(pair[0], tmp_path / "reference.npz", tmp_path, **options)


@pytest.mark.slow
def test_an_order_by_class_is_refused_for_the_inception_score(inception, tmp_path):
    _, directory = inception
    for name, labels in (("sorted", [0, 0, 0, 1, 1, 1, 2, 2, 2]), ("mixed", [0, 1, 2] * 3)):
        np.savez(tmp_path / f"{name}.npz", arr_0=NOISY, labels=labels)
    np.savez(tmp_path / "unknown.npz", arr_0=NOISY)
    real = tmp_path / "unknown.npz"
    options = dict(inception=directory, is_order="file")
    with pytest.raises(InputError, match="sorted.npz is sorted by class"):
        evaluate(tmp_path / "sorted.npz", real, tmp_path, "is", **options)
    mixed = evaluate(tmp_path / "mixed.npz", real, tmp_path, "is", **options)
    assert not mixed["warnings"] and "in the order of the file" in mixed["protocol"]["is"]
    unknown = evaluate(tmp_path / "unknown.npz", real, tmp_path, "is", **options)
    assert "whose classes are not known" in unknown["warnings"][0]
    shuffled = evaluate(tmp_path / "sorted.npz", real, tmp_path, "is", inception=directory)
    assert not shuffled["warnings"] and "default_rng(0)" in shuffled["protocol"]["is"]


@pytest.mark.parametrize(
    "labels, expected",
    [
        ([0, 0, 1, 1], True),
        ([2, 2, 0, 0, 1], True),
        ([0, 1, 0, 1], False),
        ([0, 0, 0], False),
        ([0, 1, 2], False),  # one of each: no order is meant
    ],
)
def test_what_is_sorted_by_class(labels, expected):
    assert protocols.sorted_by_class(np.array(labels)) == expected


def test_features_of_another_resize_than_the_protocols_are_refused(tmp_path):
    """As maskgil_jax.features leaves them: it says by which resize they were made."""
    pool = np.random.default_rng(0).normal(size=(50, 6))
    for name, resize in (("tf1", "tf1_bilinear"), ("clean", "clean_bicubic")):
        about = json.dumps({"features": [feature_networks.inception_description(resize, False)]})
        np.savez(
            tmp_path / f"{name}.npz", pool=pool, network=feature_networks.INCEPTION, about=about
        )
    tf1, clean = tmp_path / "tf1.npz", tmp_path / "clean.npz"
    assert abs(evaluate(tf1, tf1, tmp_path, "fid", protocol="adm")["metrics"]["fid"]) < 1e-9
    for sides in ((tf1, clean), (clean, tf1)):
        with pytest.raises(InputError, match="protocol=adm: the features of .*clean.npz are of"):
            evaluate(*sides, tmp_path, "fid", protocol="adm")
    assert evaluate(clean, clean, tmp_path, "kid", protocol="clean-fid")["metrics"].keys() == {
        "kid",
        "kid_deviation",
    }
