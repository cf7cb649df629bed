import jax
import numpy as np
from flax import nnx

from maskgil_jax.models import parameter_keys


def test_layers_are_drawn_as_with_the_keys_of_flax():
    def build(rngs):
        layers = [nnx.Linear(3, 4, rngs=rngs), nnx.Conv(2, 3, (3, 3), rngs=rngs)]
        return jax.tree.leaves(layers) + [jax.random.key_data(rngs.params())]

    key = jax.random.key(3)
    for ours, flax in zip(build(parameter_keys.rngs(key)), build(nnx.Rngs(key)), strict=True):
        np.testing.assert_array_equal(ours, flax)
