import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.training import train_state
from maskgil_jax.training.train_state import TrainState


def test_the_average_starts_near_the_weights_and_slows_down():
    zero, one = jnp.zeros(1), jnp.ones(1)
    first = train_state.average(zero, one, 0.999, jnp.array(0))
    late = train_state.average(zero, one, 0.999, jnp.array(10**6))
    np.testing.assert_allclose([first[0], late[0]], [0.9, 0.001], rtol=1e-3)


def state_of(value, step, skipped=(0, 0)):
    weights = {"a": jnp.full(2, value), "b": jnp.full(3, value)}
    return TrainState(
        step=jnp.int32(step),
        model=weights,
        optimizer=weights,
        ema=jnp.zeros(2),
        memory=jnp.float32(value),
        skipped=jnp.array(skipped, jnp.int32),
    )


def concluded(before, after, **metrics):
    metrics = {"loss": jnp.float32(1), "gradient_norm": jnp.float32(1)} | metrics
    return train_state.conclude(
        before, after, metrics, ema_decay=0.5, network=lambda model: model["a"]
    )


def test_a_step_averages_the_weights_and_ends_a_row_of_skipped_ones():
    before, after = state_of(1.0, 9, (5, 2)), state_of(2.0, 10)
    state, metrics = concluded(before, after)
    np.testing.assert_array_equal(state.ema, [1.0, 1.0])  # half way from 0 to 2
    np.testing.assert_array_equal(state.model["b"], after.model["b"])
    assert state.step == 10 and state.skipped.tolist() == [5, 0]
    assert metrics["skipped_steps"] == 5 and metrics["skipped_in_a_row"] == 0


@pytest.mark.parametrize("broken", ["loss", "gradient_norm"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(broken):
    before, after = state_of(1.0, 9, (5, 2)), state_of(jnp.nan, 10)
    state, metrics = concluded(before, after, **{broken: jnp.float32(jnp.inf)})
    for name in ("model", "optimizer", "ema", "memory"):
        same = jax.tree.map(np.array_equal, getattr(state, name), getattr(before, name))
        assert all(jax.tree.leaves(same)), name
    assert state.step == 10 and state.skipped.tolist() == [6, 3]
    assert metrics["skipped_steps"] == 6 and metrics["skipped_in_a_row"] == 3


def test_without_an_average_none_is_kept():
    before, after = (TrainState(jnp.int32(i), jnp.ones(2), None, None) for i in (0, 1))
    assert concluded(before, after)[0].ema is None
