"""Studies: what is planned, refused, divided among processes, and left behind."""

import json
import shutil
import subprocess
import sys

import pytest

from maskgil_jax.runtime import config_files, work_lock
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.config_files import Config, FileParser
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import study, study_checks, study_plan
from maskgil_jax.workflows.options import StudyOptions
from tests.helpers import commands, tiny_study


def plan_of(tmp_path, **changes):
    config = tiny_study.get_config()
    with config.unlocked():
        for name, value in changes.items():
            section, _, field = name.rpartition("__")
            part = config
            for key in filter(None, section.split("__")):
                part = part[key]
            part[field] = value
    options = StudyOptions(
        config=Config(config, "tiny"), workdir=str(tmp_path / "study"), processes=Processes()
    )
    return study_plan.planned(options)


def test_cells_share_the_runs_that_they_agree_on(tmp_path):
    plan = plan_of(tmp_path)
    assert len(plan.cells) == 8 and next(iter(plan.cells)) == "rope=2d,at_step=3,guidance=1"
    stages = [name.partition("-")[0] for name in plan.runs]
    assert sorted(stages) == ["codes", "codes", "generator", "generator", "tokenizer"]
    first, *_, last = plan.cells.values()
    assert first.runs[:2] == last.runs[:2] and first.runs[2] != last.runs[2]
    run = plan.runs[first.runs[2]]
    assert run.config.keep_steps == (3,)  # the last step is that of the model
    folder = tmp_path / "study" / "runs"
    assert run.config.data.source == f"arrayrecord:{folder}/{first.runs[1]}"
    assert plan.runs[first.runs[1]].config.tokenizer == f"{folder}/{first.runs[0]}/model"
    assert plan.runs[first.codes].config.source == "embedded:test"
    assert first.decoding == {"steps": 2, "guidance": 1.0}


def test_what_decides_no_weights_makes_no_other_run(tmp_path):
    names = [*plan_of(tmp_path).runs]
    same = plan_of(
        tmp_path,
        base__stages__generator__samples__steps=2,
        base__stages__generator__log_every=2,
        axes__guidance=(3.0,),
        measure__num=8,
    )
    assert [*same.runs] == names
    other = plan_of(tmp_path, base__stages__generator__seed=1)
    assert len({*other.runs} - {*names}) == 2


def test_epochs_are_counted_in_the_images_of_the_source(tmp_path):
    plan = plan_of(tmp_path, axes=dict(at_epoch=(0.1,)), order=())
    assert [cell.step for cell in plan.cells.values()] == [4]  # 0.1 * 1,437 images // 32
    plan = plan_of(tmp_path, axes=dict(at_epoch=(0.1,)), order=(), epoch_images=640)
    assert [cell.step for cell in plan.cells.values()] == [2]


