"""Likelihood of codes under generators."""

import numpy as np
import pytest

from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.evaluation import likelihood
from tests.helpers import tiny_llama

CODES = np.random.default_rng(0).integers(0, 20, (7, 3, 4))
CLASSES = np.array([0, 1, 2, 3, 4, 0, 1])


def test_the_likelihood_is_of_images_of_all_classes_of_shards_that_hold_one_after_another():
    model = tiny_llama.masked()
    shape = 1, *model.grid
    rng = np.random.default_rng(0)
    shards = [
        CodeRecord(rng.integers(model.codebook_size, size=shape), i % model.num_classes, "", (8, 8))
        for i in range(10)
    ]
    of_three = likelihood.validation(model, likelihood.spread_records(shards, 3), 2, 0)
    assert of_three == likelihood.validation(model, [shards[i] for i in (0, 4, 9)], 2, 0)
    assert of_three != likelihood.validation(model, shards[:3], 2, 0)


@pytest.mark.parametrize("make", [tiny_llama.masked, tiny_llama.causal])
def test_the_losses_of_images_do_not_depend_on_their_batch(make):
    generator = make()
    losses = [
        likelihood.mean_losses(generator, CODES, CLASSES, rounds=2, batch_size=size, seed=0)
        for size in (7, 3)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert len(set(losses[0].round(6))) == len(CODES)
