import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.data import shards, sources
from maskgil_jax.errors import InputError
from maskgil_jax.training import codes_stage
from tests import tiny


def config_for(finished, **changes):
    config = tiny.codes()
    config.update(tokenizer=str(finished / "tokenizer" / "model"), source="embedded:test")
    config.update(changes)
    return config


def read_all(directory):
    codes = shards.CodeShards(str(directory))
    return [codes[i] for i in range(len(codes))]


def test_shards_hold_the_codes_of_every_image_in_order(finished):
    records = read_all(finished / "codes")
    tokenizer = maskgil_jax.load(finished / "tokenizer" / "model")
    pixels, labels = sources.center_crops(sources.open_source("embedded"), 8, 1437)
    assert len(records) == 1437
    assert [record.label for record in records] == labels.tolist()
    expected = np.asarray(tokenizer.encode(pixels[:64].astype(np.float32) / 127.5 - 1))
    np.testing.assert_array_equal(np.stack([record.codes[0] for record in records[:64]]), expected)


def test_an_interrupted_run_goes_on_without_loss_or_duplicates(finished, tmp_path, monkeypatch):
    config = config_for(finished, shard_size=100)
    write_shard = shards.write_shard

    def dies_at_the_third(path, records):
        if "00002" in path.name:
            next(iter(records))
            raise KeyboardInterrupt
        return write_shard(path, records)

    monkeypatch.setattr(shards, "write_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        codes_stage.run(config, epath.Path(tmp_path / "cut"))
    with pytest.raises(InputError, match="not all of 4 shards are written"):
        shards.CodeShards(str(tmp_path / "cut"))
    monkeypatch.undo()
    codes_stage.run(config, epath.Path(tmp_path / "cut"))
    codes_stage.run(config, epath.Path(tmp_path / "straight"))
    cut, straight = read_all(tmp_path / "cut"), read_all(tmp_path / "straight")
    assert len(cut) == len(straight) == 360
    for a, b in zip(cut, straight, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)
        assert a.label == b.label and a.id == b.id


def test_ten_crops_are_kept_and_one_is_drawn(finished, tmp_path):
    from maskgil_jax.data import pipeline

    codes_stage.run(config_for(finished, crops="ten"), epath.Path(tmp_path))
    codes = shards.CodeShards(str(tmp_path))
    assert codes[0][0].shape == (10, 4, 4) and codes.index.views == 10
    load = pipeline.code_loader(codes)
    drawn = {load(0, np.random.default_rng(s))["codes"].tobytes() for s in range(30)}
    assert drawn <= {view.tobytes() for view in codes[0][0]} and len(drawn) > 1


def test_shards_of_another_kind_are_not_mixed(finished, tmp_path):
    codes_stage.run(config_for(finished), epath.Path(tmp_path))
    with pytest.raises(InputError, match="holds shards of another kind.*\n.*crops: center -> flip"):
        codes_stage.run(config_for(finished, crops="flip"), epath.Path(tmp_path))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(tokenizer="/nowhere"), "/nowhere is not a model directory"),
        (dict(crops="five"), "crops = 'five'"),
        (dict(image_size=31), "image_size = 31, expected a multiple of 2"),
        (dict(source="embedded:x"), "embedded:x"),
    ],
)
def test_bad_input_is_named(changes, message, finished, tmp_path):
    with pytest.raises(InputError, match=message):
        codes_stage.run(config_for(finished, **changes), epath.Path(tmp_path))
