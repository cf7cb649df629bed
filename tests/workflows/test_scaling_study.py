"""A scaling study, as a user asks for it: of nine tiny runs, all but one of which are there."""

import json
import shutil

import jax
import pytest
from etils import epath

from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.pretrained import generators, networks, presets
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import scaling_study
from maskgil_jax.workflows.run import keep_config
from tests.helpers import commands, tiny

SIZES, STEPS = ((1, 16), (1, 32), (2, 32)), (2, 4, 8)
MISSING = "1x16-4"


def study(finished, workdir, *options):
    return commands.call(
        "scaling",
        "--config=tests/helpers/tiny.py:generator",
        *(f"--config.data.source=arrayrecord:{finished}/codes", f"--workdir={workdir}"),
        *("--sizes=1x16,1x32,2x32", "--steps=2,4,8", f"--codes={finished}/codes", "--num=64"),
        *options,
    )


def config_of(finished):
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    return config


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory):
    """Work directories with generators as training leaves them, though of random weights."""
    workdir = epath.Path(tmp_path_factory.mktemp("scaling"))
    shards = CodeShards(f"{finished}/codes")
    for size in SIZES:
        for steps in STEPS:
            run = scaling_study.planned_run(config_of(finished), size, steps, workdir)
            if run.name == MISSING:
                continue
            network = networks.init_network(
                presets.network_config(run.config.model, 64, shards.index.grid, run.config.loss),
                jax.random.key(steps),
            )
            made = generators.make_generator(network, shards.index.tokenizer, shards.class_names)
            made.save(run.directory / "model")
            keep_config(run.config, run.directory)
            (run.directory / "training.jsonl").write_text(json.dumps({"step": steps}) + "\n")
            assert run.is_finished()
    return workdir


@pytest.mark.slow
def test_runs_that_are_there_are_read_and_the_missing_one_is_trained(finished, runs, tmp_path):
    done = study(finished, runs, f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is finished, and read") == 8
    assert f"stage generator in {runs}/{MISSING}" in done.stderr
    content = json.loads((tmp_path / "out" / "scaling.json").read_text())
    rows = {row["run"]: row for row in content["runs"]}
    assert list(rows) == [f"{layers}x{width}-{n}" for n in STEPS for layers, width in SIZES]
    for row in rows.values():
        assert row["tokens"] == row["steps"] * 32 * 16  # 32 images of 4 x 4 tokens a step
        assert row["validation_loss"] == pytest.approx(4.2, abs=0.5)
    assert "| parameters | 9 |" in done.stdout

    done = study(finished, runs, f"--output={tmp_path}/again")
    assert done.stderr.count("is finished, and read") == 9
    again = json.loads((tmp_path / "again" / "scaling.json").read_text())
    assert again == content


@pytest.mark.slow
@pytest.mark.parametrize(
    "option, words",
    [
        ("--config.optimizer.learning_rate=0.1", "optimizer.learning_rate: 0.0001 -> 0.1"),
        ("--sizes=1x16,1x32", "6 points with 2 different values"),
    ],
)
def test_bad_input_is_one_clear_message_before_any_work(option, words, finished, runs, tmp_path):
    done = study(finished, runs, f"--output={tmp_path}/out", option)
    assert done.returncode == 1 and done.stderr.count("error: ") == 1
    assert words in done.stderr and "Traceback" not in done.stderr
    assert "is finished" not in done.stderr and not (tmp_path / "out").exists()


def test_sizes_and_budgets_are_read():
    assert scaling_study.parse_sizes(["4x128", "2x64", "4x128"]) == [(2, 64), (4, 128)]
    assert scaling_study.parse_steps(["400", "200"]) == [200, 400]
    for texts in ([], ["2x"], ["2x64", "wide"], ["0x64"]):
        with pytest.raises(InputError, match="expected LAYERSxWIDTH"):
            scaling_study.parse_sizes(texts)
    for texts in ([], ["0"], ["-1"], ["many"]):
        with pytest.raises(InputError, match="expected numbers"):
            scaling_study.parse_steps(texts)


def test_a_run_that_makes_no_sense_is_refused(finished, tmp_path):
    config = config_of(finished)
    with pytest.raises(InputError, match="1x24: expected a width that is a multiple of 16"):
        scaling_study.planned_run(config, (1, 24), 4, tmp_path)
    config.optimizer.warmup_steps = 4
    with pytest.raises(InputError, match="steps=4 is all warm-up"):
        scaling_study.planned_run(config, (1, 32), 4, tmp_path)
    config.model.preset = "besnier"
    run = scaling_study.planned_run(config, (1, 32), 5, tmp_path)
    with pytest.raises(InputError, match="expected a LLaMA"):
        scaling_study.facts_of(run, CodeShards(f"{finished}/codes").index)


def test_a_run_of_other_steps_in_its_place_is_refused(finished, runs):
    run = scaling_study.planned_run(config_of(finished), (1, 16), 2, runs)
    run.check_directory()
    run.config.steps = 3
    with pytest.raises(InputError, match="steps: 2 -> 3"):
        run.check_directory()


def test_validation_codes_of_another_tokenizer_are_refused(finished, tmp_path):
    shutil.copytree(finished / "codes", tmp_path / "codes")
    index = tmp_path / "codes" / "index.json"
    content = json.loads(index.read_text())
    content["tokenizer"]["fingerprint"] = "other"
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match="codes: has tokenizer other, but arrayrecord"):
        scaling_study.check_codes(config_of(finished), CodeShards(f"{tmp_path}/codes"))
