"""What is refused before anything is compiled."""

import pytest
from ml_collections import ConfigDict

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
