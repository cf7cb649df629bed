import logging

import pytest

from maskgil_jax.runtime import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_with_the_time_left(clock, caplog):
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        with progress.Progress(100, "image", "drawing") as bar:
            bar.update(20, worked=False)  # they were there: no sign of how fast it is
            clock[0] += 600  # the first batch is compiled for
            bar.update(10)
            for _ in range(7):
                clock[0] += 20
                bar.update(10)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "drawing: 40 of 100 images, 2:00 left",
        "drawing: 60 of 100 images, 1:20 left",
        "drawing: 80 of 100 images, 0:40 left",
    ]


def test_a_terminal_gets_a_bar(clock, caplog, monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        with progress.Progress(10, "image", "drawing") as bar:
            clock[0] += 100
            bar.update(10)
    assert not caplog.records and "drawing: 100%" in capsys.readouterr().err
