"""Features that something else computed, and files that are not what they should be."""

import pickle

import numpy as np
import pytest

from maskgil_jax import metrics
from maskgil_jax.evaluation import image_sets
from maskgil_jax.runtime.errors import InputError
from tests.helpers.image_pairs import DIGITS, ORIGINALS, evaluate


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


RANDOM = np.random.default_rng(0).normal(size=(20, 4))
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


def test_a_pickle_is_no_npz(pair, tmp_path):
    (tmp_path / "bad.npz").write_bytes(pickle.dumps(ORIGINALS))
    with pytest.raises(InputError, match="is not an npz that is whole"):
        evaluate(tmp_path / "bad.npz", pair[1], tmp_path)
