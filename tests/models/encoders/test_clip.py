"""Parity with transformers is tested where its files are read, in tests/interop/test_clip.py."""

import dataclasses

import jax
import numpy as np
import pytest

from maskgil_jax.models.encoders.clip import Clip, ClipConfig
from tests.helpers import random_weights
from tests.helpers.layouts import pieces_of

TINY = ClipConfig(
    width=8,
    image_size=8,
    patch_size=4,
    image_dim=16,
    image_layers=2,
    image_heads=4,
    image_mlp_dim=24,
    text_dim=16,
    text_layers=1,
    text_heads=2,
    text_mlp_dim=16,
    vocabulary=20,
    text_positions=6,
    text_end=19,
)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(patch_size=3), "image_size = 8 is no multiple of patch_size = 3"),
        (dict(text_heads=3), "text_dim = 16 is no multiple of text_heads = 3"),
        (dict(image_layers=0), "image_layers = 0, expected 1 or more"),
        (dict(text_end=20), "text_end = 20, expected 0 .. 19"),
        (dict(activation="relu"), "activation = 'relu', expected one of"),
        (dict(mean=(0.5,)), "mean = .0.5,., expected 3 numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_nothing_behind_the_end_of_a_text_counts():
    network = random_weights.network(lambda: Clip(TINY, jax.random.key(0)))
    ids_BT = np.array([[1, 2, 19, 19, 19, 19], [1, 2, 19, 3, 4, 19], [1, 3, 19, 19, 19, 19]])
    found = np.asarray(jax.jit(Clip.text_embeddings)(network, ids_BT))
    assert found.shape == (3, 8)
    np.testing.assert_array_equal(found[0], found[1])
    assert abs(found[0] - found[2]).max() > 1e-3


def test_layers_and_tables_are_split_over_the_mesh():
    shapes = jax.eval_shape(lambda: Clip(TINY, jax.random.key(0)))
    for name, split in pieces_of(shapes).items():
        if "blocks/" in name and name.endswith(("query", "key_value", "out", "up", "down")):
            assert split == 4, name
        if name.endswith(("embedding", "head")):
            assert split == 2, name
