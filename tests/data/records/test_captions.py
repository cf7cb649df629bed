import json

import pytest

from maskgil_jax.data.records import captions
from maskgil_jax.data.records.image_records import Record, captions_of
from maskgil_jax.runtime.errors import Unreadable


def read(data, extension="txt"):
    """The captions of an image beside which a file of these bytes lies."""
    return captions_of(Record(b"", 0, "x.jpg", lambda: captions.parse(data, extension)))


def test_text_has_one_caption_a_line():
    assert read("a cat\r\n\n \tein Kätzchen \n".encode()) == ("a cat", "ein Kätzchen")
    assert read(b"\xef\xbb\xbfwith a byte order mark") == ("with a byte order mark",)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_at_what_ends_lines_of_files(end):
    assert read(f"one{end}{end}two{end}".encode()) == ("one", "two")


@pytest.mark.parametrize("inside", "\u0085 \u2028 \u2029 \x0b \x0c \x1c \x1d \x1e".split(" "))
def test_a_line_does_not_end_at_other_separators(inside):
    assert read(f"He waited{inside}then left".encode()) == (f"He waited{inside}then left",)


INVISIBLE = "\u200b \ufeff \u2060 \xad \u3164 \u115f \u2800 \ufe0f \u180e \u200e \U000e0041 \0 \x1b"


@pytest.mark.parametrize("text", [*INVISIBLE.split(" "), "\u200b\u200d \xa0\u3000\ufe0f"])
def test_what_nobody_sees_is_no_caption(text):
    for data, kind in ((text.encode(), "txt"), (json.dumps({"caption": text}).encode(), "json")):
        with pytest.raises(Unreadable, match="x.jpg: it has no caption"):
            read(data, kind)
        assert read(f"{text}\na cat".encode()) == ("a cat",)


@pytest.mark.parametrize("text", ["\u200d🏳️\u200d🌈", "नमस्\u200dते", ".", "ㅤa"])
def test_captions_with_something_to_see_are_kept_as_they_are(text):
    assert read(text.encode()) == (text,)


@pytest.mark.parametrize(
    "files, expected",
    [
        ([("txt", b""), ("json", b'{"caption": "a cat"}')], ("a cat",)),
        ([("txt", b"\xef\xbb\xbf \n"), ("json", b'{"caption": "a cat"}')], ("a cat",)),
        ([("txt", "\u200b".encode()), ("json", b'{"caption": "a cat"}')], ("a cat",)),
        ([("txt", b"a dog"), ("json", b"broken")], ("a dog",)),
        ([("txt", b""), ("json", b"{}")], ()),
        ([], ()),
    ],
)
def test_the_first_file_that_has_a_caption_counts(files, expected):
    assert captions.first(files) == expected


@pytest.mark.parametrize(
    "content, expected",
    [
        ({"caption": "a cat", "url": "u", "width": 3}, ("a cat",)),
        ({"captions": ["a", "", "b"]}, ("a", "b")),
        ({"text": "a", "caption": None}, ("a",)),
        ({"captions": ["two\nlines", None]}, ("two\nlines",)),
        ({"caption": "\ud83d\ude00"}, ("😀",)),  # both halves of one character
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
        (
            b'{"caption": "so cute \\ud83d"}',
            "json",
            r"a caption with U\+D83D, which is half a char",
        ),
        (b'{"caption": ["a", "\\udc00 b"]}', "json", r"a caption with U\+DC00"),
        (b'{"text": "a\\u0000b"}', "json", "a caption with a NUL character"),
        ("a cat".encode("utf-16-le"), "txt", "a caption with a NUL character"),
        (b'{"captions": ["a", 7]}', "json", "its JSON field 'captions' holds a int, expected a t"),
        (b'{"caption": {"en": "a"}}', "json", "its JSON field 'caption' holds a dict"),
        (b'{"captions": [["a"]]}', "json", "its JSON field 'captions' holds a list"),
        (b'{"caption": NaN}', "json", "its JSON field 'caption' holds a float"),
        (b'{"caption": "a", "caption": "b"}', "json", "field 'caption' comes twice"),
        (b'{"width": ' + b"9" * 5000 + b"}", "json", "its JSON is broken"),
    ],
)
def test_unusable_captions_are_unreadable_and_name_the_image(data, extension, message):
    with pytest.raises(Unreadable, match=f"^x.jpg: .*{message}"):
        read(data, extension)
