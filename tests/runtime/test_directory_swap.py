"""A directory that replaces another: killed at any moment, one of them can be read."""

import errno
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from maskgil_jax.pretrained import model_directory
from maskgil_jax.runtime import directory_swap, leftovers, paths
from maskgil_jax.runtime.errors import InputError


class Killed(BaseException):
    """The process ends here."""


def whole(path):
    return (path / "marker").exists() and {p.read_text() for p in path.iterdir()} in (
        {"old"},
        {"new"},
    )


def fill(path, text):
    path.mkdir()
    for name in ("a", "b", "marker"):
        (path / name).write_text(text)


def kill_at(monkeypatch, number):
    """Killed before the operation of this number, or in the midst of it where it has parts."""
    count = itertools.count()
    path_class = type(epath.Path())

    def watched(owner, name, halfway=None):
        original = getattr(owner, name)

        def run(*arguments, **options):
            if next(count) == number:
                raise Killed
            if halfway and next(count) == number:
                halfway(*arguments)
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, run)

    watched(path_class, "rename")
    watched(path_class, "rmtree", lambda path: next(iter(sorted(path.iterdir()))).unlink())
    watched(path_class, "unlink")
    watched(directory_swap, "_copy")


MEANS = ["exchange", "rename", "bucket"]


def prepare(means, monkeypatch):
    if means == "rename":
        monkeypatch.setattr(directory_swap, "exchange", lambda one, other: False)
    if means == "bucket":  # where a directory is its files
        monkeypatch.setattr(paths, "is_remote", lambda path: True)

        def copy(source, target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

        monkeypatch.setattr(directory_swap, "_copy", copy)


@pytest.mark.parametrize("means", MEANS)
def test_killed_anywhere_a_whole_directory_is_found_and_the_next_start_puts_it_back(
    means, monkeypatch, tmp_path
):
    prepare(means, monkeypatch)
    for number in range(100):
        place = epath.Path(tmp_path) / str(number)
        place.mkdir()
        directory = place / "model"
        fresh = directory_swap.beside(directory, "0123456789abcdef")
        fill(directory, "old")
        fill(fresh, "new")
        monkeypatch.setattr(leftovers, "MARKER", "marker")
        with monkeypatch.context() as patched:
            kill_at(patched, number)
            try:
                directory_swap.replace(fresh, directory, "marker")
                done = True
            except Killed:
                done = False
        if means == "exchange":
            assert whole(directory)
        found = (
            directory if whole(directory) else directory_swap.replacement_of(directory, "marker")
        )
        assert found is not None and whole(found), number
        leftovers.clear(place)
        assert whole(directory) and [path.name for path in place.iterdir()] == ["model"], number
        if done:
            assert (directory / "a").read_text() == "new"
            break
    assert number >= 2


@pytest.mark.parametrize("means", MEANS)
def test_a_model_is_replaced_and_nothing_is_left(means, monkeypatch, tmp_path):
    prepare(means, monkeypatch)
    like = {"a": jax.ShapeDtypeStruct((3,), jnp.float32)}
    for value in (1.0, 2.0):
        about = {"class": "X", "arguments": {"value": value}}
        model_directory.save_model(
            tmp_path / "model", about, {"a": jnp.full(3, value)}, {"f": b"1"}
        )
        found = model_directory.load_params(tmp_path / "model", like)
        np.testing.assert_array_equal(found["a"], value)
        assert model_directory.read_description(tmp_path / "model")["arguments"] == {"value": value}
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_reader_is_told_of_an_interrupted_replacement(tmp_path):
    fresh = directory_swap.beside(epath.Path(tmp_path / "model"), "0123456789abcdef")
    fresh.mkdir()
    (fresh / "model.json").write_text("{}")
    with pytest.raises(InputError, match=f"Its replacement was interrupted: {fresh} is whole"):
        model_directory.read_description(tmp_path / "model")


def test_this_file_system_exchanges_names(tmp_path):
    one, other = epath.Path(tmp_path / "one"), epath.Path(tmp_path / "other")
    one.mkdir()
    other.write_text("2")
    if not directory_swap.exchange(one, other):
        pytest.skip("not on this file system")
    assert one.read_text() == "2" and other.is_dir()
    with pytest.raises(OSError) as error:
        directory_swap.exchange(one, epath.Path(tmp_path / "gone"))
    assert error.value.errno == errno.ENOENT
