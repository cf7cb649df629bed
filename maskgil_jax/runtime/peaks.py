"""What chips can do at best, of which MFU is the share that a model uses."""

import re

# FLOP/s of dense bfloat16 products, summed in float32, of what JAX calls a device: a chip, or of v3
# and tpu7x one of its two cores. Sources: cloud.google.com/tpu/docs (v3, v4, v5e, v5p, v6e, tpu7x);
# NVIDIA's boards, without sparsity: H100 and H200 were looked up, the others are from memory.
BF16 = {
    "v3": 61.5e12,
    "v4": 275e12,
    "v5e": 197e12,
    "v5p": 459e12,
    "v6e": 918e12,
    "tpu7x": 1153.5e12,
    "L4": 121e12,
    "L40S": 362e12,
    "A10": 125e12,
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}

# How `jax.Device.device_kind` calls them, the first that is found.
_KINDS = {
    r"^TPU v3$": "v3",
    r"^TPU v4$": "v4",
    r"^TPU v5( lite|e)$": "v5e",
    r"^TPU v5p?$": "v5p",
    r"^TPU v6( lite|e)$": "v6e",
    r"^TPU7x$": "tpu7x",
    r"\bL4$": "L4",
    r"\bL40S\b": "L40S",
    r"\bA10$": "A10",
    r"\bA100\b": "A100",
    r"\bH100 PCIe\b": "H100 PCIe",
    r"\bH100 NVL\b": "H100 NVL",
    r"\b(H100|GH200)\b": "H100",
    r"\bH200\b": "H200",
    r"\bG?B200\b": "B200",
}


def of_kind(device_kind: str) -> float | None:
    """The peak of a device by its kind, FLOP/s of bfloat16; None where it is not in the table."""
    for pattern, name in _KINDS.items():
        if re.search(pattern, device_kind):
            return BF16[name]
    return None
