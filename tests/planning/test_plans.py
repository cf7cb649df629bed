"""What is refused before anything is compiled, and the batch of the sampler."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax.planning import plans
from maskgil_jax.planning.options import PlanOptions
from maskgil_jax.runtime.config_files import Config
from maskgil_jax.runtime.errors import InputError


@pytest.mark.parametrize(
    "stage, topology, message",
    [
        ("generator", "h100:8", "topology=h100:8: expected a TPU of v5e, v5p, v6e"),
        ("codes", "v5e:2x2", r"config: has stages \['codes'\], expected one"),
    ],
)
def test_what_cannot_be_planned_is_refused(stage, topology, message):
    config = Config(ConfigDict({"stage": stage}), "x.py")
    with pytest.raises(InputError, match=message):
        plans.make_plans(PlanOptions(config=config, topology=(topology,)))


def test_compiler_options_have_names_and_values_and_the_last_holds():
    parsed = plans.parse_compiler_options(["a=1", "b=true", "c=x=y", "a=2", "d=False"])
    assert parsed == {"a": "2", "b": True, "c": "x=y", "d": False}
    for text in ("a", "=1", "a=", ""):
        with pytest.raises(InputError, match=f"compiler_options={text}: expected NAME=VALUE"):
            plans.parse_compiler_options([text])


def test_a_grid_is_two_numbers():
    assert plans.parse_grid(["16", "24"]) == (16, 24)
    for texts in (["16"], ["16", "0"], ["16", "x"], ["1", "2", "3"]):
        with pytest.raises(InputError, match="expected HEIGHT,WIDTH in codes"):
            plans.parse_grid(texts)


@pytest.mark.parametrize(
    "memory, devices, images, chips",
    [(1000, 1, 64, 1), (330, 8, 22, 1), (115, 8, 1, 1), (50, 1, 0, 1), (50, 8, 2, 4), (9, 8, 0, 4)],
)
def test_the_sampler_is_planned_where_it_fits(monkeypatch, memory, devices, images, chips):
    """Weights take 100 bytes, shared by at most 4 heads' chips, and each image 10 on each chip."""

    class Program:
        pass

    def sampling(config, devices, *_):
        Program.images, Program.chips = config.samples.batch_size, len(devices)
        Program.arguments = (np.zeros(100 // Program.chips, np.uint8),)
        return Program

    def estimate(program, *_):
        total = 100 // program.chips + 10 * program.images
        free = memory - total
        return dict(bytes_total=total, bytes_free=free, fits=free >= 0, chips=program.chips)

    monkeypatch.setattr(plans.programs, "sampling", sampling)
    monkeypatch.setattr(plans.programs, "devices_of", lambda topology: [None] * devices)
    monkeypatch.setattr(plans.estimates, "estimate", estimate)
    config = defaults.generator()
    config.samples.batch_size, config.model.heads = 64, 4
    options = PlanOptions(config=Config(ConfigDict(), "x.py"), topology=("v5e:2x4",))
    plan = plans._plan_sampler(plans._Planner(config, "v5e:2x4", (16, 16), options, None))
    assert plan["fits"] == (images > 0)  # where it does not, the plan is of one image
    assert plan["chips"] == chips
    assert (plan["bytes_total"] - 100 // chips) // 10 == max(images, 1)
    assert (64 in plan["refused"]) == (images < 64)
    assert all(total > memory for total in plan["refused"].values())
