import numpy as np
import pytest

from maskgil_jax.decoding import schedules
from maskgil_jax.models.token_models import orders
from tests.helpers import golden

RULES = golden.arrays("sampling_rules")


@pytest.mark.parametrize("name", [n for n in RULES if n.startswith("adap_sche_")])
def test_maskgil_counts_equal_the_official_ones(name):
    _, _, grid, schedule, steps = name.split("_")
    counts = schedules.maskgil_counts(schedule, int(steps), int(grid[1:]) ** 2)
    np.testing.assert_array_equal(counts, RULES[name])


@pytest.mark.parametrize("name", [n for n in RULES if n.startswith("mask_schedule_")])
def test_mask_ratios_and_lengths_equal_the_official_ones(name):
    method, steps, tokens = name.removeprefix("mask_schedule_").split("_")
    steps, tokens = int(steps), int(tokens)
    ratio = (np.arange(steps, dtype=np.float32) + 1) / steps
    found = schedules.mask_ratio(method, ratio, tokens)
    np.testing.assert_allclose(found, RULES[name], atol=1e-5)
    lengths = np.floor(np.float32(tokens) * found)
    np.testing.assert_array_equal(lengths, RULES[name.replace("mask_schedule", "mask_len")])


@pytest.mark.parametrize("schedule", ["cosine", "arccos", "uniform", "log", "exp", "pow2"])
@pytest.mark.parametrize("steps", [1, 2, 8, 16, 256])
def test_maskgit_reveals_every_token_once(schedule, steps):
    counts = schedules.maskgit_counts(schedule, steps, 256)
    assert len(counts) == steps and counts.sum() == 256 and (counts >= 0).all()


def test_maskgit_cosine_counts_are_the_published_ones():
    counts = schedules.maskgit_counts("cosine", 8, 256)
    assert counts.tolist() == [5, 15, 24, 31, 39, 45, 48, 49]


def test_one_step_reveals_everything():
    assert schedules.maskgil_counts("arccos", 1, 256).tolist() == [256]


@pytest.mark.parametrize("ramp", schedules.GUIDANCE_RAMPS)
def test_guidance_by_weight_is_the_published_formula(ramp):
    """MaskGIL and Halton-MaskGIT: (1 + w) c - w u; w grows along the ramp."""
    c, u, x = 0.7, -0.4, np.linspace(0, 1, 8)
    s = schedules.guidance_scales(schedules.GUIDANCE_FORMS["weight"](3.0), ramp, x)
    w = 3.0 * schedules.GUIDANCE_RAMPS[ramp](x, 3.0)
    np.testing.assert_allclose(u + s * (c - u), (1 + w) * c - w * u, rtol=1e-6)


def test_power_cosine_guidance_is_the_published_formula():
    """bytedance/1d-tokenizer: (g - 1) (1 - cos(pi (i / T)^p)) / 2 + 1."""
    fraction = np.arange(64) / 64
    expected = (6.9 - 1) * (1 - np.cos((fraction**2.5) * np.pi)) / 2 + 1
    found = schedules.guidance_scales(6.9, "power_cosine", fraction, 2.5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_titok_counts_are_the_published_ones():
    counts = schedules.maskgit_counts("arccos", 8, 256)
    assert counts.tolist() == [21, 21, 21, 23, 25, 28, 35, 82]


@pytest.mark.parametrize("side", [16, 32])
def test_halton_order_and_counts_are_the_official_ones(side):
    expected = RULES[f"halton_{side}"]
    np.testing.assert_array_equal(
        orders.halton(side, side), expected[:, 0].astype(int) * side + expected[:, 1]
    )
    for steps in (8, 12, 16, 32):
        found = np.cumsum(schedules.halton_counts("arccos", steps, side * side))
        np.testing.assert_array_equal(found, RULES[f"halton_count_g{side}_{steps}"])


@pytest.mark.parametrize(
    "counts, schedule, tokens, expected",
    [
        (schedules.halton_counts, "arccos", 99, [32, 67]),  # also by the official code
        (schedules.halton_counts, "arccos", 576, [191, 385]),  # also by the official code
        (schedules.halton_counts, "arccos", 144, [23, 24, 30, 67]),
        (schedules.maskgit_counts, "arccos", 99, [33, 66]),
        (schedules.maskgit_counts, "arccos", 576, [93, 99, 119, 265]),
        (schedules.maskgit_counts, "cosine", 64, [9, 24, 31]),
        (schedules.maskgit_counts, "cosine", 16, [1, 2, 2, 4, 3, 4]),
        (schedules.maskgit_counts, "exp", 16, [2, 2, 4, 8]),
        (schedules.maskgit_counts, "log", 256, [192, 32, 19, 13]),
        (schedules.maskgit_counts, "pow2", 144, [16, 49, 79]),
        (schedules.maskgit_counts, "pow0.5", 64, [32, 14, 10, 8]),
    ],
)
def test_counts_that_a_last_bit_decides_are_the_same_on_every_cpu(
    counts, schedule, tokens, expected
):
    assert counts(schedule, len(expected), tokens).tolist() == expected


@pytest.mark.parametrize("grid", [(3, 5), (48, 32), (1, 7)])
def test_halton_order_meets_every_cell_once(grid):
    assert sorted(orders.halton(*grid)) == list(range(grid[0] * grid[1]))
