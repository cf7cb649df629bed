"""Files that are whole or absent, and JSON that other programs read too."""

import json
import math

import numpy as np
import pytest

from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError


def _refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_numbers_that_json_does_not_have_are_kept_as_texts(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": [math.nan, math.inf, -math.inf, 1.5], "b": {"c": (math.nan,)}})
    content = json.loads(path.read_text(), parse_constant=_refuse)
    assert math.isnan(float(content["a"][0])) and math.isnan(float(content["b"]["c"][0]))
    assert [float(x) for x in content["a"][1:]] == [math.inf, -math.inf, 1.5]


def test_a_file_stays_as_it_was_where_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(files.epath.Path(path)), "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is not readable JSON"),
        (b"\xff\xfe{}", "is not readable JSON"),
        (b'{"step": ', "is not readable JSON"),
        (b"[" * 100_000, "is not readable JSON"),
        (b"[1]", "holds a list, expected an object"),
        (b"{}", "has no field 'step', expected an integer"),
        (b'{"step": "3", "name": "x"}', "field 'step' is a text, expected an integer"),
        (b'{"step": true, "name": "x"}', "field 'step' is true or false, expected an integer"),
        (b'{"step": 3, "name": null}', "field 'name' is null, expected a text or a list"),
    ],
)
def test_damaged_json_is_named_with_its_field(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        files.read_json(path, {"step": int, "name": (str, list)})
    assert str(path) in str(error.value)


def test_an_integer_is_a_number(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"x": 3}')
    assert files.read_json(path, {"x": float}) == {"x": 3}


def test_an_npz_written_in_pieces_has_the_bytes_of_numpys(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(7, 3, 2), dtype=np.uint8)
    others = dict(labels=np.arange(7), names=np.array(["a", "é"]), settings=np.array("{}"), n=3)
    np.savez(tmp_path / "numpy.npz", arr_0=images, **others)
    pieces = files.InPieces(images.shape, np.uint8, iter([images[:5, :], images[5:]]))
    files.write_npz(tmp_path / "ours.npz", arr_0=pieces, **others)
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


def test_nothing_half_written_is_left_where_a_file_cannot_be_written(tmp_path, monkeypatch):
    def full(*arguments, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space"):
        files.write_npz(tmp_path / "x.npz", a=[1])
    assert not list(tmp_path.iterdir())
