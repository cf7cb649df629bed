"""Files of prompts, a prompt a line."""

import logging

import pytest

from maskgil_jax.generation import requests
from maskgil_jax.runtime.errors import InputError


def read(folder, data):
    (folder / "prompts.txt").write_bytes(data)
    return requests.read_prompts(str(folder / "prompts.txt"))


@pytest.mark.parametrize(
    "data, prompts",
    [
        (b"a red apple\npage\x0cbreak\n\nlast\n", ["a red apple", "page\x0cbreak", "last"]),
        ("one\u0085more\r\ntwo\u2028more".encode(), ["one\u0085more", "two\u2028more"]),
        (b"one\rtwo\x1cmore\r\r", ["one", "two\x1cmore"]),
        ("\ufeffone\n\u200b\n two \n".encode(), ["one", "two"]),
    ],
)
def test_each_line_is_a_prompt(tmp_path, data, prompts):
    assert read(tmp_path, data) == prompts


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "no line of it is a prompt"),
        (b" \n\n", "no line of it is a prompt"),
        ("one\ntwo\n".encode("utf-16"), "not UTF-8 at byte 0"),
        ("one\ntwo\n".encode("utf-16-le"), "line 1: .* NUL"),
        ("one\nCafé\n".encode("latin-1"), "not UTF-8 at byte 7"),
        (b"one\n\n" + b"a" * 10_001 + b"\n", "line 3: a caption of 10,001 characters"),
        (b"one\n\xed\xa0\xbd\n", "not UTF-8 at byte 4"),  # half of a surrogate pair
    ],
)
def test_messages_name_the_file_and_the_line(tmp_path, data, message):
    with pytest.raises(InputError, match=f"prompts=.*prompts.txt: {message}"):
        read(tmp_path, data)


def test_lines_of_json_are_no_prompts(tmp_path):
    (tmp_path / "evaluation_metadata.jsonl").write_text('{"prompt": "a bench"}\n')
    with pytest.raises(InputError, match="lines of JSON go with layout=geneval"):
        requests.read_prompts(str(tmp_path / "evaluation_metadata.jsonl"))


def test_the_log_says_on_which_lines_prompts_are_where_these_are_not_their_numbers(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO, "maskgil_jax")
    read(tmp_path, b"one\ntwo\n\n")
    assert not caplog.messages
    read(tmp_path, b"one\ntwo\n\nthree\n\n\nfour\n")
    assert caplog.messages == [f"{tmp_path}/prompts.txt: 4 prompts, on lines 1-2, 4, 7"]
