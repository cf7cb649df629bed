"""What evaluation is given, as others leave it: read right, or refused by name before it counts."""

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data import sources
from maskgil_jax.evaluation import evaluation, image_sets, stored_features
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(12, 16, 16, 3), dtype=np.uint8)
NAMES = np.array(["ant", "bee", "cat"])
LABELS = np.arange(12) % 3


def evaluate(samples, reference, tmp_path, *names, **settings):
    return evaluation.evaluate(
        str(samples), str(reference), Settings(names, **settings), tmp_path / "work"
    )


def images_file(path, **arrays):
    np.savez(path, **dict(arr_0=IMAGES, labels=LABELS, class_names=NAMES) | arrays)
    return path


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(labels=LABELS + 1), "label 3 of image 2, expected whole numbers, 0 to 2 .3 class_na"),
        (dict(labels=np.where(LABELS == 1, -1, LABELS)), "label -1 of image 1, expected .* 0 to 2"),
        (dict(labels=np.where(LABELS == 2, 255, LABELS).astype(np.uint8)), "label 255 of image 2"),
        (dict(labels=LABELS + 0.5), "label 0.5 of image 0, .*; 12 of 12 are not"),
        (dict(labels=np.where(LABELS == 1, np.nan, LABELS)), "label nan of image 1"),
        (dict(labels=LABELS == 1), "labels are bool, expected whole numbers, 0 to 2"),
        (dict(labels=NAMES[LABELS]), "labels are <U3, expected whole numbers, 0 to 2"),
        (dict(labels=LABELS + 0j), "labels are complex128, expected whole numbers"),
        (dict(labels=LABELS[:7]), r"labels \(7,\) of 12 images"),
        (dict(labels=LABELS[:, None]), r"labels \(12, 1\) of 12 images"),
        (dict(class_names=np.array(["ant", "bee", "ant"])), "class_names holds 'ant' twice"),
        (dict(class_names=np.arange(3)), r"class_names is int64 \(3,\), expected texts"),
        (dict(class_names=NAMES[None]), r"class_names is <U3 \(1, 3\), expected texts"),
        (dict(class_names=NAMES.astype(object)), "class_names is a pickled array"),
        (dict(class_names=np.array([b"\xff", b"a", b"b"])), "class_names holds bytes that are not"),
        (dict(codes=np.zeros((12, 2, 2), int)), "has no codebook_size"),
        (
            dict(codes=np.full((12, 2, 2), 64), codebook_size=64),
            "codes from 64 to 64, expected 0 t",
        ),
        (dict(codes=np.zeros((12, 2)), codebook_size=64), r"codes is float64 \(12, 2\)"),
        (dict(codes=np.zeros((12, 2, 2), int), codebook_size=[1, 2]), "codebook_size is int64"),
        (dict(protocol=np.arange(3)), "protocol is int64"),
        (dict(names=NAMES), r"names is <U3 \(3,\), expected texts \[12\]"),
        (dict(arr_0=IMAGES.astype(np.float32)), "arr_0 is float32"),
        (dict(arr_0=IMAGES > 9), "arr_0 is bool"),
        (dict(arr_0=IMAGES[0]), r"arr_0 is uint8 \(16, 16, 3\), expected"),
        (dict(arr_0=np.asfortranarray(IMAGES)), "arr_0 is stored by column"),
    ],
)
def test_what_a_file_says_of_its_images_is_checked(arrays, message, tmp_path):
    good, bad = images_file(tmp_path / "good.npz"), images_file(tmp_path / "bad.npz", **arrays)
    for sides in ((bad, good), (good, bad)):
        with pytest.raises(InputError, match=f"bad.npz.* ?{message}"):
            evaluate(*sides, tmp_path, "frechet", "accuracy")


@pytest.mark.parametrize(
    "arrays",
    [
        dict(labels=LABELS.astype(np.float32)),
        dict(labels=LABELS.astype(">u2")),
        dict(class_names=NAMES.astype("S")),
        dict(labels=NAMES[LABELS]),
    ],
)
def test_labels_are_read_however_they_are_written(arrays, tmp_path):
    if arrays.get("labels", LABELS).dtype.kind == "U":  # texts are the names themselves
        np.savez(tmp_path / "x.npz", arr_0=IMAGES, **arrays)
    else:
        images_file(tmp_path / "x.npz", **arrays)
    assert image_sets.Npz(str(tmp_path / "x.npz")).labels.tolist() == NAMES[LABELS].tolist()


