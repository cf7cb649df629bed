"""Tables of metrics: which share one, and what is said below them."""

from maskgil_jax.reporting import collect, page
from maskgil_jax.reporting.result_tables import FLOOR_NAME
from tests.helpers.report_files import EVALUATION, with_files


def test_metrics_measured_alike_share_a_table(tmp_path):
    first = with_files(tmp_path / "a", {"metrics.json": EVALUATION})
    other = EVALUATION | {"samples": {"path": "/other", "count": 50}, "metrics": {"fid": 9.0}}
    second = with_files(tmp_path / "b", {"fid.json": other | {"warnings": []}})
    against = EVALUATION | {"reference": {"path": "elsewhere", "count": 9}}
    third = with_files(tmp_path / "c", {"metrics.json": against})
    one, two = page.metrics(collect.gather([str(first), str(second), str(third)]))
    assert one.header == ["of", "images", "pixel frechet distance", "fid"]
    assert one.rows == [
        ["a", "500", "0.9057", "3.5 (3 to 4)"],
        ["b: fid.json", "50", "", "9"],
        [FLOOR_NAME, "", "0.1649", ""],
    ]
    assert one.floor and one.numeric == [False, True, True, True]
    notes = dict(one.notes)
    assert notes["code"] == "0.1.0+abcdef0" and notes["seed"] == "7"
    assert ("path", "/other") in dict(notes["b: fid.json"])["samples"]
    assert [row[0] for row in two.rows] == ["c", FLOOR_NAME]


def test_published_numbers_stand_beside_those_that_they_fit(tmp_path):
    row = {"model": "MaskGIL-B", "setting": "8 steps", "fid": 5.64, "source": "Table 3"}
    fitting = EVALUATION | {"published": {"rows": [row]}, "samples": {"count": 50_000}}
    other = EVALUATION | {"published": {"none": "1,000 samples"}, "reference": {"path": "x"}}
    runs = [
        with_files(tmp_path / "a", {"metrics.json": fitting}),
        with_files(tmp_path / "b", {"metrics.json": other}),
    ]
    ours, theirs, alone = page.metrics(collect.gather([*map(str, runs)]))
    assert theirs.title.startswith("Published") and theirs.rows == [[*map(str, row.values())]]
    reason = "no published number beside these"
    assert reason not in dict(ours.notes) and ours.rows[0][0] == "a"
    assert dict(alone.notes)[reason] == "1,000 samples"


def test_a_study_is_a_table_with_the_published_numbers_below(tmp_path):
    study = {
        "protocol": {"images": 50_000},
        "cells": [{"cell": "guidance=2", "guidance": 2.0, "fid": 5.0}],
        "published": {"rows": [{"model": "LlamaGen-B", "fid": 5.46}]},
        "real_to_real": {},
        "warnings": [],
    }
    (run,) = collect.gather([str(with_files(tmp_path / "s", {"study.json": study}))])
    cells, theirs = page.tables_of(run, page.COMPARISONS)
    assert cells.header == ["cell", "guidance", "fid"] and theirs.rows == [["LlamaGen-B", "5.46"]]


def test_metrics_of_tokenizers_and_of_condition_match_are_known(tmp_path):
    match = {"preferred": 0.914, "interval": [0.88, 0.94], "protocol": {"masks": 8}, "images": 349}
    summary = {"reference": {"path": "P", "count": 20}, "protocol": "ADM centre crop", "psnr": 17.0}
    run = with_files(tmp_path / "run", {"match.json": match, "metrics.json": summary})
    tables = {table.title: table for table in page.metrics(collect.gather([str(run)]))}
    assert tables["run: match.json"].rows == [["run: match.json", "0.914", "0.88 to 0.94", "349"]]
    assert tables["Against P, 20 images"].rows == [["run", "17"]]
