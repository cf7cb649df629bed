"""What samplers are made of: conditions on one device or on several."""

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.generation import placing, samplers
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.runtime import sharding
from tests.helpers import tiny_gemma

TEXTS = [f"a red square, number {i}" for i in range(8)]


def test_an_encoder_on_one_device_serves_a_generator_on_all():
    """As when images of texts are measured; test_speech.py measures those of speech."""
    encoder, labels = tiny_gemma.encoder(), np.arange(8)

    def conditions(labels):
        return encoder.features([TEXTS[label] for label in labels], 12)

    with jax.set_mesh(sharding.local_mesh()):
        split = placing.split_over_devices(conditions)(labels)
    for found, expected in zip(split, conditions(labels), strict=True):
        assert len(found.sharding.device_set) == 8
        np.testing.assert_array_equal(found, expected)


def test_conditions_are_computed_once_as_long_as_they_may_be_kept():
    asked = []

    def conditions(labels):
        asked.append(labels.tolist())
        return Features(jnp.ones((len(labels), 2, 3)) * labels[:, None, None], jnp.ones((2, 2)))

    kept = samplers.kept(conditions, most=150)
    for labels in ([1, 2], [1, 2], [2, 1], [3, 3], [3, 3], [1, 2]):
        found = kept(np.array(labels))
        np.testing.assert_array_equal(found[0][:, 0, 0], labels)
    assert asked == [[1, 2], [2, 1], [3, 3], [3, 3]]  # 64 bytes each