FEATURES = RNG.standard_normal((40, 4)).astype(np.float32)
TILTED = np.eye(4) + np.triu(np.ones((4, 4)), 1) * 0.1


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(sigma=-np.eye(4)), "sigma: the covariance has eigenvalues from -1 to -1"),
        (dict(sigma=np.diag([1, 1, 1, -0.5])), "sigma: the covariance has eigenvalues from -0.5"),
        (dict(sigma=np.eye(4) + 0j), "sigma is complex128, expected real numbers"),
        (dict(sigma=np.eye(4) > 0), "sigma is bool, expected real numbers"),
        (dict(sigma=np.full((4, 4), "x")), "sigma is <U1, expected real numbers"),
        (dict(sigma=TILTED), "sigma is not symmetric"),
        (dict(sigma=np.eye(4) * np.nan), "sigma has 16 of 16 values that are not finite"),
        (dict(sigma=np.eye(3)), r"mu is \(4,\) and sigma is \(3, 3\), expected"),
        (dict(sigma=np.ones(4)), r"mu is \(4,\) and sigma is \(4,\), expected"),
        (dict(mu=np.zeros((4, 1))), r"mu is \(4, 1\) and sigma is \(4, 4\), expected"),
        (dict(mu=np.float64(0), sigma=np.float64(1)), r"mu is \(\) and sigma is \(\), expected"),
        (dict(mu=np.zeros(4) + 0j), "mu is complex128, expected real numbers"),
        (dict(mu=np.full(4, np.inf)), "mu has 4 of 4 values that are not finite"),
        (dict(count=-40), "count = -40, expected a whole number, 2 or more"),
        (dict(count=1), "count = 1, expected a whole number, 2 or more"),
        (dict(count=40.5), "count = 40.5, expected a whole number"),
        (dict(count=np.nan), "count = nan, expected a whole number"),
        (dict(count="many"), "count is <U4"),
        (dict(count=[40, 40]), r"count is int64 \(2,\)"),
        (dict(network=7), "network is int64"),
        (dict(about="{"), "about is not readable JSON"),
        (dict(about="[]"), "about holds a list, expected an object"),
        (dict(about='{"features": [1]}'), "about: field 'features' is no list of texts"),
    ],
)
def test_statistics_that_are_none_are_refused_on_both_sides(arrays, message, tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, features=FEATURES, network="net")
    np.savez(bad, **dict(mu=np.zeros(4), sigma=np.eye(4), network="net", count=40) | arrays)
    for sides in ((bad, good), (good, bad)):
        with pytest.raises(InputError, match=f"bad.npz.*{message}"):
            evaluate(*sides, tmp_path, "frechet")
    with pytest.raises(InputError, match=f"bad.npz.*{message}"):
        evaluation.check(
            str(bad), Settings(("frechet",), network="tests.helpers.efficientnet:none")
        )


def test_half_of_statistics_and_features_of_another_count_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.zeros(4), network="net")
    with pytest.raises(InputError, match="x.npz holds mu but no sigma"):
        stored_features.read_features(str(tmp_path / "x.npz"))
    np.savez(tmp_path / "x.npz", features=FEATURES, network="net", count=50)
    with pytest.raises(InputError, match="x.npz: count = 50, but there are 40 rows"):
        stored_features.read_features(str(tmp_path / "x.npz"))
    np.savez(tmp_path / "x.npz", features=FEATURES + 0j, network="net")
    with pytest.raises(InputError, match="x.npz: features is complex64"):
        stored_features.read_features(str(tmp_path / "x.npz"))


def test_statistics_without_what_a_metric_needs_are_refused(tmp_path):
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", mu=np.zeros(4), sigma=np.eye(4), count=40)
    with pytest.raises(InputError, match="a.npz has no features 'spatial', it holds statistics of"):
        evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path, "sfid")


def folder(path, names, first=0):
    """A folder of images that differ, by these names."""
    for i, name in enumerate(names, first):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i % len(IMAGES)]).save(path / name)
    return path


@pytest.mark.parametrize("metric", ["frechet", "pr", "kid"])
def test_one_image_is_refused_with_the_set_and_what_is_needed(metric, tmp_path):
    one, many = (
        folder(tmp_path / "one", ["0.png"]),
        folder(tmp_path / "many", map("{}.png".format, range(9))),
    )
    np.savez(tmp_path / "one.npz", arr_0=IMAGES[:1])
    message = {
        "frechet": "holds 1 image that can be read, and a covariance needs 2 or more",
        "pr": r"\(1 images\).*: features of shapes",
        "kid": r"\(1 images\).*at least 2",
    }[metric]
    for path in (one, tmp_path / "one.npz"):
        for sides in ((path, many), (many, path)):
            with pytest.raises(InputError, match=f"{path}.*{message}"):
                evaluate(*sides, tmp_path, metric)
        if metric == "frechet":
            with pytest.raises(InputError, match="holds 1 image, and a covariance needs 2"):
                evaluation.check(str(path), Settings((metric,)))