WRONG = {
    "unknown axis": (dict(axes=dict(rpoe=(1,)), order=()), "axes.rpoe: there is no such axis"),
    "unknown value": (
        dict(axes=dict(size=("narrow",)), order=()),
        "axes.size has 'narrow', expected some of wide",
    ),
    "no values": (dict(axes=dict(rope=()), order=()), r"axes.rope = \(\), expected values"),
    "value of another type": (
        dict(axes=dict(guidance=("much",)), order=()),
        "guidance = 'much', expected a value of type float",
    ),
    "one name": (dict(axes__guidance=(2.0, 2)), "two cells are called rope=2d,at_step=3,guidance"),
    "no such step": (dict(axes__at_step=(3, 7)), "step 7 is measured, but the generator is trai"),
    "an epoch that is no number": (
        dict(axes=dict(at_epoch=("all",)), order=()),
        "step all is measured",
    ),
    "no such field": (
        dict(fields=dict(rope="generator.model.rpoe")),
        "axis rope, stage generator: .*rpoe",
    ),
    "no such stage": (dict(fields=dict(rope="encoder.x")), "changes stage 'encoder', but"),
    "order of others": (dict(order=("rope",)), "expected the same names"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_study_that_makes_no_sense_is_refused(name, tmp_path):
    changes, words = WRONG[name]
    with pytest.raises(InputError, match=words):
        plan_of(tmp_path, **changes)


UNFIT = {
    "a preset that there is not": (dict(fields=dict(rope="generator.model.preset")), "preset"),
    "an option that the model has not": (
        dict(axes=dict(guidance_interval=(3,)), order=()),
        "guidance_interval=3 is not an option of method=masked",
    ),
    "no tokenizer": (
        dict(base__stages__codes__tokenizer="nowhere"),
        "config.tokenizer = 'nowhere'",
    ),
    "no reference": (dict(measure__reference=""), "config.measure.reference: expected images"),
    "no such source": (dict(measure__codes="folder:nowhere"), "nowhere"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_no_run_could_do_is_refused_before_the_first(name, tmp_path):
    changes, words = UNFIT[name]
    with pytest.raises(InputError, match=words):
        study_checks.check(plan_of(tmp_path, **changes))
    assert not (tmp_path / "study").exists()


def test_only_a_cell_that_there_is(tmp_path):
    with pytest.raises(InputError, match="only=rope=3d: there is no such cell, expected one of ro"):
        study_checks.check(plan_of(tmp_path), "rope=3d")


def test_a_checkpoint_that_was_not_kept_is_refused(tmp_path):
    plan = plan_of(tmp_path)
    run = plan.runs[next(iter(plan.cells.values())).runs[2]]
    run.directory.mkdir(parents=True)
    (run.directory / "training.jsonl").write_text('{"step": 2}\n')
    study_checks.check_kept(run, 3)  # it is not there yet
    (run.directory / "training.jsonl").write_text('{"step": 4}\n')
    with pytest.raises(InputError, match="is at step 4 and has kept no checkpoint of step 3"):
        study_checks.check_kept(run, 3)


def test_another_study_in_the_work_directory_is_refused(tmp_path):
    plan = plan_of(tmp_path)
    plan.workdir.mkdir()
    (plan.workdir / study_checks.CONFIG).write_text(json.dumps(study_checks.as_json(plan)))
    study_checks.check_workdir(plan)
    with pytest.raises(InputError, match="holds another study.*\n.*guidance: .1.0, 2.0. -> .4.0."):
        study_checks.check_workdir(plan_of(tmp_path, axes__guidance=(4.0,)))


class Work:
    """Tasks of names, in a folder that stands for what is done."""

    def __init__(self, folder):
        self.folder, self.done = folder, []

    def task(self, name, *needs, busy=0, fails=False):
        left = [busy]

        def do():
            if left[0]:
                left[0] -= 1
                if not left[0]:  # the other process has done it
                    (self.folder / name).touch()
                raise work_lock.Busy(f"{name} is held")
            if fails:
                raise InputError(f"{name} diverged")
            self.done.append(name)
            (self.folder / name).touch()

        return study.Task(name, (self.folder / name).exists, do, needs)


def test_what_others_hold_is_passed_over_and_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "PAUSE", 0.01)
    work = Work(tmp_path)
    (tmp_path / "there").touch()
    tasks = [work.task("there"), work.task("held", busy=3), work.task("free")]
    tasks += [work.task("after", "held", "there")]
    assert study.work_through(tasks) == {}
    assert work.done == ["free", "after"]


def test_what_needs_a_run_that_failed_is_left_out_and_the_rest_is_done(tmp_path):
    work = Work(tmp_path)
    tasks = [work.task("bad", fails=True), work.task("cell of it", "bad"), work.task("good")]
    assert study.work_through(tasks) == {"bad": "bad diverged"}
    assert work.done == ["good"]


WORKER = """
import pathlib, sys, time
from maskgil_jax.runtime import work_lock
from maskgil_jax.workflows import study

folder, me = pathlib.Path(sys.argv[1]), sys.argv[2]
study.PAUSE = 0.05
(folder / f"ready {me}").touch()
while len([*folder.glob("ready *")]) < 2:
    time.sleep(0.01)

def task(name, *needs):
    def do():
        with work_lock.held(folder / "claims" / name, "workdir"):
            if (folder / name).exists():
                return
            assert all((folder / need).exists() for need in needs)
            time.sleep(0.1)
            (folder / f"{name} by {me}").touch(exist_ok=False)
            (folder / name).touch()

    return study.Task(name, (folder / name).exists, do, needs)

runs = [task(f"run{i}") for i in range(3)]
cells = [task(f"cell{i}.{j}", f"run{i}") for i in range(3) for j in range(4)]
assert study.work_through([*runs, *cells]) == {}
"""


def test_two_processes_share_the_work_and_do_none_of_it_twice(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    both = [subprocess.Popen([*command, me], stderr=subprocess.PIPE, text=True) for me in "ab"]
    for process in both:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    done = [path.name.partition(" by ") for path in tmp_path.glob("* by *")]
    assert len({name for name, _, _ in done}) == len(done) == 15
    assert {who for _, _, who in done} == {"a", "b"}


OPTIONS = ("--config=tests/helpers/tiny_study.py",)


@pytest.mark.slow
def test_a_study_leaves_a_table_and_goes_on_where_it_was_cut_short(tmp_path):
    options = (*OPTIONS, f"--workdir={tmp_path}/s", f"--runs={tmp_path}/runs")
    done = commands.call("study", *options, "--dry_run")
    assert done.returncode == 0 and "known after its first steps" in done.stdout
    assert "5 runs" in done.stdout and not (tmp_path / "s").exists()

    cell = "rope=1d,at_step=3,guidance=2"
    done = commands.call("study", *options, f"--only={cell}")
    assert done.returncode == 0, done.stderr
    assert "1 of 8 cells are there: no table yet" in done.stderr
    assert len([*(tmp_path / "runs").glob("generator-*")]) == 1
    measured = (tmp_path / "s" / "cells" / f"{cell}.json").read_bytes()

    done = commands.call("study", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stage generator in") == 1  # the other of two
    assert (tmp_path / "s" / "cells" / f"{cell}.json").read_bytes() == measured
    content = json.loads((tmp_path / "s" / "study.json").read_text())
    rows = {row["cell"]: row for row in content["cells"]}
    assert len(rows) == 8 and rows[cell]["step"] == 3
    assert rows[cell]["rope"] == "1d" and rows[cell]["validation_loss"] > 0
    losses = {(row["rope"], row["step"]): row["validation_loss"] for row in rows.values()}
    assert (
        len({*losses.values()}) == len(losses) == 4
    )  # each of a model, or a checkpoint, of its own
    drawn = json.loads(measured)["samples"]
    assert drawn["options"] == {"steps": 2, "guidance": 2.0} and drawn["path"].endswith("@3")
    log = tmp_path / "runs" / rows[cell]["run"] / "training.jsonl"
    log = [json.loads(line) for line in log.read_text().splitlines()]
    assert rows[cell]["loss"] == log[2]["loss"] and log[2]["step"] == 3
    assert content["published"]["none"].startswith("measured by protocol none")
    for name in ("study.csv", "study.md", "guidance.png", "at_step.png", "curves.png"):
        assert (tmp_path / "s" / name).exists()
    assert "rope 1d" in (tmp_path / "s" / "page" / "index.html").read_text()
    assert not (tmp_path / "s" / "claims").exists()

    shutil.rmtree(tmp_path / "s" / "cells")
    (tmp_path / "s" / "study.json").unlink()
    done = commands.call("study", *options)
    assert done.returncode == 0 and "stage generator in" not in done.stderr
    again = json.loads((tmp_path / "s" / "study.json").read_text())
    for row in again["cells"]:
        assert row["pixel_frechet_distance"] == rows[row["cell"]]["pixel_frechet_distance"]


@pytest.mark.slow
def test_tokenizers_are_measured_by_what_they_rebuild(tmp_path):
    options = ("--config=tests/helpers/tiny_study.py:tokenizer", f"--workdir={tmp_path}/s")
    done = commands.call("study", *options)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s" / "study.json").read_text())
    assert content["published"]["none"].startswith("measured by protocol none")
    rows = content["cells"]
    assert [row["step"] for row in rows] == [2, 6] and rows[0]["run"] == rows[1]["run"]
    assert rows[0]["psnr"] != rows[1]["psnr"] and rows[0]["codes"] == 64
    assert (tmp_path / "s" / "at_step.png").exists() and (tmp_path / "s" / "curves.png").exists()
    assert commands.call("study", *options).returncode == 0


# Cells and runs of the studies that ship, in the paper's form and small.
SHIPPED = {
    "tokenizers": ((5, 5), (5, 5)),
    "networks": ((36, 20), (6, 6)),
    "sizes": ((16, 4), (8, 7)),
    "guidance": ((18, 1), (10, 4)),
    "norms": ((9, 3), (9, 6)),
    "steps": ((9, 1), (6, 4)),
    "prefix": ((9, 1), (6, 3)),
    "batch_size": ((5, 5), (4, 7)),
    "codebook_size": ((4, 12), (3, 12)),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_study_that_ships_has_its_cells_and_runs(name, tmp_path):
    for form, (cells, runs) in zip(("paper", "small"), SHIPPED[name], strict=True):
        given = f"studies/{name}:{form}"
        options = StudyOptions(
            config=Config(FileParser().parse(given), given),
            workdir=str(tmp_path),
            processes=Processes(),
        )
        plan = study_plan.planned(options)
        assert (len(plan.cells), len(plan.runs)) == (cells, runs), form


def test_all_studies_that_ship_are_here():
    named = {name.partition("/")[2] for name in config_files.named() if "/" in name}
    assert named == {*SHIPPED}


@pytest.mark.slow(seconds=85)
def test_a_study_in_a_bucket_is_that_on_disk(bucket, tmp_path):
    """Runs, claims, cells, table and page are all in cloud storage."""
    options = {
        where: ("--config=tests/helpers/tiny_study.py:tokenizer", f"--workdir={where}/s")
        for where in (tmp_path, bucket)
    }
    assert commands.call("study", *options[tmp_path]).returncode == 0
    for said in ("stage tokenizer in", ""):
        # In a process, because TensorBoard's writer calls the bucket once more at the very end.
        done = commands.run("study", *options[bucket], devices=8)
        assert done.returncode == 0, done.stderr
        assert ("stage tokenizer in" in done.stderr) == bool(said)  # trained once
    left = {path.name for path in (bucket / "s").iterdir()}
    assert {"curves.png", "page"} <= left and "claims" not in left
    disk, there = (
        json.loads((where / "s" / "study.json").read_text())["cells"] for where in options
    )
    for one, other in zip(disk, there, strict=True):
        assert one.keys() == other.keys()
        same = [name for name in one if "seconds" not in name]
        assert {name: one[name] for name in same} == {name: other[name] for name in same}
