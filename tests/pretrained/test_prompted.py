"""Drawing from prompts, by a model of text and image tokens in one sequence."""

import copy

import jax
import numpy as np
import pytest

from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from tests.helpers import golden, tiny_lumina

GRID = (4, 6)
LONG = "red apple " * 40  # several hundred tokens: padded to more than the others
PROMPTS = ["red apple", "pear", LONG]
OPTIONS = dict(grid=GRID, guidance=3.0, top_k=50, temperature=0.7)


@pytest.fixture(scope="module")
def model():
    return tiny_lumina.generator()


@pytest.fixture(scope="module")
def drawn(model):
    return np.asarray(model.sample(PROMPTS, 7, **OPTIONS))


def test_an_image_depends_on_its_prompt_and_its_index_alone(model, drawn):
    assert drawn.shape == (3, *GRID) and 0 <= drawn.min() <= drawn.max() < 8192
    alone = [np.asarray(model.sample([PROMPTS[i]], 7, start=i, **OPTIONS))[0] for i in (1, 2)]
    np.testing.assert_array_equal(drawn[1:], alone)
    assert len(np.unique(np.concatenate([drawn, model.sample(PROMPTS, 8, **OPTIONS)]), axis=0)) == 6


def test_texts_are_their_ids(model, drawn):
    ids = [np.array(row) for row in model.ids(PROMPTS, GRID)]
    assert ids[0][0] == 0 and ids[0][-1] == 8710
    np.testing.assert_array_equal(model.sample(ids, 7, **OPTIONS), drawn)


def test_the_first_tokens_are_those_of_the_whole(model, drawn):
    part = np.asarray(model.sample(PROMPTS, 7, tokens=13, **OPTIONS)).reshape(3, 24)
    np.testing.assert_array_equal(part[:, :13], drawn.reshape(3, 24)[:, :13])
    assert (part[:, 13:] == model.mask_id).all()
    nothing = np.asarray(model.sample(PROMPTS, 7, tokens=0, **OPTIONS))
    assert (nothing == model.mask_id).all()


def test_codes_are_drawn_from_the_logits_of_the_whole_sequences(model):
    """Greedy codes with guidance are the best of two full passes, whose prompts have no padding."""
    (ids,), scale = model.ids(["pear"], GRID), 3.0
    codes = np.asarray(model.sample(["pear"], 0, grid=GRID, guidance=scale, temperature=0.0))
    answer = lumina_sequence.answer(codes)[0]
    with_prompt = np.asarray(model.token_logits([[*ids, *answer]]))[0, len(ids) :]
    alone = np.asarray(model.token_logits(answer[None]))[0]
    guided = alone + scale * (with_prompt - alone)
    places = np.flatnonzero((answer >= 4) & (answer < 8196))
    best = guided[places - 1, 4:8196].argmax(axis=1)
    np.testing.assert_array_equal(codes.ravel(), best)
    logits = model.logits(codes, ["pear"])[0]
    np.testing.assert_allclose(logits, with_prompt[places - 1, 4:8196], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_negative_prompt_takes_the_place_of_none(model):
    same = model.sample(["pear"], 0, negative=["pear"], **OPTIONS)
    plain = model.sample(["pear"], 0, **OPTIONS | dict(guidance=1.0))
    np.testing.assert_array_equal(same, plain)
    assert (np.asarray(model.sample(["pear"], 0, **OPTIONS)) != np.asarray(plain)).any()


@pytest.mark.parametrize("name", ["skeleton_512x512", "skeleton_384x672", "skeleton_96x64"])
def test_answers_are_the_official_ones(name):
    width, height = (int(side) // 16 for side in name.removeprefix("skeleton_").split("x"))
    expected = golden.arrays("lumina_mgpt_sampling")[name]
    codes = np.arange(height * width).reshape(1, height, width) % 8192
    (found,) = lumina_sequence.answer(codes)
    np.testing.assert_array_equal(np.where(expected < 0, -1, found), expected)
    np.testing.assert_array_equal(found[expected < 0], codes.ravel() + 4)
    assert len(found) == lumina_sequence.answer_length((height, width))


@pytest.mark.slow
@pytest.mark.parametrize("axes", [dict(data=4, tensor=2), dict(data=1, fsdp=2, tensor=4)])
def test_several_devices_draw_the_same(axes, model, drawn):
    """The batch is split over 4 devices; heads and hidden units over the others."""
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1) | axes)
    spread = copy.copy(model)
    layout = sharding.state_shardings(model.network, mesh)
    spread.network = jax.device_put(model.network, layout)
    prompts = [*PROMPTS[:2]] * 4
    codes = spread.sample(prompts, 7, **OPTIONS)
    assert len(codes.sharding.device_set) == 8
    np.testing.assert_array_equal(codes, model.sample(prompts, 7, **OPTIONS))
    np.testing.assert_array_equal(codes[:2], drawn[:2])


@pytest.mark.parametrize(
    "prompts, options, message",
    [
        (["a"], dict(grid=(4, 5)), "grid = .4, 5., expected even sides of 2 to 128 tokens"),
        (["<eoss>"], {}, "prompt '<eoss>' becomes the sign '<eoss>', which is no text"),
        ([[[1]]], {}, "prompt 0 is int64 .1, 1., expected a text or integer ids"),
        ([[1], [9300]], {}, "prompt 1 has ids from 9300 to 9300, expected 0 to 9299"),
        ("a", {}, "prompts are one text 'a', expected a list"),
        ([], {}, "there are no prompts"),
        ([[5] * 4090], {}, "prompt 0 has 4090 tokens, expected at most 4050: an image of 6 x 6"),
        (["a"], dict(tokens=40), "tokens = 40, expected 0 to 36"),
        (["a"], dict(negative=["b", "c"]), "2 negative prompts for 1 prompts"),
        (["a"], dict(steps=3), "steps"),
    ],
)
def test_bad_input_is_named(prompts, options, message, model):
    with pytest.raises(InputError, match=message):
        model.sample(prompts, 0, **options)


def test_without_its_vocabulary_a_model_takes_ids(model):
    bare = copy.copy(model)
    bare.beside = {}
    with pytest.raises(InputError, match="no tokenizer.json.*Lumina-mGPT-7B-768"):
        bare.sample(["pear"], 0)
    with pytest.raises(InputError, match="ids from 0 to 9300, expected 0 to 9299"):
        bare.token_logits([[0, 9300]])
