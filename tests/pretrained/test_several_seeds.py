"""Images of several seeds in one batch, and the codes after each step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import tiny_llama, tiny_lumina

LABELS, SEEDS, INDICES = np.array([0, 4, 4]), (3, 9, 3), np.array([0, 2, 5], np.int32)
KEYS = jnp.stack([jax.random.key(seed) for seed in SEEDS])


@pytest.mark.parametrize(
    ("model", "conditions", "options"),
    [
        (tiny_llama.masked, LABELS, dict(steps=3)),
        (tiny_llama.causal, LABELS, {}),
        (tiny_lumina.generator, ["pear", "red apple " * 40, "pear"], dict(grid=(4, 6), top_k=50)),
    ],
    ids=["masked", "causal", "prompted"],
)
def test_each_image_is_that_of_its_own_seed_and_index(model, conditions, options):
    generator = model()
    together = np.asarray(generator.sample(conditions, KEYS, start=INDICES, **options))
    for i, (seed, index) in enumerate(zip(SEEDS, INDICES, strict=True)):
        alone = generator.sample(conditions[i : i + 1], seed, start=int(index), **options)
        np.testing.assert_array_equal(together[i], np.asarray(alone)[0])


def test_history_is_what_is_revealed_step_by_step():
    generator = tiny_llama.masked()
    steps = np.asarray(generator.sample(LABELS, 3, steps=3, history=True))
    assert steps.shape == (3, 3, 3, 4)
    np.testing.assert_array_equal(steps[-1], generator.sample(LABELS, 3, steps=3))
    masked = steps == generator.mask_id
    left = masked.sum(axis=(2, 3))
    assert (np.diff(left, axis=0) < 0).all() and (left[-1] == 0).all() and (left[0] < 12).all()
    for before, after, unknown in zip(steps, steps[1:], masked, strict=False):
        np.testing.assert_array_equal(after[~unknown], before[~unknown])
    np.testing.assert_array_equal(
        generator.sample(LABELS, 3, codes=steps[-1], history=True), steps[-1:]
    )
