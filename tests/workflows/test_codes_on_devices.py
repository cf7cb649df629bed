"""Code shards are the same, record by record, on any number of devices, and within any memory."""

import logging

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from maskgil_jax.data.shards import shard_reader
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import code_shards
from tests.helpers import tiny, tiny_models


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny_models.tokenizer().save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """70 images of three shapes, in turn."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(70):
        shape = [(16, 16), (8, 32), (32, 8)][i % 3]
        Image.fromarray(rng.integers(0, 255, (*shape, 3), np.uint8)).save(folder / f"{i:02}.png")
    return f"folder:{folder}"


def records(output, tokenizer, source, **changes):
    config = tiny.codes()
    config.update(tokenizer=tokenizer, source=source, shard_size=40, batch_size=4, **changes)
    code_shards.run(config, epath.Path(output))
    codes = shard_reader.CodeShards(str(output))
    return [(codes[i].id, codes[i].codes.tolist()) for i in range(len(codes))]


@pytest.mark.parametrize(
    "changes",
    [
        dict(crops="flip"),
        pytest.param(dict(crops="ten"), marks=pytest.mark.slow),
        pytest.param(dict(buckets="lumina"), marks=pytest.mark.slow),
    ],
)
def test_eight_devices_make_the_records_of_one(changes, tokenizer, photos, tmp_path, monkeypatch):
    eight = records(tmp_path / "eight", tokenizer, photos, **changes)
    one_device = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one_device)
    assert records(tmp_path / "one", tokenizer, photos, **changes) == eight and len(eight) == 70


def test_images_are_encoded_in_parts_where_the_memory_asks_for_it(
    tokenizer, photos, tmp_path, caplog
):
    expected = records(tmp_path / "all", tokenizer, photos)
    with pytest.raises(InputError, match="encoding 8 images of 8 x 8 pixels takes") as refused:
        records(tmp_path / "none", tokenizer, photos, memory=1e-9)
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        memory = 1.5 * refused.value.needed / 2**30
        assert records(tmp_path / "parts", tokenizer, photos, memory=memory) == expected
    assert len([line for line in caplog.messages if "so that there are 8 at once" in line]) == 1
