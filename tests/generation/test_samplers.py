"""What samplers are made of: conditions on one device or on several."""

import jax
import numpy as np

from maskgil_jax.generation import samplers
from maskgil_jax.runtime import sharding
from tests.helpers import tiny_gemma

TEXTS = [f"a red square, number {i}" for i in range(8)]


def test_an_encoder_on_one_device_serves_a_generator_on_all():
    """As when images of texts are measured; test_speech.py measures those of speech."""
    encoder, labels = tiny_gemma.encoder(), np.arange(8)

    def conditions(labels):
        return encoder.features([TEXTS[label] for label in labels], 12)

    with jax.set_mesh(sharding.local_mesh()):
        split = samplers.split_over_devices(conditions, sharding.local_mesh())(labels)
    for found, expected in zip(split, conditions(labels), strict=True):
        assert len(found.sharding.device_set) == 8
        np.testing.assert_array_equal(found, expected)
