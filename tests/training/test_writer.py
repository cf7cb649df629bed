"""The log of a run: strict JSON, and never lost."""

import io
import json
import logging
import math

import pytest
from etils import epath

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import writer
from maskgil_jax.training.writer import LOG, UNREADABLE, Writer, parse_log, read_log

RATE = {"examples_per_second": 1.0}


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def open_writer(directory, start_step=0):
    return Writer(epath.Path(directory), start_step=start_step, steps=9)


def steps_of(directory):
    return [line["step"] for line in read_log(directory)]


def write_steps(directory, *steps, start_step=0):
    with open_writer(directory, start_step) as log:
        for step in steps:
            log.scalars(step, {"loss": float(step)} | RATE)


def test_numbers_that_are_not_finite_are_strict_json_and_come_back(tmp_path):
    with open_writer(tmp_path) as log:
        log.scalars(1, {"loss": math.nan, "psnr": math.inf, "x": -math.inf} | RATE)
    for _ in range(2):  # appended, and rewritten
        [line] = (tmp_path / LOG).read_text().splitlines()
        assert json.loads(line, parse_constant=refuse)["psnr"] == "Infinity"
        [found] = read_log(tmp_path)
        assert math.isnan(found["loss"]) and (found["psnr"], found["x"]) == (math.inf, -math.inf)
        open_writer(tmp_path, start_step=1).__exit__()


def test_logs_of_before_and_of_others_are_read(tmp_path):
    old = b'{"step": 1, "loss": NaN}\r\n\n\xef\xbb\xbf{"step": 2, "loss": null, "n": 1' + b"0" * 400
    found = parse_log(old + b"}")
    assert not found.unreadable and [line["step"] for line in found.lines] == [1, 2]
    assert all(math.isnan(line["loss"]) for line in found.lines)
    assert found.lines[1]["n"] == math.inf


BROKEN = {
    "cut": b'{"step": 2, "lo',
    "bytes": b'{"step": 2, "\xff\xfe": 1}',
    "zeros": b"\0" * 50,
    "no object": b"[1, 2]",
    "a number": b"3",
    "no step": b'{"loss": 1.0}',
    "a step that is no integer": b'{"step": 2.5, "loss": 1.0}',
    "a step that is no number": b'{"step": true}',
    "a value that is no number": b'{"step": 2, "loss": [1]}',
    "a text": b'{"step": 2, "loss": "low"}',
    "two in one line": b'{"step": 2}{"step": 2}',
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_an_unreadable_line_is_kept_aside_and_the_later_ones_stay(broken, caplog, tmp_path):
    write_steps(tmp_path, 1, 2, 3, 4)
    lines = (tmp_path / LOG).read_bytes().split(b"\n")
    lines[1] = broken
    (tmp_path / LOG).write_bytes(b"\n".join(lines))
    assert steps_of(tmp_path) == [1, 3, 4]
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        write_steps(tmp_path, 4, start_step=3)
    assert steps_of(tmp_path) == [1, 3, 4]
    assert (tmp_path / UNREADABLE).read_bytes() == broken + b"\n"
    assert f"{tmp_path}/{LOG}: 1 of 4 lines cannot be read (line 2) and are kept in" in caplog.text


def test_lines_kept_aside_add_up(tmp_path):
    for text in (b"one\n", b"two\nthree\n"):
        with (tmp_path / LOG).open("ab") as log:
            log.write(text)
        write_steps(tmp_path)
    assert (tmp_path / UNREADABLE).read_bytes() == b"one\ntwo\nthree\n"


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("wrote", [0, 1, 20])
def test_killed_at_any_write_the_log_is_the_old_or_the_new_one(wrote, monkeypatch, tmp_path):
    write_steps(tmp_path, 1, 2, 3)
    with (tmp_path / LOG).open("ab") as log:
        log.write(b"broken\n")
    before = (tmp_path / LOG).read_bytes()
    path_class = type(epath.Path())
    originals = path_class.write_bytes, path_class.replace
    for number in range(20):
        (tmp_path / LOG).write_bytes(before)
        count = iter(range(100))

        def write(path, content, number=number, count=count):
            if next(count) == number:
                originals[0](path, content[:wrote])
                raise Killed
            originals[0](path, content)

        def replace(path, target, number=number, count=count):
            if next(count) == number:
                raise Killed
            originals[1](path, target)

        with monkeypatch.context() as patched:
            patched.setattr(path_class, "write_bytes", write)
            patched.setattr(path_class, "replace", replace)
            try:
                open_writer(tmp_path, start_step=2).__exit__()
                break
            except Killed:
                assert (tmp_path / LOG).read_bytes() == before
    else:
        raise AssertionError("never done")
    assert number >= 2 and steps_of(tmp_path) == [1, 2]
    assert (tmp_path / UNREADABLE).read_bytes() == b"broken\n"


class FullDisk(io.StringIO):
    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_is_one_message(monkeypatch, tmp_path):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with open_writer(tmp_path) as log:
        log._file.close()
        log._file = FullDisk()
        with pytest.raises(InputError, match=f"{LOG} cannot be written: .*No space"):
            log.scalars(1, {"loss": 1.0} | RATE)
    monkeypatch.setattr(writer, "write_bytes", full)
    with pytest.raises(InputError, match=f"{LOG} cannot be written: .*No space"):
        open_writer(tmp_path)
