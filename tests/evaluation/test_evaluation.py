"""Whole measurements: what is compared with what, under which name, and what is refused."""

import json
import logging
import pickle

import jax
import numpy as np
import pytest
from PIL import Image

from maskgil_jax import metrics
from maskgil_jax.data import sources
from maskgil_jax.evaluation import evaluation, feature_networks, image_sets, protocols
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.models.perceptual.inception import Inception, InceptionConfig
from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
ORIGINALS = RNG.integers(256, size=(9, 16, 16, 3), dtype=np.uint8)
NOISY = np.clip(ORIGINALS + RNG.integers(-20, 20, size=ORIGINALS.shape), 0, 255).astype(np.uint8)
ORIGINALS[::2] //= 2
NOISY[::4] //= 3
DIGITS, _ = sources.center_crops(sources.open_source("embedded"), 8, 600)


def evaluate(samples, reference, tmp_path, *names, **settings):
    return evaluation.evaluate(
        str(samples), str(reference), Settings(names, batch_size=9, **settings), tmp_path / "work"
    )


@pytest.fixture
def pair(tmp_path):
    """Two files of images."""
    for name, array in (("a", NOISY), ("b", ORIGINALS)):
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
    return tmp_path / "a.npz", tmp_path / "b.npz"


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A network with random weights, and its directory."""

    def random_weights(like):
        gain = 1.4 / np.sqrt(np.prod(like.shape[:-1]))
        noise = RNG.standard_normal(like.shape, np.float32)
        return gain.astype(np.float32) * noise if len(like.shape) > 1 else 1 + 0.1 * abs(noise)

    like = jax.eval_shape(lambda: Inception(InceptionConfig(), jax.random.key(0)))
    network = jax.tree.map(random_weights, like)
    directory = tmp_path_factory.mktemp("inception") / "model"
    loading.Auxiliary(network).save(directory)
    return network, str(directory)


def test_lpips_is_that_of_the_network_it_is_given(pair, tmp_path):
    config = LPIPSConfig(channels=(4, 4, 4, 4, 4))
    network = jax.jit(lambda: LPIPS(config, jax.random.key(0)))()
    loading.Auxiliary(network).save(tmp_path / "lpips")
    measured = evaluate(*pair, tmp_path, "lpips", lpips=str(tmp_path / "lpips"))
    x, y = (a / np.float32(127.5) - 1 for a in (NOISY, ORIGINALS))
    expected = jax.jit(lambda n, x, y: n(x, y))(network, x, y).mean()
    np.testing.assert_allclose(measured["metrics"]["lpips_vgg"], expected, rtol=1e-5)
    assert measured["real_to_real"] == {}
    with pytest.raises(InputError, match="metric 'lpips' needs lpips=DIR"):
        evaluate(*pair, tmp_path, "lpips")
    with pytest.raises(InputError, match="metric .codebook. of .*: the samples have no codes"):
        evaluate(*pair, tmp_path, "codebook")


@pytest.mark.slow
def test_inception_metrics_are_those_of_its_features(inception, pair, tmp_path):
    network, directory = inception
    names = ("fid", "rfid", "sfid", "is", "pr", "dc", "kid", "frechet")
    result = evaluate(*pair, tmp_path, *names, inception=directory)
    extract = jax.jit(lambda n, x: n(x))
    generated, real = extract(network, NOISY), extract(network, ORIGINALS)
    precision, recall = metrics.precision_recall(real.pool, generated.pool)
    density, coverage = metrics.density_coverage(real.pool, generated.pool)
    order = np.random.default_rng(0).permutation(len(NOISY))
    expected = {
        "fid": metrics.frechet_distance(real.pool, generated.pool),
        "rfid": metrics.frechet_distance(real.pool, generated.pool),
        "sfid": metrics.frechet_distance(real.spatial, generated.spatial),
        "inception_score": metrics.inception_score(np.asarray(generated.logits)[order])[0],
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(result["metrics"][name], value, rtol=1e-4, err_msg=name)
    assert result["features"] == [
        "Inception 2015-12-05, TensorFlow 1's bilinear resize to 299",
        feature_networks.PIXELS,
    ]
    assert "pixel_frechet_distance" in result["metrics"]
    assert "rfid" not in result["real_to_real"] and "fid" in result["real_to_real"]
    assert any(
        "no dc between halves of the reference: 4" in warning for warning in result["warnings"]
    )
    assert any(
        "fid of 9 images: a covariance of 2,048" in warning for warning in result["warnings"]
    )
    with pytest.raises(InputError, match="metric 'fid' needs inception=DIR"):
        evaluate(*pair, tmp_path, "fid")


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


def test_images_of_another_size_are_refused_before_any_work(pair, tmp_path):
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="holds images of 32 x 32 pixels, but the samples are 16"):
        evaluate(pair[0], tmp_path / "large.npz", tmp_path)
    assert not (tmp_path / "work").exists()


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


def test_classes_are_compared_by_name(tmp_path):
    for i, name in enumerate(("ant", "bee", "cat")):
        for folder in ("all", "few") if name != "ant" else ("all",):
            (tmp_path / folder / name).mkdir(parents=True)
            for j in range(8):
                shade = (90 * i + j, 0, 0)
                Image.new("RGB", (8, 8), shade).save(tmp_path / folder / name / f"{j}.png")
    whole, few = tmp_path / "all", tmp_path / "few"
    measured = evaluate(few, whole, tmp_path, "accuracy")
    assert measured["metrics"]["pixel_class_accuracy"] == 1.0
    with pytest.raises(InputError, match="the reference has no images of classes .'ant'."):
        evaluate(whole, few, tmp_path, "accuracy")


def test_another_network_gives_features_under_its_own_name(tmp_path):
    spec = "tests.helpers.efficientnet:efficientnet_lite0"
    shuffled = np.random.default_rng(0).permuted(DIGITS[:30], axis=2)
    for name, part in (("real", DIGITS[:30]), ("other", DIGITS[30:60]), ("broken", shuffled)):
        np.savez(tmp_path / f"{name}.npz", arr_0=part)
    distances = []
    for name in ("other", "broken"):
        generated, real = tmp_path / f"{name}.npz", tmp_path / "real.npz"
        measured = evaluate(generated, real, tmp_path, "frechet", network=spec)
        assert measured["features"] == [spec]
        distances.append(measured["metrics"].pop("efficientnet_lite0_frechet_distance"))
        assert not measured["metrics"]
    assert distances[0] < distances[1]
    for bad in ("tests.helpers.efficientnet", "tests.none:f", "tests.helpers.efficientnet:none"):
        with pytest.raises(InputError, match=f"features={bad}: .*expected MODULE:FUNCTION"):
            evaluate(generated, real, tmp_path, "frechet", network=bad)
    with pytest.raises(InputError, match="metric 'fid' is of Inception's features, but these are"):
        evaluate(generated, real, tmp_path, "fid", network=spec)


def test_features_of_something_else_serve_every_metric_but_never_as_fid(tmp_path):
    rng = np.random.default_rng(3)
    sets = {"a": rng.normal(size=(300, 8)), "b": rng.normal(0.2, size=(400, 8))}
    logits = rng.normal(size=(300, 5)).astype(np.float32)
    for name, features in sets.items():
        extra = {"logits": logits[:400]} if name == "a" else {}
        labels = np.arange(len(features)) % 3
        np.savez(
            tmp_path / f"{name}.npz", features=features, network="lab/Net-7", labels=labels, **extra
        )
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    measured = evaluate(a, b, tmp_path, "frechet", "pr", "dc", "kid", "accuracy", "is")
    precision, recall = metrics.precision_recall(sets["b"], sets["a"])
    expected = {
        "lab_net_7_frechet_distance": metrics.frechet_distance(sets["b"], sets["a"]),
        "lab_net_7_precision": precision,
        "lab_net_7_recall": recall,
        "lab_net_7_inception_score": metrics.inception_score(logits)[0],
        "lab_net_7_kid": metrics.kernel_distance(sets["b"], sets["a"], subset_size=300)[0],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(measured["metrics"][name], value, rtol=1e-9, err_msg=name)
    assert {name.startswith("lab_net_7_") for name in measured["metrics"]} == {True}
    assert measured["features"] == ["lab/Net-7"]
    assert measured["reference"]["sha256"] == image_sets.sha256_of(str(b))
    with pytest.raises(InputError, match="other side images: expected features too, or features="):
        np.savez(tmp_path / "images.npz", arr_0=ORIGINALS)
        evaluate(tmp_path / "images.npz", b, tmp_path)
    with pytest.raises(InputError, match="features of lab/Net-7 and of other: expected those of"):
        np.savez(tmp_path / "c.npz", features=sets["a"], network="other")
        evaluate(tmp_path / "c.npz", b, tmp_path)
    with pytest.raises(InputError, match="metric 'fid' is of Inception's features"):
        evaluate(a, b, tmp_path, "fid")
    with pytest.raises(InputError, match="metric 'psnr' is of pairs of images, but .*a.npz holds"):
        evaluate(a, b, tmp_path, "psnr")


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


def truncated(path, keep):
    np.savez(path, arr_0=ORIGINALS)
    path.write_bytes(path.read_bytes()[:keep])


def damaged(path):
    np.savez(path, arr_0=ORIGINALS)
    data = bytearray(path.read_bytes())
    data[3000] ^= 255
    path.write_bytes(data)


def pickled(path):
    class Evil:
        def __reduce__(self):
            return (open, (f"{path}.executed", "w"))

    np.savez(path, arr_0=np.array([Evil(), None], dtype=object))


RANDOM = RNG.normal(size=(20, 4))
NAN = np.where(np.arange(80).reshape(20, 4) == 7, np.nan, RANDOM)
BAD = {
    "no arr_0": (lambda path: np.savez(path, images=ORIGINALS), "has no .*arr_0"),
    "floats": (
        lambda path: np.savez(path, arr_0=ORIGINALS / 255),
        r"arr_0 is float64 \(9, 16, 16, 3\), expected uint8 \[N, H, W, 3\]",
    ),
    "NCHW": (
        lambda path: np.savez(path, arr_0=ORIGINALS.transpose(0, 3, 1, 2)),
        r"arr_0 is uint8 \(9, 3, 16, 16\), expected uint8 \[N, H, W, 3\]",
    ),
    "empty": (lambda path: np.savez(path, arr_0=ORIGINALS[:0]), r"uint8 \(0, 16, 16, 3\)"),
    "pickled": (pickled, "pickled array, which could execute anything; refused"),
    "truncated": (lambda path: truncated(path, 5000), "is not an npz that is whole"),
    "empty file": (lambda path: path.write_bytes(b""), "is not an npz that is whole"),
    "damaged": (damaged, "is not an npz that is whole: Bad CRC-32"),
    "text": (lambda path: path.write_text("arr_0"), "is not an npz that is whole"),
    "labels": (
        lambda path: np.savez(path, arr_0=ORIGINALS, labels=[1, 2]),
        r"labels \(2,\) of 9 images",
    ),
    "NaN features": (
        lambda path: np.savez(path, features=NAN, network="net"),
        "1 of 20 rows of features are not finite",
    ),
    "features of no network": (
        lambda path: np.savez(path, features=RANDOM),
        "has `features` but no `network`",
    ),
    "features of one dimension": (
        lambda path: np.savez(path, features=RANDOM[0], network="net"),
        r"features is float64 \(4,\), expected floats \[N, D\]",
    ),
    "pickled features": (
        lambda path: np.savez(path, features=np.array([None, {}]), network="net"),
        "features is a pickled array, which could execute anything; refused",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_not_what_it_should_be_is_named(case, pair, tmp_path):
    make, message = BAD[case]
    path = tmp_path / "bad.npz"
    make(path)
    for sides in ((path, pair[1]), (pair[0], path)):
        with pytest.raises(InputError, match=f"bad.npz.*{message}"):
            evaluate(*sides, tmp_path, "frechet")
    assert not (tmp_path / "bad.npz.executed").exists()


def test_what_was_cut_short_goes_on(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", arr_0=DIGITS[:560])
    np.savez(tmp_path / "b.npz", arr_0=DIGITS[40:])
    expected = evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "whole")
    computed = []
    compute = feature_networks.features.pixel_features

    def cut(images):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(len(images))
        return compute(images)

    monkeypatch.setattr(feature_networks.features, "pixel_features", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path)
    assert computed == [256, 256]
    computed.append("again")
    measured = evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path)
    assert computed == [256, 256, "again", 48, 256, 256, 48]  # the reference, then the samples
    assert measured["metrics"] == expected["metrics"]
    assert measured["samples"]["pixels_sha256"] == expected["samples"]["pixels_sha256"]


def test_an_npz_is_never_held_whole(tmp_path):
    import tracemalloc

    images = np.zeros((2000, 64, 64, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(2000) % 256
    np.savez(tmp_path / "stored.npz", arr_0=images)
    np.savez_compressed(tmp_path / "packed.npz", arr_0=images)
    for name in ("stored", "packed"):
        tracemalloc.start()
        read = image_sets.Npz(str(tmp_path / f"{name}.npz"))
        for start in range(0, 2000, image_sets.BLOCK):
            piece = read.read(start, min(start + image_sets.BLOCK, 2000)).images
            assert (piece[:, 0, 0, 0] == images[start : start + image_sets.BLOCK, 0, 0, 0]).all()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < images.nbytes / 2, name


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(DIGITS[i]).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "images" / "a" / "3.png").write_bytes(b"no image")
    measured = evaluate(tmp_path / "images", tmp_path / "images", tmp_path, "accuracy", "pr")
    assert measured["samples"]["count"] == 11
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "b" / "5.png")
    with pytest.raises(InputError, match="5.png is 9 x 9 pixels, but the images of"):
        evaluate(tmp_path / "images", tmp_path / "images", tmp_path / "again")


def test_results_name_what_they_are_of(pair, tmp_path):
    measured = evaluate(*pair, tmp_path, "frechet")
    assert json.loads(json.dumps(measured)) == measured
    assert measured["samples"]["count"] == 9 and measured["reference"]["path"] == str(pair[1])
    assert measured["code"].startswith("0.1.0") and measured["protocol"]["name"] == "none"
    assert measured["reference"]["sha256"] != measured["samples"]["sha256"]
    with pytest.raises(InputError, match="protocol=fid50k: expected one of adm, torch-fidelity"):
        evaluate(*pair, tmp_path, protocol="fid50k")


def test_a_pickle_is_no_npz(pair, tmp_path):
    (tmp_path / "bad.npz").write_bytes(pickle.dumps(ORIGINALS))
    with pytest.raises(InputError, match="is not an npz that is whole"):
        evaluate(tmp_path / "bad.npz", pair[1], tmp_path)


def test_a_measured_folder_says_what_is_not_used_of_it(tmp_path, caplog):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "b.npy").write_bytes(b"")
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        image_sets.open_images(str(tmp_path))
    assert "not used: 1 (suffix .npy): b.npy" in caplog.text
