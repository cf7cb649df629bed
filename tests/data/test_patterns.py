import pytest

from maskgil_jax.data import patterns
from maskgil_jax.errors import InputError


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
