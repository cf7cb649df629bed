"""What a study writes of runs whose law is known."""

import json

import numpy as np
import pytest

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import scaling_tables

PLAN = {
    "config": "configs/xxl.py",
    "topology": "v5p:4x4x4",
    "chips": 64,
    "parameters": 10**9,
    "steps": 100,
    "batch_size": 2048,
    "tokens_per_example": 256,
    "model_flops_per_step": 10**15,
}
SPEED = {"mfu": 0.33, "tokens_per_second": 1e6, "chip_hours": 1500.0}


def rows(noise):
    rng = np.random.default_rng(0)
    table = []
    for steps in (100, 200, 400, 800):
        for size, parameters in (("1x32", 10**5), ("2x64", 3 * 10**5), ("3x96", 10**6)):
            tokens = steps * 2048
            loss = 2.5 + 30 / parameters**0.3 + 200 / tokens**0.4
            table.append(
                {
                    "run": f"{size}-{steps}",
                    "size": size,
                    "steps": steps,
                    "parameters": parameters,
                    "tokens": tokens,
                    "training_flops": 6 * parameters * tokens,
                    "validation_loss": loss * np.exp(noise * rng.standard_normal()),
                }
            )
    return table


def test_a_determined_law_is_extended_to_plans_and_said_not_to_be_measured(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"plans": [PLAN | SPEED, PLAN]}))
    plans = scaling_tables.read_plans(f"{tmp_path}/plan.json")
    assert plans[0]["tokens"] == 100 * 2048 * 256 and plans[0]["training_flops"] == 1e17
    scaling_tables.write_study(rows(1e-4), plans, tmp_path / "out", validation="10 images", seed=0)
    content = json.loads((tmp_path / "out" / "scaling.json").read_text())
    laws = {fit["loss_against"]: fit for fit in content["fits"]}
    assert laws.keys() == {"parameters", "tokens", "training_flops"}
    for name, exponent in (("parameters", 0.3), ("tokens", 0.4)):
        assert laws[name]["determined"] and laws[name]["runs"] == 12
        assert laws[name]["exponent"]["low"] <= exponent <= laws[name]["exponent"]["high"]
    truth = 2.5 + 30 / 1e9**0.3 + 200 / plans[0]["tokens"] ** 0.4
    for plan in content["plans"]:
        assert plan["extended_law"]["low"] <= truth <= plan["extended_law"]["high"]
    assert "3.0 orders of magnitude in parameters and 1.5 in tokens" in content["notes"]["plans"]
    assert "not a measurement" in content["notes"]["plans"]
    text = (tmp_path / "out" / "scaling.md").read_text()
    assert "| xxl | v5p:4x4x4 | 1,000,000,000 |" in text and "not a measurement" in text
    assert (tmp_path / "out" / "scaling.csv").read_text().count("\n") == 13
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 5000


def test_a_law_that_the_runs_leave_open_is_not_extended(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"plans": [PLAN | SPEED]}))
    plans = scaling_tables.read_plans(f"{tmp_path}/plan.json")
    scaling_tables.write_study(rows(0.1), plans, tmp_path / "out", validation="10 images", seed=0)
    content = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert not content["fits"][0]["determined"] and "extended_law" not in content["plans"][0]
    assert "no loss is given" in content["notes"]["plans"]


def test_the_frontier_holds_what_no_cheaper_run_beats():
    points = [(4, 2.0), (1, 3.0), (2, 3.5), (3, 2.5), (5, 2.2)]
    table = scaling_tables.frontier(
        [{"training_flops": c, "validation_loss": y} for c, y in points]
    )
    assert [row["training_flops"] for row in table] == [1, 3, 4]


@pytest.mark.parametrize("content", ["", "[]", '{"plans": [{"config": "configs/b.py"}]}', None])
def test_what_is_no_plan_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    with pytest.raises(InputError, match="expected the output of maskgil_jax.plan"):
        scaling_tables.read_plans(f"{tmp_path}/plan.json")
