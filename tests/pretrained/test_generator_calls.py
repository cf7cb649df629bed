"""How a Generator is called: seeds, steps, names of classes, room; and what repr says."""

import logging

import jax
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.decoding import masked_loop
from maskgil_jax.pretrained import checked_decoding
from maskgil_jax.pretrained.generators import make_generator
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_models

FAST = dict(steps=2, guidance=1.0)
NAMES = ("cat", "dog", "red fox", "tench")


@pytest.fixture(scope="module")
def generator():
    model = tiny_models.masked()
    return make_generator(model.network, class_names=NAMES)


def test_a_seed_by_name_is_the_same_as_rng(generator):
    expected = generator.sample([1, 2], 7, **FAST)
    np.testing.assert_array_equal(generator.sample([1, 2], seed=7, **FAST), expected)
    np.testing.assert_array_equal(generator.sample([1, 2], rng=jax.random.key(7), **FAST), expected)
    np.testing.assert_array_equal(generator.sample(["dog", 2], seed=7, **FAST), expected)


@pytest.mark.parametrize("make", [tiny_models.masked, tiny_models.causal])
def test_a_seed_is_asked_for_once(make):
    with pytest.raises(InputError, match="one of rng .* and seed is expected, none given"):
        make().sample([1])
    with pytest.raises(InputError, match="both given"):
        make().sample([1], 0, seed=0)
    with pytest.raises(InputError, match="seed = 'x', expected a whole number"):
        make().sample([1], seed="x")


def test_more_steps_than_masked_tokens_are_as_many_steps_and_said_once(generator, caplog):
    checked_decoding._say_fewer_steps.cache_clear()
    expected = generator.sample([1], 0, steps=6, guidance=1.0)
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        for _ in range(2):
            found = generator.sample([1], 0, steps=40, guidance=1.0)
    np.testing.assert_array_equal(found, expected)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["steps = 40, but 6 tokens are masked: they take 6 steps"]
    with pytest.raises(InputError, match="steps = 0, expected 1 to 6"):
        generator.sample([1], 0, steps=0)


def test_room_changes_no_image_and_saves_a_program(generator):
    codes = np.zeros((2, 2, 3), np.int32)
    few, more = codes.copy(), codes.copy()
    few[:, 0, 1:], more[:, 1] = generator.mask_id, generator.mask_id
    alone = [generator.sample([1, 2], 3, codes=c, **FAST) for c in (few, more)]
    before = masked_loop.sample_codes._cache_size()
    together = [generator.sample([1, 2], 3, codes=c, room=5, **FAST) for c in (few, more)]
    assert masked_loop.sample_codes._cache_size() == before + 1
    np.testing.assert_array_equal(together, alone)


def test_repr_says_size_kind_condition_and_grid(generator, tmp_path):
    assert repr(generator).startswith("Generator(")
    for part in ("k parameters", "masked", "4 classes", "2 x 3 tokens of 16 codes"):
        assert part in repr(generator)
    tokenizer = tiny_models.tokenizer()
    assert "16 codes, a token for 2 x 2 pixels" in repr(tokenizer)
    tokenizer.save(tmp_path / "t")
    assert f"from {tmp_path}/t" in repr(maskgil_jax.load_tokenizer(tmp_path / "t"))
    with pytest.raises(InputError, match="holds a tokenizer, expected a generator"):
        maskgil_jax.load_generator(tmp_path / "t")


def test_the_package_says_what_it_has():
    assert maskgil_jax.__version__[0].isdigit()
    for name in maskgil_jax.__all__:
        assert getattr(maskgil_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskgil_jax.nothing  # noqa: B018
