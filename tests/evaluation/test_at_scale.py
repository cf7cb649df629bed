"""Measurements over devices and processes, and ones that were killed."""

import json
import signal
import time

import jax
import numpy as np
import pytest

from maskgil_jax.evaluation import feature_networks, generated_images
from maskgil_jax.evaluation.image_sets import Block
from maskgil_jax.generation import images, placing, samplers
from maskgil_jax.models.perceptual.inception import Inception, InceptionConfig
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime import batches
from tests.helpers import commands
from tests.helpers.two_processes import end_both, start_command

REFERENCE = ("--reference=embedded:test", "--metrics=frechet,pr,kid,accuracy")


def start(*options):
    return commands.start("evaluate", *options)


def content(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_images_are_the_same_generated_on_8_devices(finished):
    assert jax.device_count() == 8
    pair = loading.load_pair(finished / "model", "")
    models = generated_images.Models(*pair)
    conditions = placing.split_over_devices(samplers.by_class)
    labels = generated_images.balanced(36, 10)
    assert len(conditions(labels[:16]).sharding.device_set) == 8
    generated = generated_images.GeneratedImages(
        samplers.sampler(models.generator, 3, conditions, steps=3),
        models,
        labels,
        names=models.generator.names_of_classes,
        batch_size=12,
    )
    ours = generated.read(5, 36)
    expected = images.generate_images(samplers.sampler(pair[0], 3, steps=3), pair[1], labels, 9)[5:]
    assert np.abs(ours.images.astype(int) - expected).max() <= 1
    assert ours.labels.tolist() == [str(label) for label in labels[5:]]
    assert generated.seconds_per_image() > 0


@pytest.mark.parametrize(
    "size, total, devices, expected",
    [(64, 256, 1, 64), (500, 256, 1, 256), (100, 256, 1, 86), (100, 256, 8, 88), (4, 256, 8, 8)],
)
def test_batches_fill_up_few_images(size, total, devices, expected):
    assert batches.even_batch(size, total, devices) == expected


@pytest.mark.slow
def test_features_are_the_same_on_8_devices(monkeypatch, tmp_path):
    from maskgil_jax.pretrained import loading

    like = jax.eval_shape(lambda: Inception(InceptionConfig(), jax.random.key(0)))
    network = jax.tree.map(
        lambda x: np.full(x.shape, 1 / np.sqrt(np.prod(x.shape[:-1])), np.float32), like
    )
    loading.Auxiliary(network).save(tmp_path / "model")
    images = np.random.default_rng(0).integers(256, size=(11, 8, 8, 3), dtype=np.uint8)
    ours = feature_networks.inception(str(tmp_path / "model"), 8).compute(Block(images, None))
    expected = jax.jit(lambda n, x: n(x))(network, images)._asdict()
    for name, values in expected.items():
        scale = float(np.abs(values).max())
        np.testing.assert_allclose(ours[name], values, atol=1e-4 * scale, err_msg=name)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(finished, tmp_path):
    options = (f"--model={finished}/model", "--num=700", "--steps=2", *REFERENCE)
    alone = start(*options, f"--output={tmp_path}/one.json")
    output = alone.communicate(timeout=300)[0]
    assert alone.returncode == 0, output
    both = start_command("evaluate", *options, f"--output={tmp_path}/two.json")
    codes, outputs = end_both(both)
    assert codes == [0, 0], outputs
    one, two = content(tmp_path / "one.json"), content(tmp_path / "two.json")
    assert one["samples"]["count"] == two["samples"]["count"] == 700
    for name, value in one["metrics"].items():
        np.testing.assert_allclose(two["metrics"][name], value, rtol=0.01, err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


@pytest.mark.slow
def test_one_that_was_killed_goes_on(finished, tmp_path):
    options = (f"--model={finished}/model", "--num=1000", "--steps=8", "--batch_size=16")
    output = f"--output={tmp_path}/killed.json"
    killed = start(*options, *REFERENCE, output)
    unfinished = tmp_path / "killed.json.unfinished"
    deadline = time.monotonic() + 200
    while len(list(unfinished.glob("*/*.npz"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    parts = {path: path.stat().st_mtime_ns for path in unfinished.glob("*/*.npz")}
    assert 4 <= len(parts) < 6 and not (tmp_path / "killed.json").exists()
    again = start(*options, *REFERENCE, output)
    log = again.communicate(timeout=300)[0]
    assert again.returncode == 0, log
    assert "reference: 2 of 2 blocks are there" in log
    assert f"samples: {len(parts) - 2} of 4 blocks are there" in log
    whole = start(*options, *REFERENCE, f"--output={tmp_path}/whole.json")
    assert whole.communicate(timeout=300) and whole.returncode == 0
    ours, expected = content(tmp_path / "killed.json"), content(tmp_path / "whole.json")
    assert ours["metrics"] == expected["metrics"] and not unfinished.exists()
    assert ours["samples"]["pixels_sha256"] == expected["samples"]["pixels_sha256"]
