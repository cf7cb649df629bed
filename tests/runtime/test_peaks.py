"""Which chip a device is, by what JAX calls it."""

import pytest

from maskgil_jax.runtime import peaks

KINDS = {  # of TPUs as libtpu's topologies name them, of GPUs as their drivers do
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU7x": "tpu7x",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA A10": "A10",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H100 NVL": "H100 NVL",
    "NVIDIA GH200 480GB": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA B200": "B200",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": "L40S",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_of_a_device_is_that_of_its_chip(kind):
    assert peaks.of_kind(kind) == peaks.BF16[KINDS[kind]]


@pytest.mark.parametrize("kind", ["cpu", "TPU v2", "TPU v50", "NVIDIA A1000", "NVIDIA T4", ""])
def test_a_device_that_is_not_in_the_table_has_no_peak(kind):
    assert peaks.of_kind(kind) is None
