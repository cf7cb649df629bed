"""Training at several resolutions: one shape a batch, on any layout, stopped or not."""

import logging

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import maskgil_jax
from maskgil_jax.data import pipeline
from maskgil_jax.data.order import Order
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_data
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import code_shards
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny
from tests.helpers.work_directories import assert_same

SHAPES = {"square": (16, 16), "wide": (12, 24), "high": (24, 12)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten classes of 6 images, 2 of each shape."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir()
        for name, (height, width) in SHAPES.items():
            for i in range(2):
                pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
                Image.fromarray(pixels).save(folder / str(label) / f"{name}{i}.png")
    return folder


@pytest.fixture(scope="module")
def codes(finished, photos, built_once):
    """Code shards of the photos."""
    config = tiny.codes()
    config.update(tokenizer=f"{finished}/tokenizer/model", source=f"folder:{photos}")
    config.update(buckets="lumina")
    return built_once("bucket_codes", lambda directory: code_shards.run(config, directory))


def config_for(codes, **data):
    config = tiny.generator()
    config.data.update(source=f"arrayrecord:{codes}")
    config.data.update(data)
    config.batch_size, config.model.layers = 8, 1
    config.checkpoint_every, config.pictures_every = 4, 8
    config.samples.update(classes=1, per_class=1, steps=2)
    config.evaluation.reference = ""
    config.steps = 8
    return config


@pytest.fixture(scope="module")
def trained(codes, built_once):
    """The work directory of 8 steps on 8 devices."""
    return built_once("buckets", lambda workdir: run_stages(config_for(codes), workdir))


@pytest.mark.slow
def test_every_mesh_gives_the_same_losses_and_each_shape_is_compiled_once(
    trained, codes, tmp_path, monkeypatch, caplog
):
    one = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1), jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda shape, devices=None: one)
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        run_stages(config_for(codes), epath.Path(tmp_path))
    losses = [[line["loss"] for line in read_log(run)] for run in (trained, tmp_path)]
    assert len(losses[0]) == len(set(losses[0])) == 8
    np.testing.assert_allclose(*losses, rtol=1e-5)
    messages = [text for text in caplog.messages if text.startswith("compiling")]
    assert messages[0].endswith("(1 of at most 7 sizes)") and len(messages) == 3
    assert {text.split(" tokens")[0] for text in messages} == {
        "compiling for 4 x 4",
        "compiling for 4 x 2",
        "compiling for 2 x 4",
    }


def test_a_run_that_was_stopped_ends_in_the_same_bits(trained, codes, tmp_path):
    config = config_for(codes)
    config.steps = 4
    run_stages(config, epath.Path(tmp_path))
    config.steps = 8
    run_stages(config, epath.Path(tmp_path))
    assert_same(trained, tmp_path)


def test_tokens_are_counted_as_they_are(trained):
    """16 of a square, 8 of the others."""
    for line in read_log(trained):
        assert line["tokens_per_second"] / line["examples_per_second"] in (8, 16)


@pytest.mark.slow
def test_a_square_model_goes_on_at_several_larger_sizes(finished, photos, tmp_path):
    """Weak to strong, on images that are encoded in the step."""
    config = config_for("", source=f"folder:{photos}", image_size=16, buckets="lumina")
    config.tokenizer = f"{finished}/tokenizer/model"
    config.start_from.generator = f"{finished}/model"
    config.model.layers, config.steps, config.optimizer.learning_rate = 2, 6, 0.0
    run_stages(config, epath.Path(tmp_path))
    small, large = (maskgil_jax.load(path / "model") for path in (finished, tmp_path))
    assert large.grid == (8, 8)
    for a, b in zip(jax.tree.leaves(small.network), jax.tree.leaves(large.network), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    shapes = [
        line["tokens_per_second"] / line["examples_per_second"] for line in read_log(tmp_path)
    ]
    assert len(set(shapes)) > 1
    assert large.sample(np.arange(2), 0, grid=(4, 12), steps=2).shape == (2, 4, 12)


def test_the_shape_of_an_image_is_read_from_its_header(finished, photos):
    config = config_for("", source=f"folder:{photos}", image_size=8, buckets="lumina")
    config.tokenizer = f"{finished}/tokenizer/model"
    data = generator_data.open_data(config)
    found = {
        data.dataset.grids[pool.bucket]: {
            data.record(i).id.split("/")[-1][:4] for i in pool.members
        }
        for pool in data.dataset.pools
    }
    assert found == {(4, 4): {"squa"}, (2, 4): {"wide"}, (4, 2): {"high"}}
    example = data.dataset.load(int(data.dataset.pools[0].members[0]), np.random.default_rng(0))
    assert example["image"].shape == (4, 8, 3)


def test_shards_are_mixed_by_weight(codes, finished, photos, tmp_path):
    config = tiny.codes()
    config.update(tokenizer=f"{finished}/tokenizer/model", source=f"folder:{photos}")
    config.update(buckets="lumina", crops="flip")
    code_shards.run(config, epath.Path(tmp_path))
    mixture = ((f"arrayrecord:{codes}", 1.0), (f"arrayrecord:{tmp_path}", 3))
    data = generator_data.open_data(config_for("", source="", mixture=mixture))
    assert len(data.dataset) == 120
    order = Order(data.dataset.pools, 8, 0)
    drawn = np.concatenate([order.examples(step) for step in range(1, 201)])
    assert abs((drawn >= 60).mean() - 0.75) < 0.02
    batch = next(pipeline.batches(data.dataset.load, order, threads=1))
    assert batch["codes"].shape == (8, *data.dataset.grids[order.bucket(1)])


def test_a_network_with_positions_of_one_grid_is_refused(codes, tmp_path):
    for preset in ("besnier", "halton", "maskgit", "maskgil_released"):
        config = config_for(codes)
        config.model.preset = preset
        with pytest.raises(InputError, match=f"{preset} has positions of one grid, but .* has 7"):
            run_stages(config, epath.Path(tmp_path))


@pytest.mark.parametrize(
    "data, message",
    [
        (dict(buckets="pixart"), "buckets = 'pixart', but arrayrecord:.* with buckets = 'lumina'"),
        (
            dict(buckets="lumina", image_size=16),
            "image_size = 16, but arrayrecord:.* = 8; if the shards are right",
        ),
        (dict(mixture=(("arrayrecord:{codes}", 1.0),)), "source = .* and .*mixture are both given"),
        (dict(source="", mixture=(("a", 0.0),)), "mixture = .*, expected .* positive weights"),
        (dict(source="", mixture=("a", "b")), "mixture = .*, expected .* positive weights"),
        (
            dict(source="", mixture=(("arrayrecord:{codes}", 1.0), ("embedded", 1.0))),
            "has images and code shards, expected either",
        ),
        (
            dict(
                source="", mixture=(("arrayrecord:{codes}", 1.0), ("arrayrecord:{finished}", 1.0))
            ),
            "was made with buckets = '', but .* with 'lumina'",
        ),
        (
            dict(source="", mixture=(("embedded", 1.0), ("folder:{photos}/0", 1.0))),
            r"folder:.* has classes 1 \(0\), but embedded has 10 \(0, 1, 2, ...\)",
        ),
    ],
)
def test_data_that_does_not_fit_is_named(data, message, codes, finished, photos):
    where = dict(codes=codes, finished=f"{finished}/codes", photos=photos)
    if "mixture" in data and isinstance(data["mixture"][0], tuple):
        filled = tuple((source.format(**where), weight) for source, weight in data["mixture"])
        data = {**data, "mixture": filled}
    with pytest.raises(InputError, match=message):
        generator_data.open_data(config_for(codes, **data))
