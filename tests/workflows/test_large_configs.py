"""The largest configs, started small: their recipes on networks and images of a few numbers."""

import importlib

import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.data import sources
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages


def small(config, finished, image_size):
    """The config on digits, with two layers."""
    config.tokenizer = f"{finished}/tokenizer/model"
    config.data.update(source="embedded", image_size=image_size, threads=2)
    config.model.update(layers=2, dim=32, heads=2)
    config.steps, config.batch_size, config.log_every = 2, 8, 1
    config.samples.update(classes=1, per_class=1, steps=2)
    return config


@pytest.mark.slow
def test_7b(finished, tmp_path):
    config = small(importlib.import_module("configs.7b").get_config(), finished, 8)
    config.model.num_classes = 10
    run_stages(config, epath.Path(tmp_path))
    assert len(read_log(tmp_path)) == 2
    model = maskgil_jax.load(tmp_path / "model")
    assert model.grid == (4, 4) and model.sample([3, 7], 0, steps=2).shape == (2, 4, 4)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Features of every embedded training image."""
    folder, source = tmp_path_factory.mktemp("features"), sources.open_source("embedded")
    for i in range(len(source)):
        np.save(folder / f"{source[i].id}.npy", np.eye(10, 12, dtype=np.float16)[:2])
    return folder


@pytest.mark.slow
def test_text_at_1024_pixels_goes_on_from_512(finished, features, tmp_path):
    """With 8 and 16 pixels in their place."""
    for size, image_size in {"512": 8, "1024": 16}.items():
        config = importlib.import_module("configs.t2i_xl").get_config(size)
        config = small(config, finished, image_size)
        config.data.features = str(features)
        config.model.update(feature_dim=12, condition_tokens=2)
        if size == "512":
            config.start_from.generator = ""
        else:
            config.model.rope_grid = (4, 4)
        run_stages(config, epath.Path(tmp_path / f"t2i_xl_{size}"))
    large = maskgil_jax.load(tmp_path / "t2i_xl_1024" / "model")
    assert large.grid == (8, 8) and large.network.config.rope_grid == (4, 4)
    condition = np.ones((1, 2, 12), np.float32)
    for grid in ((8, 8), (4, 16)):
        codes = np.asarray(large.sample(condition, 0, steps=2, grid=grid))
        assert codes.shape == (1, *grid) and codes.max() < 64
