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


def test_a_grid_is_two_numbers():
    assert plans.parse_grid(["16", "24"]) == (16, 24)
    for texts in (["16"], ["16", "0"], ["16", "x"], ["1", "2", "3"]):
        with pytest.raises(InputError, match="expected HEIGHT,WIDTH in codes"):
            plans.parse_grid(texts)


@pytest.mark.parametrize("memory, images", [(1000, 64), (330, 22), (115, 1), (50, 0)])
def test_the_sampler_is_planned_at_the_batch_that_fits(monkeypatch, memory, images):
    """Weights take 100 bytes and each image 10: 23 fit into 330, and 64 in three parts are 22."""

    class Program:
        arguments = (np.zeros(100, np.uint8),)

    def sampling(config, *_):
        Program.images = config.samples.batch_size
        return Program

    def estimate(program, _):
        total = 100 + 10 * program.images
        return {"bytes_total": total, "bytes_free": memory - total, "fits": total <= memory}

    monkeypatch.setattr(plans.programs, "sampling", sampling)
    monkeypatch.setattr(plans.programs, "devices_of", lambda topology: [None])
    monkeypatch.setattr(plans.estimates, "estimate", estimate)
    config = defaults.generator()
    config.samples.batch_size = 64
    plan = plans._plan_sampler(config, "v5e:2x2", (16, 16), 512)
    assert plan["fits"] == (images > 0)  # where it does not, the plan is of one image
    assert (plan["bytes_total"] - 100) // 10 == max(images, 1)
    assert (64 in plan["refused"]) == (images < 64)
    assert all(total > memory for total in plan["refused"].values())
