"""A small tokenizer in LlamaGen's format, and what an import takes of a file of it."""

import numpy as np
import pytest
import torch

from maskgil_jax.interop import files, llamagen_vq, recognition
from maskgil_jax.models.tokenizers.vq import VQConfig
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny

CONFIG = VQConfig(**tiny.SMALL_VQ)


def read(source, weights="", **arguments):
    """The tensors that an import takes, by LlamaGen's names: all of `convert` but the writing."""
    content = files.read(str(source), llamagen_vq, weights)
    return recognition.recognise(
        "llamagen-vq", llamagen_vq, str(source), content, arguments, weights
    )[2]


def check_read(source, expected, weights=""):
    found = read(source, weights)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name].astype(np.float32), np.asarray(x))


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refused(source, match, weights=""):
    with pytest.raises(InputError, match=match) as error:
        read(source, weights)
    assert "\x1b" not in str(error.value)
    return str(error.value)
