import json
import logging

import pytest

from maskgil_jax.data.sources import open_source
from maskgil_jax.runtime import unfinished
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.unfinished import Written


@pytest.fixture
def files(tmp_path):
    tmp_path = tmp_path / "files"
    tmp_path.mkdir()
    for name in ("a.png", "b.png", "mine.png"):
        (tmp_path / name).write_text(name)
    return tmp_path


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_is_unfinished_until_its_end(tmp_path):
    unfinished.check(tmp_path)
    assert not unfinished.begin(tmp_path / "new", Written({"a": 1}, ["x"]))
    with pytest.raises(InputError, match="new is unfinished .*run the same command again"):
        unfinished.check(tmp_path / "new")
    unfinished.end(tmp_path / "new")
    unfinished.check(tmp_path / "new")
    assert names(tmp_path / "new") == []


def test_the_same_settings_go_on_and_others_begin_anew(files, caplog):
    settings = {"seed": 1, "size": (2, 3), "scale": float("inf")}
    assert not unfinished.begin(files, Written(settings, ["a.png", "b.png"]))
    assert unfinished.begin(files, Written(settings, ["a.png", "b.png"]))
    assert names(files) == ["a.png", "b.png", "mine.png", unfinished.MARK]
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        assert not unfinished.begin(files, Written(settings | {"seed": 2}, ["a.png"]))
    assert names(files) == ["mine.png", unfinished.MARK]
    assert "holds 2 files of a run with other settings: they are removed" in caplog.text


def test_what_was_finished_counts_as_well(files):
    before = Written({"seed": 1}, ["a.png", "gone.png"])
    assert unfinished.begin(files, Written({"seed": 1}, ["a.png"]), before)
    unfinished.end(files)
    assert not unfinished.begin(files, Written({"seed": 2}, ["a.png"]), before)
    assert names(files) == ["b.png", "mine.png", unfinished.MARK]


def test_a_stop_while_it_is_cleared_does_not_make_old_files_new_ones(files, monkeypatch):
    unfinished.begin(files, Written({"seed": 1}, ["a.png", "b.png"]))

    def stopped(path, *args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(unfinished.epath.Path(files)), "unlink", stopped)
        with pytest.raises(KeyboardInterrupt):
            unfinished.begin(files, Written({"seed": 2}, ["a.png"]))
    assert not unfinished.begin(files, Written({"seed": 2}, ["a.png"]))
    assert names(files) == ["mine.png", unfinished.MARK]


def test_halves_of_files_that_a_kill_left_are_removed(files):
    for name in ("a.png.0123abcd.tmp", "mine.png.0123abcd.tmp", "a.png.tmp"):
        (files / name).write_text("")
    unfinished.begin(files, Written({"seed": 1}, ["a.png"]))
    assert "a.png.0123abcd.tmp" not in names(files)
    assert {"mine.png.0123abcd.tmp", "a.png.tmp", "a.png"} < set(names(files))


def test_what_cannot_go_on_begins_anew_even_where_the_same_lies_there(files):
    unfinished.begin(files, Written(None, ["a.png"]))
    assert not unfinished.begin(files, Written(None, ["a.png"]))
    assert names(files) == ["b.png", "mine.png", unfinished.MARK]


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not readable JSON"),
        ("[]", "holds a list"),
        ('{"settings": 3, "files": []}', "field 'settings'"),
        ('{"settings": null, "files": ["../a.png"]}', "field 'files' holds '../a.png'"),
        ('{"settings": null, "files": [3]}', "field 'files' holds 3"),
    ],
)
def test_a_damaged_mark_is_one_message_and_nothing_is_removed(content, message, files):
    (files / unfinished.MARK).write_text(content)
    with pytest.raises(InputError, match=message):
        unfinished.begin(files / ".", Written({"seed": 1}, ["a.png"]))
    assert names(files) == ["a.png", "b.png", "mine.png", unfinished.MARK]
    with pytest.raises(InputError, match="is unfinished"):
        unfinished.check(files)


def test_what_is_no_directory_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        unfinished.begin(tmp_path / "file", Written({}, []))


def test_a_folder_that_cannot_be_searched_is_left_to_its_reader(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError

    monkeypatch.setattr(type(unfinished.epath.Path(tmp_path)), "exists", denied)
    unfinished.check(tmp_path)


def test_an_unfinished_folder_is_no_source_of_images(files):
    (files / unfinished.MARK).write_text(json.dumps({"settings": None, "files": []}))
    for folder in (files, files.parent):  # as a whole, and as one of several classes
        with pytest.raises(InputError, match=f"{files} is unfinished"):
            open_source(f"folder:{folder}")
