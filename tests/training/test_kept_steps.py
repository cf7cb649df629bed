"""Which checkpoints stay."""

import pytest
from ml_collections import ConfigDict

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.kept_steps import kept_steps


def kept(examples=100, **changes):
    known = dict(steps=30, batch_size=16, keep_every=0, keep_every_epochs=0.0, keep_steps=())
    return sorted(kept_steps(ConfigDict(known | changes), examples))


def test_checkpoints_are_kept_by_steps_by_epochs_and_by_name():
    assert kept() == []
    assert kept(keep_every=8) == [8, 16, 24]
    assert kept(keep_every_epochs=2.0) == [12, 25]  # of 6.25 steps each
    assert kept(keep_every_epochs=0.5) == [3, 6, 9, 12, 15, 18, 21, 25, 28]
    assert kept(keep_steps=(7, 30, 31), keep_every=15) == [7, 15, 30]


def test_epochs_shorter_than_a_step_end_at_every_step():
    assert kept(examples=4, keep_every_epochs=1.0, steps=3) == [1, 2, 3]
    assert kept(keep_every_epochs=1e-12, steps=3) == [1, 2, 3]


def test_what_is_no_step_is_refused():
    for wrong in ((0,), (2.5,), ("a",)):
        with pytest.raises(InputError, match="config.keep_steps"):
            kept(keep_steps=wrong)
