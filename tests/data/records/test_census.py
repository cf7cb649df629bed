import json
import logging

import pytest

from maskgil_jax.data.records.census import Census, of_shards
from maskgil_jax.runtime.errors import InputError


def census():
    found = Census(7, ("a", "b", "c", "d"))
    found.captioned = 5
    for name in "1234":
        found.pass_over(f"{name}.npy", "suffix .npy", is_data=True)
    found.pass_over(".git", "hidden folder", is_data=False)
    return found


def test_a_summary_has_counts_and_the_first_names_of_each_kind(caplog):
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        census().announce("folder:x")
    assert caplog.messages == [
        "folder:x: 7 images of 4 classes (a, b, c, ...), 5 with captions\n"
        "  not used: 1 (hidden folder): .git\n"
        "  not used: 4 (suffix .npy): 1.npy, 2.npy, 3.npy, ..."
    ]


def test_nothing_may_be_missing_where_the_limit_is_zero():
    with pytest.raises(
        InputError, match="folder:x: 4 things .* limit = 0 .* 1.npy, 2.npy"
    ) as error:
        census().check_limit("folder:x", 0.0, "limit")
    assert ".git" not in str(error.value)
    census().check_limit("folder:x", 0.01, "limit")


def test_an_index_keeps_it():
    content = json.loads(json.dumps(census().to_json()))
    read = Census.from_json(content, ("a", "b", "c", "d"), "index.json: census")
    assert read.summary() == census().summary() and read.missed() == 4


def test_codes_tell_what_was_left_out_when_they_were_made():
    counts = {"census": census().to_json(), "examples": 5, "unreadable": 2, "complete": True}
    found = of_shards({**counts, "unreadable_images": ["x.png: broken", "y.png: cut"]}, "abcd", "i")
    assert found.images == 5 and found.missed() == 6
    assert "x.png: broken, y.png: cut" in "\n".join(found.summary())
    assert of_shards({"examples": 5, "complete": True}, ("a",), "i").summary() == [
        "5 images of 1 class (a)"
    ]


@pytest.mark.parametrize(
    "damage, message",
    [
        ({"census": 3}, "index.json: census holds an integer, expected an object"),
        ({"census": {"images": "7"}}, "census: field 'images' is a text, expected an integer"),
        (
            {"census": {"images": 7, "captioned": None, "not_used": {"x": {"count": 1}}}},
            "not_used: x has no field 'is_data'",
        ),
        ({"examples": None}, "field 'examples' is null"),
        ({"unreadable": "2"}, "field 'unreadable' is a text"),
        ({"unreadable": 2, "unreadable_images": 5}, "field 'unreadable_images' is an integer"),
    ],
)
def test_a_damaged_index_is_named(damage, message):
    with pytest.raises(InputError, match=message):
        of_shards({"examples": 5, **damage}, ("a",), "index.json")
