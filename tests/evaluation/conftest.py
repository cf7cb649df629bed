"""Two files of images, and a network to compare them by."""

import jax
import numpy as np
import pytest

from maskgil_jax.models.perceptual.inception import Inception, InceptionConfig
from maskgil_jax.pretrained import loading
from tests.helpers.image_pairs import NOISY, ORIGINALS


@pytest.fixture
def pair(tmp_path):
    """Two files of images."""
    for name, array in (("a", NOISY), ("b", ORIGINALS)):
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
    return tmp_path / "a.npz", tmp_path / "b.npz"


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A network with random weights, and its directory."""
    rng = np.random.default_rng(0)

    def random_weights(like):
        gain = 1.4 / np.sqrt(np.prod(like.shape[:-1]))
        noise = rng.standard_normal(like.shape, np.float32)
        return gain.astype(np.float32) * noise if len(like.shape) > 1 else 1 + 0.1 * abs(noise)

    like = jax.eval_shape(lambda: Inception(InceptionConfig(), jax.random.key(0)))
    network = jax.tree.map(random_weights, like)
    directory = tmp_path_factory.mktemp("inception") / "model"
    loading.Auxiliary(network).save(directory)
    return network, str(directory)
