"""Batches are drawn and decoded in parts where the memory asks for it, and no image changes."""

import logging

import numpy as np
import pytest

from maskgil_jax.generation import images, samplers
from maskgil_jax.generation.parts import in_parts
from maskgil_jax.runtime.device_memory import TooLarge
from tests.helpers import tiny_models
from tests.helpers.tiny_llama import causal, masked

LABELS = np.arange(10) % 5


def masked_sampler(memory=None):
    return samplers.sampler(masked(), 7, steps=2, memory=memory)


def causal_sampler(memory=None):
    return samplers.sampler(causal(), 7, guidance=2.0, memory=memory)


def hybrid_sampler(memory=None):
    return samplers.hybrid_sampler(
        causal(), masked(), 7, prefix=4, prefix_options={}, steps=2, memory=memory
    )


def decoder(memory=None):
    decode = images.decoder(tiny_models.tokenizer(), memory)
    codes = np.random.default_rng(0).integers(0, 16, (10, 3, 4))
    return lambda labels, start: decode(codes[: len(labels)])


@pytest.mark.parametrize("make", [masked_sampler, causal_sampler, hybrid_sampler, decoder])
def test_the_memory_changes_no_image_and_the_log_says_once_what_it_changes(make, caplog):
    expected = make()(LABELS, 3)
    with pytest.raises(
        TooLarge, match="ing 1 image of 3 x 4 tokens takes .* but 0.00 GiB are f"
    ) as e:
        make(memory=8.0)(LABELS[:1], 3)
    work = make(memory=4.5 * e.value.needed)  # about 4 images of 10
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        for _ in range(2):
            np.testing.assert_array_equal(work(LABELS, 3), expected)
    (line,) = [m for m in caplog.messages if "at once" in m]
    assert "ing 10 images of 3 x 4 tokens takes" in line
    assert 1 < int(line.split()[-3]) < 10


# Labels, and the index of the first of each part.
EXPECTED = np.arange(10) + 100 + np.repeat([0, 4, 8], [4, 4, 2])


def test_parts_are_whole_for_the_devices_that_they_are_split_over():
    sizes = []

    def whole(labels, start):
        sizes.append(len(labels))
        if len(labels) > 5:
            raise TooLarge("drawing", len(labels), 5)
        return labels + start

    work = in_parts(whole, devices=2)
    np.testing.assert_array_equal(work(np.arange(10), 100), EXPECTED)
    assert sizes == [10, 4, 4, 4]
