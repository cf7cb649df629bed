"""A small tokenizer by LlamaGen's names, for the tests of files."""

import numpy as np
import pytest
import torch

from maskgil_jax.interop import llamagen_vq
from tests.helpers.small_vq import CONFIG


@pytest.fixture(scope="module")
def arrays():
    """The tensors of a small tokenizer by LlamaGen's names, random ones."""
    rng = np.random.default_rng(0)
    return {
        entry.name: rng.standard_normal(entry.shape).astype(np.float32)
        for entry in llamagen_vq.entries(CONFIG)
        if entry.path
    }


@pytest.fixture(scope="module")
def state(arrays):
    return {name: torch.from_numpy(x) for name, x in arrays.items()}
