"""Damaged code shards as a user meets them: in training, and when tokenize is run again."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
from etils import epath

from maskgil_jax.data.shards import shard_files, shard_index, shard_reader
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import code_shards
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny


@pytest.fixture
def damaged(finished, tmp_path):
    """Two shards of 32 examples: three of the first are damaged, and the second is cut in half."""
    whole, path = shard_reader.CodeShards(f"{finished}/codes"), epath.Path(tmp_path) / "codes"
    path.mkdir()
    records = [
        whole[i]._replace(codes=whole[i].codes.astype(np.uint16), id=f"images/{i}.png")
        for i in range(64)
    ]
    records[3] = records[3]._replace(label=99999)
    records[4] = records[4]._replace(codes=np.full_like(records[4].codes, 60000))
    names = tuple(f"codes-{i}-of-2.array_record" for i in range(2))
    index = dataclasses.replace(whole.index, shards=names)
    for number, name in enumerate(names):
        shard_files.write_shard(path / name, records[32 * number : 32 * (number + 1)], index.grids)
    counts = shard_files.counts_of(path, index)
    shard_index.write_index(path, index, counts | {"unreadable": 0, "complete": True})
    data = (path / names[0]).read_bytes()
    (path / names[0]).write_bytes(data.replace(b"images/7.png", b"images/8.png"))
    data = (path / names[1]).read_bytes()
    (path / names[1]).write_bytes(data[: len(data) // 2])
    return path


def test_training_passes_over_damaged_shards_and_counts_them_or_refuses(
    finished, damaged, tmp_path, caplog
):
    caplog.set_level(logging.WARNING, "maskgil_jax")
    config = tiny.generator()
    config.data.source = f"arrayrecord:{damaged}"
    config.tokenizer = f"{finished}/tokenizer/model"
    config.evaluation.reference = ""
    workdir = epath.Path(tmp_path) / "run"
    config.data.bad_image_limit = 0.4
    with pytest.raises(InputError, match="32 of 64 examples .* cannot be opened .* allows 25"):
        run_stages(config, workdir)
    config.data.bad_image_limit = 0.51
    with pytest.raises(InputError, match="of 64 images cannot be read, .*; a checkpoint of step"):
        run_stages(config, workdir)
    config.data.bad_image_limit = 0.6
    run_stages(config, workdir)
    last = read_log(workdir)[-1]
    assert last["step"] == 6 and last["unreadable_images"] == 32 + 3
    for record, reason in (
        (3, "class 99999, expected 0 to 9"),
        (4, "codes from 60000 to 60000, expected 0 to 63"),
        (7, "Corrupted"),
    ):
        assert f"{damaged}/codes-0-of-2.array_record, record {record}: {reason}" in caplog.text
    assert f"{damaged}/codes-1-of-2.array_record: none of 32 examples is used" in caplog.text
    assert f"{damaged}/codes-1-of-2.array_record, record 31: " in caplog.text


@pytest.mark.parametrize("damage", ["cut", "missing", "grids missing"])
def test_tokenizing_again_writes_damaged_shards_again(damage, finished, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    config = tiny.codes()
    config.update(tokenizer=f"{finished}/tokenizer/model", source="embedded:test", shard_size=200)
    output = epath.Path(tmp_path)
    code_shards.run(config, output)
    whole = [(output / name).read_bytes() for name in shard_index.read_index(output)[0].shards]
    path = output / "codes-00001-of-00002.array_record"
    broken = path.with_name(path.name + ".grids.npy") if "grids" in damage else path
    data = broken.read_bytes()
    broken.unlink()
    if "missing" not in damage:
        broken.write_bytes(data[: len(data) // 2])
    caplog.clear()
    code_shards.run(config, output)
    assert (f"{path} is damaged and written again: " in caplog.text) == (damage != "missing")
    codes = shard_reader.CodeShards(str(output))
    assert len(codes) == 360 and codes.lost == 0
    assert json.loads((output / "index.json").read_text())["complete"] is True
    ids = [codes[i].id for i in range(360)]
    assert len({*ids}) == 360
    assert (output / codes.index.shards[0]).read_bytes() == whole[0]
    caplog.clear()
    code_shards.run(config, output)
    assert "is complete" in caplog.text


def test_a_damaged_index_is_not_taken_for_none(finished, tmp_path):
    shutil.copytree(finished / "codes", tmp_path / "codes")
    path = tmp_path / "codes" / "index.json"
    path.write_bytes(path.read_bytes()[:100])
    config = tiny.codes()
    config.update(tokenizer=f"{finished}/tokenizer/model")
    with pytest.raises(InputError, match=f"{path} is not readable JSON"):
        code_shards.run(config, epath.Path(tmp_path / "codes"))
