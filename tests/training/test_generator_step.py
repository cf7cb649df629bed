import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.pretrained import presets
from maskgil_jax.training import generator_step
from tests.helpers import tiny

pytestmark = pytest.mark.gpu

FEATURES = dict(feature_dim=8, condition_tokens=3)


def losses_of_a_step(conditions, model=(), **loss):
    """On the same codes with each of these conditions."""
    causal = dict(model).get("preset") == "llamagen"
    config = tiny.causal_generator("") if causal else tiny.generator()
    config.model.update(dict(model))
    config.loss.update(loss)
    network = presets.network_config(config.model, 64, (4, 4), config.loss)
    state = generator_step.init(config, network, None)
    noisy = jax.tree.map(  # a fresh head is zero
        lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), state.model
    )
    state = dataclasses.replace(state, model=noisy)
    codes = jnp.array(np.random.default_rng(0).integers(0, 64, (8, 4, 4)))
    step = jax.jit(
        lambda batch: generator_step.step(state, generator_step.Frozen(), batch, config)[1]["loss"]
    )
    return [float(step({"codes": codes} | condition)) for condition in conditions]


def features(seed):
    values = np.random.default_rng(seed).standard_normal((8, 3, 8)).astype(np.float32)
    return {"features": jnp.asarray(values), "mask": jnp.ones((8, 3), bool)}


@pytest.mark.parametrize(
    "conditions, model",
    [
        ([{"label": jnp.full(8, i)} for i in (0, 1)], {}),
        ([features(i) for i in (0, 1)], FEATURES),
        ([features(i) for i in (0, 1)], FEATURES | dict(preset="llamagen")),
    ],
)
def test_the_condition_is_dropped_inside_the_step(conditions, model):
    kept = losses_of_a_step(conditions, model, condition_dropout=0.0)
    dropped = losses_of_a_step(conditions, model, condition_dropout=1.0)
    assert abs(kept[0] - kept[1]) > 1e-5
    assert dropped[0] == dropped[1] and dropped[0] not in kept


def test_padding_of_features_changes_nothing():
    whole = features(0)
    padded = whole | {"mask": whole["mask"].at[:, 0].set(False)}
    other = padded | {"features": whole["features"].at[:, 0].set(9.0)}
    losses = losses_of_a_step([whole, padded, other], FEATURES, condition_dropout=0.0)
    assert losses[0] != losses[1] == losses[2]
