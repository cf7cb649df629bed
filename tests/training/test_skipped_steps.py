"""Advice where training stopped on losses that are not finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.training import skipped_steps


def test_the_norm_of_huge_weights_is_finite():
    model = {"a": jnp.full((3, 4), 1e30), "b": jnp.full(4, -1e30), "n": jnp.arange(3)}
    np.testing.assert_allclose(skipped_steps.weight_norm(model), 4e30, rtol=1e-6)
    np.testing.assert_allclose(
        skipped_steps.weight_norm({"a": jnp.arange(4.0)}), 14**0.5, rtol=1e-6
    )
    assert float(skipped_steps.weight_norm({"a": jnp.zeros(3)})) == 0
    assert not np.isfinite(skipped_steps.weight_norm({"a": jnp.array([1.0, jnp.inf])}))
    assert not np.isfinite(skipped_steps.weight_norm({"a": jnp.array([1.0, jnp.nan])}))


def test_after_weights_that_were_sound_the_newest_checkpoint_is_named():
    text = skipped_steps.advice(12.0, 10_000, 6, {4: 11.0, 6: 12.0})
    assert text == (
        "The weights have norm 12; the newest checkpoint is of step 6, whose weights have norm 12 "
        "(a lower learning rate may help)."
    )


@pytest.mark.parametrize("now, newest", [(1e33, 1e33), (1e33, 12.0), (12.0, 1e33), (np.nan, 1e33)])
def test_after_weights_that_were_not_nobody_is_sent_to_them(now, newest):
    text = skipped_steps.advice(now, 10_000, 6, {4: 11.0, 6: newest})
    assert "Start again in another work directory, with a smaller --config.optimizer" in text
    assert f"norm {now:.3g}" in text and f"norm {newest:.3g}" in text
    assert ("do not go on from it" in text) == (newest > 100)
    assert f"that of step {6 if newest == 12.0 else 4} is sound" in text
    text = skipped_steps.advice(now, 10_000, 6, {6: 1e33})
    assert "none that is kept is from before (--config.keep_every=N keeps more)" in text
    assert "No checkpoint was saved. Start again" in skipped_steps.advice(1e33, 10_000, 0, {})
