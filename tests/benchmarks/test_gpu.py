"""What tests/benchmarks/gpu.py makes of the times that it takes, whatever takes them."""

import json
import time

import pytest

from tests.benchmarks import gpu


def measured(tmp_path, tasks, until):
    found = tmp_path / "found"
    gpu.measure(iter(tasks), {"jax": "abacus"}, str(found), until)
    return [json.loads(line) for line in found.read_text().splitlines()]


def test_a_task_that_fails_is_named_and_the_others_go_on(tmp_path):
    def fails():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    tasks = [("a", 8, fails), ("b", 4, lambda: lambda: time.sleep(0.001))]
    device, failed, done = measured(tmp_path, tasks, time.time() + 60)
    assert device == {"device": {"jax": "abacus"}}
    assert failed == {"task": "a", "missing": "RuntimeError: RESOURCE_EXHAUSTED: out of memory"}
    assert done["images"] == 4 and len(done["seconds"]) == gpu.REPEATS
    assert min(done["seconds"]) >= 0.001


def test_no_task_begins_after_the_time_is_up(tmp_path):
    _, late = measured(tmp_path, [("a", 8, None)], time.time() - 1)
    assert late == {"task": "a", "missing": "its time was up"}


def test_ratios_are_of_medians_and_what_is_missing_says_why():
    ours = {"task": "drawing", "images": 8, "first": 5.0, "seconds": [1.0, 2.0, 9.0]}
    eager = {"task": "eager drawing", "images": 8, "first": 9.0, "seconds": [4.0, 6.0, 8.0]}
    lost = {"task": "compiled drawing", "missing": "its time was up"}
    result = gpu.table({"jax": [{"device": {"jax": "abacus"}}, ours], "torch": [eager, lost]})
    (row,) = result["rows"]
    assert row["jax"] == 2.0 and row["images_per_second"] == 4.0 and row["compiling"] == 3.0
    assert row["torch eager"] == 6.0 and row["eager / jax"] == pytest.approx(3.0)
    assert "compiled / jax" not in row
    assert result["missing"] == {"torch: compiled drawing": "its time was up"}
