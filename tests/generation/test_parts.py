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


CODES = np.random.default_rng(0).integers(0, 16, (10, 3, 4))


def decoder(memory=None):
    decode = images.decoder(tiny_models.tokenizer(), memory)
    return lambda labels, start: decode(CODES[: len(labels)])


# What each does with a batch at once: of labels and the memory.
AT_ONCE = {
    masked_sampler: lambda labels, memory: masked().sample(labels, 7, steps=2, memory=memory),
    causal_sampler: lambda labels, memory: causal().sample(labels, 7, memory=memory),
    decoder: lambda labels, memory: tiny_models.tokenizer().decode(CODES[: len(labels)], memory),
}
PROGRAMS = {hybrid_sampler: (causal_sampler, masked_sampler)}  # of the others: themselves


def needed(make, images):
    """Bytes that so many take, as the refusal says."""
    words = f"ing {images} images? of 3 x 4 tokens takes .* but 0.00 GiB are free: expected less"
    with pytest.raises(TooLarge, match=words) as refused:
        AT_ONCE[make](LABELS[:images], 1.0)
    return refused.value.needed


@pytest.mark.parametrize("make", [masked_sampler, causal_sampler, hybrid_sampler, decoder])
def test_the_memory_changes_no_image_and_the_log_says_once_what_it_changes(make, caplog):
    expected = make()(LABELS, 3)
    programs = PROGRAMS.get(make, (make,))
    memory = max(0.75 * needed(one, 1) + 0.25 * needed(one, 10) for one in programs)
    work = make(memory=memory)
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        for _ in range(2):
            np.testing.assert_array_equal(work(LABELS, 3), expected)
    (line,) = [message for message in caplog.messages if "at once" in message]
    assert "ing 10 images of 3 x 4 tokens takes" in line
    assert 1 <= int(line.split()[-3]) < 10


def test_where_not_even_one_fits_the_message_is_of_one():
    with pytest.raises(TooLarge, match="drawing 1 image of 3 x 4 tokens takes"):
        masked_sampler(memory=1.0)(LABELS, 3)


EXPECTED = np.arange(10) + 100 + np.arange(10)  # labels, and the index of each


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
