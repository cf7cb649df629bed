import json

import pytest

from maskgil_jax.data import captions
from maskgil_jax.data.records import Record, captions_of
from maskgil_jax.errors import Unreadable


def read(data, extension="txt"):
    """The captions of an image beside which a file of these bytes lies."""
    return captions_of(Record(b"", 0, "x.jpg", lambda: captions.parse(data, extension)))


def test_text_has_one_caption_a_line():
    assert read("a cat\r\n\n \tein Kätzchen \n".encode()) == ("a cat", "ein Kätzchen")
    assert read(b"\xef\xbb\xbfwith a byte order mark") == ("with a byte order mark",)


@pytest.mark.parametrize(
    "content, expected",
    [
        ({"caption": "a cat", "url": "u", "width": 3}, ("a cat",)),
        ({"captions": ["a", "", "b"]}, ("a", "b")),
        ({"text": "a", "caption": None}, ("a",)),
        ({"captions": ["two\nlines", 7]}, ("two\nlines",)),
    ],
)
def test_json_has_captions_in_fields(content, expected):
    assert read(json.dumps(content).encode(), "json") == expected


@pytest.mark.parametrize(
    "data, extension, message",
    [
        (b"", "txt", "no caption"),
        (b" \n\t\n", "txt", "no caption"),
        ("café".encode("latin-1"), "txt", "not UTF-8 at byte 3"),
        ("a cat".encode("utf-16"), "txt", "not UTF-8"),
        (b"a " * 10_000, "txt", "a caption of 19,999 characters, expected at most 10,000"),
        (b"a\n" * 600_000, "txt", "more than 1,048,576 bytes"),
        (b"{}", "json", "no caption"),
        (b"[1, 2]", "json", "no caption"),
        (b"", "json", "its JSON is broken"),
        (b'{"caption": "a ', "json", "its JSON is broken"),
        (b'{"caption": "caf\xe9"}', "json", "not UTF-8"),
        (b"[" * 100_000, "json", "its JSON is broken"),
    ],
)
def test_unusable_captions_are_unreadable_and_name_the_image(data, extension, message):
    with pytest.raises(Unreadable, match=f"^x.jpg: .*{message}"):
        read(data, extension)
