import pytest

from maskgil_jax.data.formats import patterns
from maskgil_jax.runtime.errors import InputError


def names(folder, pattern):
    return [path.removeprefix(f"{folder}/") for path in patterns.files(f"{folder}/{pattern}")]


@pytest.fixture
def folder(tmp_path):
    for name in ("a-09.tar", "a-10.tar", "a-11.tar", "b-9.tar", "b-10.tar", "odd [1].tar"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a-12.tar").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("a-10.tar", ["a-10.tar"]),
        ("a-{09..11}.tar", ["a-09.tar", "a-10.tar", "a-11.tar"]),
        ("b-{9..10}.tar", ["b-9.tar", "b-10.tar"]),
        ("a-*.tar", ["a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{b,a}-10.tar", ["b-10.tar", "a-10.tar"]),
        ("a-{11..10}.tar", ["a-11.tar", "a-10.tar"]),
        ("{a-1{0,1},b-10}.tar", ["a-10.tar", "b-10.tar", "a-11.tar"]),
        ("a-{10,1?}.tar", ["a-10.tar", "a-11.tar"]),
        ("odd [1].tar", ["odd [1].tar"]),
    ],
)
def test_patterns_name_files_in_order_and_once(folder, pattern, expected):
    assert names(folder, pattern) == expected


@pytest.mark.parametrize("pattern", ["a-{08..10}.tar", "c-*.tar", "a-12.tar", ""])
def test_a_part_without_a_file_is_named(folder, pattern):
    with pytest.raises(InputError, match="there is no file"):
        names(folder, pattern)


@pytest.mark.parametrize(
    "pattern, missing",
    [
        ("a-{10..99999999}.tar", "a-12.tar"),
        ("a-{0..99999999}.tar", "a-0.tar"),
        ("a-1{0..9}{0..99999999}{0..999999999999}.tar", "a-1000.tar"),
        ("*{0..99999999}*{0..99999999}.xyz", r"\*0\*0.xyz"),
        ("{0.." + "9" * 5000 + "}", "0"),
    ],
)
def test_a_huge_range_ends_at_the_first_missing_file(folder, pattern, missing):
    with pytest.raises(InputError, match=f"there is no file {folder}/{missing}"):
        names(folder, pattern)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("a-10.tar" + "{,}" * 12, "stands for more than 1,000 names"),
        ("a-10.tar" + "{,}" * 3000, "more than 20 braces"),
    ],
)
def test_patterns_that_name_one_file_over_and_over_end(folder, monkeypatch, pattern, message):
    monkeypatch.setattr(patterns, "MOST_NAMES", 1000)
    with pytest.raises(InputError, match=message):
        names(folder, pattern)


def test_a_range_from_0_is_padded_only_if_it_says_so(tmp_path):
    for number in [*range(11), "00"]:
        (tmp_path / f"{number}.tar").write_bytes(b"")
    assert names(tmp_path, "{0..10}.tar") == [f"{number}.tar" for number in range(11)]
    assert names(tmp_path, "{00..00}.tar") == ["00.tar"]