def test_a_set_of_which_one_image_can_be_read_is_of_one_image(tmp_path):
    some = folder(tmp_path / "some", ["0.png", "1.png"])
    (some / "1.png").write_bytes(b"")
    many = folder(tmp_path / "many", map("{}.png".format, range(9)))
    with pytest.raises(InputError, match="some holds 1 image that can be read, and a covariance"):
        evaluate(some, many, tmp_path, "frechet")


def test_a_set_of_which_no_image_can_be_read_is_refused_with_the_reasons(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "0.png").write_bytes(b"<html>404</html>")
    (tmp_path / "none" / "1.png").write_bytes(b"")
    many = folder(tmp_path / "many", map("{}.png".format, range(9)))
    for sides in ((tmp_path / "none", many), (many, tmp_path / "none")):
        for _ in range(2):  # what was looked at before says the same
            with pytest.raises(InputError, match="0 of 2 images of .*none can be read:\n.*0.png: "):
                evaluate(*sides, tmp_path, "frechet")
    source = sources.open_source(f"folder:{tmp_path}/none")
    with pytest.raises(InputError, match="0 of 2 images of SET can be read:\n.*0.png: .*\n.*1.png"):
        sources.center_crops(source, 8, 2, name="SET")


def test_images_left_out_are_counted_in_the_result(tmp_path):
    some = folder(tmp_path / "some", map("{}.png".format, range(9)))
    (some / "3.png").write_bytes(b"")
    measured = evaluate(
        some, folder(tmp_path / "many", map("{}.png".format, range(9))), tmp_path, "pr"
    )
    assert (measured["samples"]["count"], measured["samples"]["unreadable"]) == (8, 1)
    assert measured["samples"]["unreadable_by_kind"] == "1 x an empty file"
    assert measured["reference"]["count"] == 9 and "unreadable" not in measured["reference"]


COUNTED = [f"{i}.png" for i in range(12)]


@pytest.mark.parametrize(
    "samples, reference, message",
    [
        (COUNTED, [f"{i:02}.png" for i in range(12)], "image 0 of .*a is '0', and of .*b '00'"),
        (COUNTED, [f"x{i}.png" for i in range(12)], "'0', and of .*b 'x0'"),
        (["cat/0.png", "dog/1.png"], ["cat/0.png", "pig/1.png"], "image 1 .*'dog/1'.*'pig/1'"),
        (["cat/0.png", "cat/1.png"], ["0.png", "1.png"], "'cat/0'.*'0'"),
        (["0.png", "0.jpg"], ["0.png", "0.webp"], "a has several images '0'"),
    ],
)
def test_pairs_of_other_names_are_refused(samples, reference, message, tmp_path):
    folder(tmp_path / "a", samples), folder(tmp_path / "b", reference)
    with pytest.raises(InputError, match=message):
        evaluate(tmp_path / "a", tmp_path / "b", tmp_path, "psnr")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("reference", [COUNTED, [f"{i}.webp" for i in range(12)]])
def test_pairs_are_told_by_their_names_without_suffix(reference, tmp_path):
    folder(tmp_path / "a", COUNTED), folder(tmp_path / "b", reference)
    measured = evaluate(tmp_path / "a", f"folder:{tmp_path}/b/", tmp_path, "psnr")
    assert measured["paired"] == "by name"
    if reference == COUNTED:
        assert measured["metrics"]["psnr"] > 60


def test_files_without_names_are_paired_by_position_and_say_so(tmp_path):
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", arr_0=IMAGES)
    measured = evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path, "psnr")
    assert measured["paired"] == "by position" and measured["metrics"]["psnr"] > 60
    assert "paired" not in evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path, "pr")


def test_a_file_without_names_is_no_pair_of_a_folder(tmp_path):
    folder(tmp_path / "a", COUNTED)
    np.savez(tmp_path / "b.npz", arr_0=IMAGES)
    for sides in ((tmp_path / "a", tmp_path / "b.npz"), (tmp_path / "b.npz", tmp_path / "a")):
        with pytest.raises(InputError, match="b.npz does not say which image of .*a each of its"):
            evaluate(*sides, tmp_path, "psnr")
    order = sorted(range(12), key=str)  # of a folder: 0, 1, 10, 11, 2 ...
    np.savez(tmp_path / "b.npz", arr_0=IMAGES[order], names=np.array([str(i) for i in order]))
    measured = evaluate(tmp_path / "a", tmp_path / "b.npz", tmp_path, "psnr")
    assert measured["paired"] == "by name" and measured["metrics"]["psnr"] > 60
