"""Passes of the network are counted where they are run."""

import logging
import re

import jax
import numpy as np
import pytest

from maskgil_jax.generation import samplers, sampling
from maskgil_jax.generation.options import Companions, Decoding, SampleOptions
from maskgil_jax.generation.passes import PassCount
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime.command import Processes
from tests.helpers.tiny import SMALL_VQ
from tests.helpers.tiny_llama import causal, masked

LABELS = np.arange(6) % 5

ADAPTIVE = dict(rule="entropy", schedule="uniform", steps=6, entropy_budget=2.0)


def counted(generator, **options):
    """The codes of the labels, and what was counted."""
    count = PassCount()
    codes = samplers.sampler(generator, 0, passes=count, **options)(LABELS, 0)
    return np.asarray(codes), count


def test_a_guided_step_is_two():
    _, count = counted(masked(), steps=4)  # the ramp leaves the first without guidance
    assert (count.images, count.per_image, count.needed_per_image) == (6, 7, 7)
    _, count = counted(masked(), steps=4, guidance_to=0.5, guidance_ramp="constant")
    assert count.per_image == 6


def test_a_batch_takes_the_steps_of_its_last_image_and_each_needs_its_own():
    generator = masked()
    codes, count = counted(generator, **ADAPTIVE)
    history = np.asarray(generator.sample(LABELS, 0, history=True, **ADAPTIVE))
    np.testing.assert_array_equal(history[-1], codes)
    before = np.concatenate([np.full_like(history[:1], 20), history[:-1]])
    masked_SB = (before == 20).any(axis=(2, 3))
    passes_S = np.array([1] + [2] * 5)
    needed_B = passes_S @ masked_SB
    assert len(set(needed_B.tolist())) > 1, "all images need the same: the test shows nothing"
    assert count.needed_per_image == pytest.approx(needed_B.mean())
    assert count.per_image == needed_B.max()


def test_an_image_does_not_depend_on_those_that_need_more_steps():
    generator = masked()
    together, _ = counted(generator, **ADAPTIVE)
    alone = generator.sample(LABELS[:1], 0, **ADAPTIVE)  # it needs fewer steps than others
    np.testing.assert_array_equal(alone[0], together[0])


def test_token_by_token_each_is_one_and_a_hybrid_is_the_sum():
    first, rest = causal(), masked()
    _, count = counted(first, guidance_interval=2)
    assert count.per_image == 12 + 3
    count = PassCount()
    samplers.hybrid_sampler(
        first, rest, 0, prefix=5, prefix_options=dict(guidance=1.0), passes=count, steps=2
    )(LABELS, 0)
    assert (count.images, count.per_image) == (6, 5 + 3)


def test_a_draw_says_how_many_it_took(tmp_path, caplog):
    config = VQConfig(**SMALL_VQ | dict(codebook_size=20, channel_multipliers=(1, 1)))
    tokenizer = Tokenizer(jax.jit(lambda: VQTokenizer(config, jax.random.key(0)))(), "vq")
    tokenizer.save(tmp_path / "vq")
    generator = masked()
    generator.tokenizer = {"path": str(tmp_path / "vq"), "fingerprint": tokenizer.fingerprint}
    generator.save(tmp_path / "model")
    options = SampleOptions(
        model=str(tmp_path / "model"),
        output=str(tmp_path / "out"),
        classes=("0", "4"),
        num=2,
        batch_size=4,
        companions=Companions(),
        processes=Processes(),
        decoding=Decoding(**ADAPTIVE),
    )
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        sampling.sample(options)
    said = re.search(r"(\d+) images drawn here took (\S+) passes .* needed (\S+)", caplog.text)
    images, took, needed = map(float, said.groups())
    assert images == 4 and 1 < needed <= took <= 11
