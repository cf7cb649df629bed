"""The runs that directories hold: their names and stages."""

from maskgil_jax.reporting import collect
from tests.helpers.report_files import lines, with_files


def test_runs_are_told_apart(tmp_path):
    for name in ("a/vq", "b/vq", "b/c"):
        with_files(tmp_path / name, {"training.jsonl": lines(1)})
    runs = collect.gather([f"{tmp_path}/{name}" for name in ("a/vq", "b/vq", "b/c")])
    assert [run.name for run in runs] == ["a/vq", "b/vq", "c"]


def test_earlier_stages_follow_their_run(finished):
    runs = collect.gather([str(finished)])
    assert [run.stage for run in runs] == ["generator", "tokenizer"]
    assert [run.name for run in runs] == [finished.name, f"{finished.name}/tokenizer"]
    given = collect.gather([str(finished), str(finished / "tokenizer")])
    assert [run.stage for run in given] == ["generator", "tokenizer"]
