import os

import numpy as np
import pytest

from maskgil_jax.conditioning import base
from maskgil_jax.data import pipeline, sources
from maskgil_jax.data.companions import features
from maskgil_jax.runtime.errors import InputError, Unreadable

RNG = np.random.default_rng(0)


def write(path, shape, dtype=np.float16):
    values = RNG.standard_normal(shape).astype(dtype)
    np.save(path, values)
    return values


def test_padding_comes_first_and_is_masked(tmp_path):
    values = write(tmp_path / "a.npy", (2, 3))
    found = features.read_file(tmp_path / "a.npy", tokens=5, width=3)
    assert found.features.dtype == np.float32 and found.mask.tolist() == [False] * 3 + [True] * 2
    np.testing.assert_array_equal(found.features[3:], values.astype(np.float32))
    assert not found.features[:3].any()


def test_what_is_too_long_loses_its_end(tmp_path):
    values = write(tmp_path / "a.npy", (1, 9, 3), np.float32)  # as LlamaGen keeps them
    found = features.read_file(tmp_path / "a.npy", tokens=5, width=3)
    np.testing.assert_array_equal(found.features, values[0, :5])
    assert found.mask.all()


BAD = {
    "width": (np.zeros((2, 4), np.float32), r"a.npy are 4 wide, expected 3"),
    "axes": (np.zeros((2, 2, 3), np.float32), r"are float32 \(2, 2, 3\), expected floats \[T, 3\]"),
    "dtype": (np.zeros((2, 3), int), r"are int64 \(2, 3\)"),
    "empty": (np.zeros((0, 3), np.float32), r"are float32 \(0, 3\)"),
    "nan": (np.full((2, 3), np.nan, np.float32), "not finite"),
    "pickle": (np.array([[{}]], object), "pickled array"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_are_named(case, tmp_path):
    content, message = BAD[case]
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(Unreadable, match=message):
        features.read_file(tmp_path / "a.npy", tokens=5, width=3)


@pytest.mark.parametrize("content", [b"", b"not numpy", None])
def test_broken_and_missing_files_are_named(content, tmp_path):
    if content is not None:
        (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(Unreadable, match="a.npy"):
        features.read_file(tmp_path / "a.npy", tokens=5, width=3)


def npy(shape, body=bytes(24), descr="'<f4'"):
    """A file in NumPy's format with a header of these words."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head.encode() + body


LYING = {
    "29 TiB": npy("(4000000000, 2000)"),
    "more than there is": npy("(4, 3)"),
    "negative": npy("(-1, 3)"),
    "beyond 64 bits": npy("(99999999999999999999, 3)"),
    "an open bracket": npy("(2, "),
    "many brackets": npy("(" * 60),
    "an expression": npy("(10**9**9, 3)"),
    "an unknown dtype": npy("(2, 3)", descr="'<f9'"),
    "fields": npy("(2, 3)", descr="[('a', '<f4')]"),
    "objects": npy("(2, 3)", descr="'|O'"),
    "cut in the header": npy("(2, 3)")[:40],
    "cut in the values": npy("(2, 3)")[:-1],
    "of a version that there is not": b"\x93NUMPY\x09\0" + npy("(2, 3)")[8:],
}


@pytest.mark.parametrize("name", LYING)
def test_headers_that_lie_are_left_out_at_once(name, tmp_path):
    (tmp_path / "a.npy").write_bytes(LYING[name])
    with pytest.raises(Unreadable, match="a.npy"):
        features.read_file(tmp_path / "a.npy", tokens=5, width=3)
    (tmp_path / "good.npy").write_bytes(npy("(2, 3)"))
    assert features.read_file(tmp_path / "good.npy", tokens=5, width=3).mask.sum() == 2


def test_what_has_no_end_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    (tmp_path / "b.npy").symlink_to("/dev/zero")
    (tmp_path / "c.npy").mkdir()
    for name in "abc":
        with pytest.raises(Unreadable, match=f"{name}.npy"):
            features.read_file(tmp_path / f"{name}.npy", tokens=5, width=3)


def test_an_example_has_the_features_of_its_image_or_is_passed_over(tmp_path):
    source = sources.open_source("embedded")
    values = {i: write(tmp_path / f"{source[i].id}.npy", (4, 3)) for i in (0, 1, 3)}
    files = features.FeatureFiles(str(tmp_path), tokens=4, width=3)
    load = pipeline.image_loader(
        source,
        np.zeros(len(source), int),
        sizes=[(8, 8)],
        crop="center",
        flip=False,
        condition=base.FileReader(files),
    )
    for index, used in ((0, 0), (1, 1), (2, 3), (3, 3)):
        example = load(index, np.random.default_rng(0))
        np.testing.assert_array_equal(example["features"], values[used].astype(np.float32))
        assert example["unreadable"] == (index if index != used else -1)
    with pytest.raises(InputError, match="100 images in a row cannot be read, .*digit 4.npy"):
        load(4, np.random.default_rng(0))


def test_folders_and_endings_of_an_image_do_not_count(tmp_path):
    values = write(tmp_path / "b.v2.npy", (4, 3), np.float32)
    files = features.FeatureFiles(str(tmp_path), tokens=4, width=3)
    np.testing.assert_array_equal(files["/photos/x/b.v2.jpg"].features, values)
