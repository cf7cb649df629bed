"""A scaling study, as a user asks for it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

PLAN = {
    "config": "configs/xxl.py",
    "topology": "v5p:4x4x4",
    "chips": 64,
    "parameters": 10**9,
    "steps": 100,
    "batch_size": 2048,
    "tokens_per_example": 256,
    "model_flops_per_step": 10**15,
    "mfu": 0.33,
    "tokens_per_second": 1e6,
    "chip_hours": 1500.0,
}


def scaling(*options):
    return subprocess.run(
        [sys.executable, "-m", "maskgil_jax.scaling", *map(str, options)],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def options(finished, tmp_path_factory):
    """Of a study of three sizes and three budgets."""
    directory = tmp_path_factory.mktemp("scaling")
    (directory / "plan.json").write_text(json.dumps({"plans": [PLAN]}))
    return {
        "config": "tests/tiny.py:generator",
        "config.data.source": f"arrayrecord:{finished}/codes",
        "config.evaluation.reference": "",
        "config.optimizer.learning_rate": 3e-3,
        "workdir": directory / "runs",
        "sizes": "1x16,1x32,2x32",
        "steps": "4,8,16",
        "codes": f"{finished}/codes",
        "num": 64,
        "plans": directory / "plan.json",
        "output": directory / "out",
    }


def written(options):
    return [f"--{name}={value}" for name, value in options.items()]


@pytest.fixture(scope="module")
def study(options):
    """The first study, and the directory of its results."""
    return scaling(*written(options)), options["output"]


def test_a_family_of_runs_gives_laws_tables_and_a_plot(study, options):
    done, output = study
    assert done.returncode == 0, done.stderr
    content = json.loads((output / "scaling.json").read_text())
    runs = {run["run"]: run for run in content["runs"]}
    assert list(runs) == [f"{s}-{n}" for n in (4, 8, 16) for s in ("1x16", "1x32", "2x32")]
    for name, run in runs.items():
        steps = int(name.split("-")[1])
        assert run["tokens"] == steps * 32 * 16  # 32 images of 4 x 4 tokens a step
        assert 6 * run["parameters"] * run["tokens"] < 3 * run["training_flops"]
        config = json.loads((options["workdir"] / name / "config.json").read_text())
        assert f"{config['model']['layers']}x{config['model']['dim']}" == run["size"]
        assert config["steps"] == steps and config["model"]["heads"] == config["model"]["dim"] // 16
        assert 0 < run["validation_loss"] < 4.5
    laws = {fit["loss_against"]: fit for fit in content["fits"]}
    assert laws["parameters"]["runs"] == laws["tokens"]["runs"] == 9
    for fit in laws.values():
        for number in (fit["exponent"], fit["factor"], fit["floor"]):
            assert number["low"] <= number["high"]
    (plan,) = content["plans"]
    assert plan["training_flops"] == 1e17 and plan["tokens"] == 100 * 2048 * 256
    assert ("extended_law" in plan) == laws["parameters"]["determined"]
    assert {"tokens", "training_flops", "intervals", "plans"} <= content["notes"].keys()
    assert (output / "scaling.csv").read_text().count("\n") == 10
    assert "| parameters | 9 |" in done.stdout and "| xxl | v5p:4x4x4 |" in done.stdout
    assert (output / "scaling.png").stat().st_size > 5000


def test_finished_runs_are_read_and_the_others_trained(study, options):
    _, output = study
    before = (output / "scaling.json").read_text()
    shutil.rmtree(options["workdir"] / "1x16-8")
    done = scaling(*written(options))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is finished, and read") == 8
    assert (output / "scaling.json").read_text() == before  # the same to the last bit


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"sizes": "1x16,wide"}, "--sizes=1x16,wide: expected LAYERSxWIDTH"),
        ({"sizes": "1x16,1x24"}, "--sizes=1x24: expected a width that is a multiple of 16"),
        ({"sizes": "1x16,1x32"}, "6 points with 2 different values"),
        ({"steps": ""}, "--steps=: expected numbers"),
        ({"config.optimizer.warmup_steps": 4}, "--steps=4 is all warm-up"),
        ({"config.optimizer.learning_rate": 1e-3}, "learning_rate: 0.003 -> 0.001"),
        ({"config.data.source": "embedded"}, "expected arrayrecord:DIR"),
        ({"config.model.preset": "besnier"}, "expected a LLaMA"),
        ({"config": "tests/tiny.py:tokenizer"}, "expected one generator"),
        ({"codes": "other"}, "--codes has tokenizer other, but"),
        ({"plans": "tests/tiny.py"}, "--plans=tests/tiny.py: expected the output of"),
        ({"output": ""}, "--output is missing"),
    ],
)
def test_bad_input_is_one_clear_line_before_any_work(changes, words, study, options, tmp_path):
    if "codes" in changes:
        shutil.copytree(options["codes"], tmp_path / "codes")
        index = tmp_path / "codes" / "index.json"
        content = json.loads(index.read_text())
        content["tokenizer"]["fingerprint"] = changes["codes"]
        index.write_text(json.dumps(content))
        changes = {"codes": index.parent}
    given = options | {"output": tmp_path / "out"} | changes
    if changes.keys() & {"config", "config.model.preset"}:
        given = {name: value for name, value in given.items() if "optimizer" not in name}
    done = scaling(*written(given))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in done.stderr and "Traceback" not in done.stderr, line
    assert "is finished" not in done.stderr and not (tmp_path / "out").exists()
