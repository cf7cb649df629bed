"""The loss of a model of text and image tokens, against sums over the logits of whole sequences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.config import lumina_generator
from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.models.token_models.conditions import Text
from maskgil_jax.pretrained import prompts
from maskgil_jax.training.sequence_loss import sequence_loss, sequences_of
from tests.helpers import tiny_lumina

GRID = (4, 6)
PROMPTS = ["red apple", "pear", "a green pear"]
Z = 0.01


@pytest.fixture(scope="module")
def model():
    return tiny_lumina.generator()


@pytest.fixture(scope="module")
def codes():
    return np.random.default_rng(0).integers(0, 8192, (3, *GRID))


def examples_of(model, codes, length=128, condition_dropout=0.0):
    settings = lumina_generator("7B").loss
    settings.condition_dropout = condition_dropout
    condition = Text(
        *map(
            jnp.asarray,
            prompts.batch(model.ids(PROMPTS, GRID), lumina_sequence.opening(GRID), length),
        )
    )
    return sequences_of(model.network, jnp.asarray(codes), condition, jax.random.key(0), settings)


def reference(model, sequences):
    """Mean cross-entropy and z-loss of ids of answers; `sequences`: ids, and where these start."""
    losses, squares = [], []
    for ids, start in sequences:
        logits = np.asarray(model.token_logits(ids[None]))[0].astype(np.float64)
        log_z = np.log(np.exp(logits).sum(axis=1))
        places = np.arange(start, len(ids))
        losses += list(log_z[places - 1] - logits[places - 1, ids[places]])
        squares += list(log_z[places - 1] ** 2)
    return np.mean(losses) + Z * np.mean(squares)


def with_prompts(model, codes):
    """As the official data has them: the prompt, the answer, and the end of the turn."""
    for row, answer in zip(model.ids(PROMPTS, GRID), lumina_sequence.answer(codes), strict=True):
        yield np.array([*row, *answer, lumina_sequence.END_OF_TURN]), len(row)


@pytest.mark.parametrize("chunk", [7, 64])
def test_the_whole_answer_is_predicted(chunk, model, codes):
    examples = examples_of(model, codes)
    loss, sums = sequence_loss(model.network, examples, None, z_loss_weight=Z, chunk=chunk)
    np.testing.assert_allclose(loss, reference(model, with_prompts(model, codes)), rtol=1e-5)
    assert examples["masked"].sum() == 3 * (lumina_sequence.answer_length(GRID) + 1)
    assert 0 <= sums["correct"] < 3


def test_without_its_prompt_an_image_is_a_sequence_of_its_own(model, codes):
    examples = examples_of(model, codes, condition_dropout=1.0)
    loss, _ = sequence_loss(model.network, examples, None, z_loss_weight=Z, chunk=64)
    alone = [(answer, 1) for answer in lumina_sequence.answer(codes)]
    np.testing.assert_allclose(loss, reference(model, alone), rtol=1e-5)


def test_padding_changes_nothing(model, codes):
    of = functools.partial(sequence_loss, key=None, z_loss_weight=Z, chunk=64)
    losses = [of(model.network, examples_of(model, codes, length))[0] for length in (100, 256)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_micro_batches_add_up_to_the_batch(model, codes):
    examples = examples_of(model, codes, condition_dropout=0.5)
    of = functools.partial(sequence_loss, key=None, z_loss_weight=Z, chunk=64)
    parts = [
        of(model.network, jax.tree.map(lambda x, i=i: x[i : i + 1], examples))[0] for i in range(3)
    ]
    np.testing.assert_allclose(sum(parts), of(model.network, examples)[0], rtol=1e-6)


def test_ids_that_are_predicted_right_are_counted(model):
    """Those of a greedy image among them."""
    drawn = model.sample(PROMPTS, 0, grid=GRID, guidance=1.0, temperature=0.0, top_k=0)
    right = 0
    for ids, start in with_prompts(model, np.asarray(drawn)):
        best = np.asarray(model.token_logits(ids[None]))[0].argmax(axis=1)
        right += (best[start - 1 : -1] == ids[start:]).sum()
    _, sums = sequence_loss(
        model.network, examples_of(model, drawn), None, z_loss_weight=0.0, chunk=64
    )
    assert sums["correct"] == right > 3
