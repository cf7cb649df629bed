"""Likelihood of codes under generators."""

import numpy as np

from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.workflows import generator_comparison
from tests.helpers import tiny_llama


def test_the_likelihood_is_of_images_of_all_classes_of_shards_that_hold_one_after_another():
    model = tiny_llama.masked()
    shape = 1, *model.grid
    rng = np.random.default_rng(0)
    shards = [
        CodeRecord(rng.integers(model.codebook_size, size=shape), i % model.num_classes, "", (8, 8))
        for i in range(10)
    ]
    found = generator_comparison.validation(
        model, generator_comparison.spread_records(shards, 3), 2, 0
    )
    assert found == generator_comparison.validation(model, [shards[i] for i in (0, 4, 9)], 2, 0)
    assert found != generator_comparison.validation(model, shards[:3], 2, 0)
