"""The search finds the fastest setting that fits, within so many programs."""

import dataclasses

import pytest

from maskgil_jax.planning.search import Setting, search

START = Setting((), 8, 4, "full")
CHOICES = {
    "compiler_options": [(), ("a=1",), ("a=2",)],
    "fsdp": [1, 4, 16],
    "remat": ["none", "minimal", "full"],
    "batch_per_chip": [4, 16, 32],
}
REMAT = {"none": (4, 3.0), "minimal": (2, 2.0), "full": (1, 1.0)}  # bytes an image, and speed


def plan_of(setting, memory=40):
    """Less recomputed takes more and is faster; a larger batch is faster until it is full."""
    bytes_each, speed = REMAT[setting.remat]
    total = bytes_each * setting.batch_per_chip + 16 / setting.fsdp
    options = 1.5 if setting.compiler_options == ("a=2",) else 1.0
    return {
        "fits": total <= memory,
        "images_per_second": speed * options * setting.batch_per_chip**0.5,
    }


def run(most=1000, memory=40):
    plans = []

    def counted(setting):
        plans.append(setting)
        return plan_of(setting, memory)

    return search(START, CHOICES, counted, lambda: len(plans) < most), plans


def test_the_fastest_that_fits_comes_first_and_nothing_is_tried_twice():
    found, plans = run()
    best, plan = found[0]
    assert best.compiler_options == ("a=2",) and plan["fits"]
    assert plan["images_per_second"] == max(
        one["images_per_second"] for _, one in found if one["fits"]
    )
    assert len(plans) == len(set(plans)) == len(found)
    # No neighbour is better: what differs in one field is slower or does not fit.
    for field, values in CHOICES.items():
        for value in values:
            other = plan_of(Setting(**{**vars(best), field: value}))
            assert not other["fits"] or other["images_per_second"] <= plan["images_per_second"]


def test_no_larger_batch_is_tried_than_one_that_did_not_fit():
    found, plans = run(memory=30)
    refused = [setting for setting, plan in found if not plan["fits"]]
    for one in refused:
        later = plans[plans.index(one) + 1 :]
        alike = [s for s in later if dataclasses.replace(one, batch_per_chip=s.batch_per_chip) == s]
        assert all(other.batch_per_chip < one.batch_per_chip for other in alike)
    assert refused and found[0][1]["fits"]


@pytest.mark.parametrize("most", [1, 4])
def test_it_ends_after_so_many_programs(most):
    found, plans = run(most)
    assert len(plans) == len(found) == most
