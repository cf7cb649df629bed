"""Drawing from prompts, by a masked model of text and image tokens in one sequence."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import masked_loop
from maskgil_jax.models.token_models import dimoo_sequence, kept_tokens
from maskgil_jax.models.token_models.conditions import Text
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_dimoo

GRID = (4, 6)
LONG = "red apple " * 40  # several hundred tokens: padded to more than the others
PROMPTS = ["red apple", "pear", LONG]
OPTIONS = dict(grid=GRID, guidance=2.0, steps=4, temperature=0.7)


@pytest.fixture(scope="module")
def model():
    return tiny_dimoo.generator()


@pytest.fixture(scope="module")
def drawn(model):
    return np.asarray(model.sample(PROMPTS, 7, **OPTIONS))


def test_an_image_depends_on_its_prompt_and_its_index_alone(model, drawn):
    """Alone, in a batch of three of two lengths, and in one of eight."""
    assert drawn.shape == (3, *GRID) and 0 <= drawn.min() <= drawn.max() < 8192
    alone = [np.asarray(model.sample([PROMPTS[i]], 7, start=i, **OPTIONS))[0] for i in (1, 2)]
    np.testing.assert_array_equal(drawn[1:], alone)
    eight = model.sample([*PROMPTS[:2], *["green pear"] * 6], 7, **OPTIONS)
    np.testing.assert_array_equal(eight[:2], drawn[:2])
    assert len(np.unique(np.concatenate([eight[2:], drawn]), axis=0)) == 9


def test_one_compilation_draws_all_prompts_of_a_size(model, drawn):
    before = masked_loop.sample_codes._cache_size()
    model.sample(["green pear"], 8, start=5, **OPTIONS)
    assert masked_loop.sample_codes._cache_size() == before


def test_texts_are_their_ids_and_no_prompt_is_one(model, drawn):
    ids = [np.array(row) for row in model.ids(PROMPTS, GRID)]
    none = model.null_condition(1)
    none_ids = np.asarray(none.ids_BT)[np.asarray(none.mask_BT)]
    assert none_ids[-2:].tolist() == dimoo_sequence.opening(GRID)
    assert (none_ids == dimoo_sequence.UNCONDITION).sum() == 1
    negative = [none_ids[:-2]] * 3
    np.testing.assert_array_equal(model.sample(ids, 7, negative=negative, **OPTIONS), drawn)
    bare = copy.copy(model)
    bare.beside = {}
    np.testing.assert_array_equal(bare.sample(ids, 7, negative=negative, **OPTIONS), drawn)
    with pytest.raises(InputError, match="no tokenizer.json, which has the ids of no prompt"):
        bare.sample(ids, 7, **OPTIONS)
    with pytest.raises(InputError, match="no tokenizer.json.*Lumina-DiMOO"):
        bare.sample(["pear"], 7, **OPTIONS)
    bare.sample(ids[1:2], 7, grid=GRID, guidance=0.0, steps=4)


def test_codes_are_drawn_from_the_logits_of_the_whole_sequences(model):
    """In one greedy step they are the best of two full passes, whose prompts have no padding."""
    (ids,), w = model.ids(["pear"], GRID), 3.0
    codes = model.sample(["pear"], 0, grid=GRID, guidance=w, steps=1, temperature=0.0)
    answer = dimoo_sequence.answer(np.full((1, *GRID), 8192))[0]
    none = model._none(1, GRID)[0]
    c, u = (np.asarray(model.token_logits([[*row, *answer]]))[0, len(row) :] for row in (ids, none))
    places = np.flatnonzero(answer == dimoo_sequence.MASK)
    best = ((1 + w) * c - w * u)[places, dimoo_sequence.FIRST_CODE :].argmax(axis=1)
    np.testing.assert_array_equal(np.asarray(codes).ravel(), best)
    logits = model.logits(np.full((1, *GRID), 8192), ["pear"])[0]
    expected = c[places, dimoo_sequence.FIRST_CODE :]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


CACHE = OPTIONS | dict(steps=12, cache_ratio=0.8)


@pytest.mark.slow
def test_a_cache_changes_some_codes_and_none_where_all_tokens_run(model):
    """An image with it does not depend on its batch either."""
    plain = np.asarray(model.sample(PROMPTS[:2], 7, **OPTIONS | dict(steps=12)))
    np.testing.assert_array_equal(model.sample(PROMPTS[:2], 7, **CACHE, cache_refresh=1), plain)
    cached = np.asarray(model.sample(PROMPTS[:2], 7, **CACHE))
    assert (cached != plain).any() and (cached < 8192).all()
    np.testing.assert_array_equal(model.sample(PROMPTS[1:2], 7, start=1, **CACHE)[0], cached[1])


def test_a_cached_step_is_a_share_of_the_work(model):
    """Counted in the compiled steps: a tenth of the products with weights, and of attention."""
    network, (B, T) = model.network, (2, 1024)
    text = Text(jnp.zeros((B, T), jnp.int32), jnp.ones((B, T), bool))
    kept = jax.eval_shape(functools.partial(kept_tokens.nothing, network, B, T))

    def flops(step, *given):
        def on_text(network, text, *given):
            return step(network, kept_tokens.of_text(network, text), *given)

        return jax.jit(on_text).lower(network, text, *given).compile().cost_analysis()["flops"]

    every = flops(kept_tokens.everything)
    some = flops(functools.partial(kept_tokens.renewed, share=0.1), kept)
    assert 0.09 < some / every < 0.13


def test_known_codes_stay(model):
    known = np.full((2, *GRID), 8192)
    known[:, :2] = 5
    codes = np.asarray(model.sample(PROMPTS[:2], 7, codes=known, guidance=1.0, steps=3))
    assert (codes[:, :2] == 5).all() and (codes[:, 2:] < 8192).all()
    np.testing.assert_array_equal(model.sample(PROMPTS[:2], 7, codes=codes), codes)


def test_there_may_be_more_steps_than_tokens(model):
    """As the official loop, whose default of 64 is for large images."""
    greedy = dict(grid=(1, 2), guidance=1.0, temperature=0.0)
    two = model.sample(["pear"], 0, steps=2, **greedy)
    np.testing.assert_array_equal(model.sample(["pear"], 0, **greedy), two)


def spread_over(model, **axes):
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1) | axes)
    spread = copy.copy(model)
    layout = sharding.state_shardings(model.network, mesh)
    spread.network = jax.device_put(model.network, layout)
    return spread


@pytest.mark.slow
def test_several_devices_draw_the_same(model, drawn):
    """The batch is split over 8 devices."""
    codes = spread_over(model, data=8).sample([*PROMPTS[:2]] * 4, 7, **OPTIONS)
    assert len(codes.sharding.device_set) == 8
    np.testing.assert_array_equal(codes[:2], drawn[:2])


@pytest.mark.slow
def test_devices_that_share_the_weights_differ_by_rounding(model):
    """Heads and hidden units are split, whose sums are then made in another order."""
    spread, prompts = spread_over(model, data=4, tensor=2), [*PROMPTS[:2]] * 4
    codes = np.full((8, *GRID), 8192)
    logits = np.asarray(spread.logits(codes, prompts))
    np.testing.assert_allclose(logits, model.logits(codes, prompts), rtol=0, atol=1e-4)
    greedy = OPTIONS | dict(temperature=0.0)
    found = spread.sample(prompts, 7, **greedy)
    assert len(found.sharding.device_set) == 8
    np.testing.assert_array_equal(found, model.sample(prompts, 7, **greedy))


@pytest.mark.parametrize(
    "prompts, options, message",
    [
        (["<uncondition>"], {}, "becomes the sign '<uncondition>', which is no text"),
        ([[[1]]], {}, "prompt 0 is int64 .1, 1., expected a text or integer ids"),
        ([[1], [134548]], {}, "prompt 1 has ids from 134548 to 134548, expected 0 to 134547"),
        ("a", {}, "prompts are one text 'a', expected a list"),
        ([[5] * 4090], {}, "prompt 0 has 4090 tokens, expected at most 4050: an image of 6 x 6"),
        (["a"], dict(steps=0), "steps = 0, expected 1 to 36"),
        (["a"], dict(steps=2, negative=["b", "c"]), "2 negative prompts for 1 prompts"),
        (["a"], dict(tokens=3), "tokens"),
        (["a"], dict(steps=2, cache_ratio=1.0), "cache_ratio = 1.0, expected 0 or more, below 1"),
        (["a"], dict(steps=2, cache_refresh=0), "cache_refresh = 0, expected 1 or more"),
        (
            ["a"],
            dict(steps=2, cache_ratio=0.9, guidance_ramp="linear"),
            "guidance_ramp = 'linear' with cache_ratio = 0.9, expected 'constant'",
        ),
        (["a"], dict(steps=2, temperature=-1.0), "temperature = -1.0, expected a positive"),
    ],
)
def test_bad_input_is_named(prompts, options, message, model):
    with pytest.raises(InputError, match=message):
        model.sample(prompts, 0, **options)
