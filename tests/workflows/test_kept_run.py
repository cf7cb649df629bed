"""A work directory of version f544bf8, before the files of this package moved, is still good.

It holds a tokenizer, code shards, a generator, and its run as it stood at step 2 of 4.
"""

import pathlib
import tarfile

import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax import config as defaults
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages

ARCHIVE = pathlib.Path(__file__).parents[1] / "goldens" / "kept_run.tar.gz"
# What that version logged of the steps that are missing.
AFTERWARDS = [
    {
        "step": 3,
        "loss": 2.770484447479248,
        "accuracy": 0.2976190447807312,
        "gradient_norm": 1.070846438407898,
        "output_norm": 3.8892369270324707,
    },
    {
        "step": 4,
        "loss": 2.7692766189575195,
        "accuracy": 0.31111112236976624,
        "gradient_norm": 1.0979070663452148,
        "output_norm": 3.9303512573242188,
    },
]
LOGITS = [0.0004769020597450435, -0.002290480537340045, 0.002629323396831751, 0.0002076252130791545]


@pytest.fixture
def kept(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return epath.Path(tmp_path) / "kept"


def config():
    config = defaults.generator()
    config.steps, config.batch_size = 4, 8
    config.log_every, config.checkpoint_every, config.pictures_every = 1, 2, 4
    config.ema_decay = 0.9
    config.tokenizer = "{workdir}/tokenizer"
    config.data.update(source="arrayrecord:{workdir}/codes", image_size=8, threads=1)
    config.model.update(layers=1, dim=16, heads=2, num_classes=2, dtype="float32")
    config.samples.update(per_class=2, steps=2, batch_size=4)
    config.evaluation.update(reference="", per_class=1)
    return config


def test_its_model_loads_and_predicts_what_it_did(kept):
    generator = maskgil_jax.load(str(kept / "model"))
    logits = np.asarray(generator.logits(np.zeros((1, 4, 4), int), [1]))[0, 0, :4]
    np.testing.assert_allclose(logits, LOGITS, atol=1e-6)
    assert generator.fingerprint == "ddea22ef0f8e15ca"


@pytest.mark.slow
def test_its_run_goes_on_as_it_did(kept):
    run_stages(config(), kept)
    for found, expected in zip(read_log(kept)[2:], AFTERWARDS, strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    assert (kept / "samples" / "samples.npz").exists()
