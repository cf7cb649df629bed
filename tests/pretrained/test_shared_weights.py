"""Models that several devices share, for those that are too large for one."""

import jax
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.runtime import sharding
from tests.helpers import tiny_llama

KINDS = {
    "masked": lambda: tiny_llama.masked(),
    "causal": lambda: tiny_llama.causal(),
    "features": lambda: tiny_llama.masked(num_classes=0, feature_dim=7, condition_tokens=2),
}
FAST = {"causal": dict(guidance=2.0), "masked": dict(steps=2), "features": dict(steps=2)}


def condition(kind):
    """Of three images; features lie on the first device, as an encoder leaves them."""
    if kind != "features":
        return tiny_llama.LABELS
    values = np.random.default_rng(0).standard_normal((3, 2, 7)).astype(np.float32)
    return jax.device_put(Features(values, np.ones((3, 2), bool)), jax.local_devices()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_they_draw_and_predict_what_one_device_does(kind, tmp_path):
    alone = KINDS[kind]()
    alone.save(tmp_path / "model")
    shared = maskgil_jax.load(tmp_path / "model", tensor=2)
    given = condition(kind)
    np.testing.assert_array_equal(
        shared.sample(given, 3, **FAST[kind]), alone.sample(given, 3, **FAST[kind])
    )
    codes = np.random.default_rng(0).integers(0, 20, (3, 3, 4))
    np.testing.assert_allclose(
        shared.logits(codes, given), alone.logits(codes, given), rtol=0, atol=1e-4
    )


def test_kernels_are_split_by_the_mesh_of_the_devices_that_share_weights():
    """Where each device has them all, nothing is set."""
    weights = np.zeros((4, 4), np.float32)
    shared, everywhere = sharding.tensor_mesh(2), sharding.local_mesh()
    for mesh, tensor in ((shared, 2), (everywhere, None)):
        placed = jax.device_put(weights, sharding.replicated(mesh))
        with sharding.where_shared([placed]):
            assert jax.sharding.get_abstract_mesh().shape.get("tensor") == tensor
    with sharding.where_shared([jax.numpy.asarray(weights)]):
        assert jax.sharding.get_abstract_mesh().empty
