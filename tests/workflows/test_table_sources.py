"""Parquet and folders with metadata go through every command that reads images."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from maskgil_jax.data import order, pipeline, sources
from maskgil_jax.data.records import image_records
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, tiny

COUNT = 60


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """The same digits as two Parquet shards, and as a flat folder with metadata.csv."""
    path = tmp_path_factory.mktemp("digits")
    digits = [sources.open_source("embedded:test")[i] for i in range(COUNT)]
    for shard in range(2):
        some = digits[shard * COUNT // 2 : (shard + 1) * COUNT // 2]
        content = {
            "image": [{"bytes": record.image, "path": None} for record in some],
            "label": [record.label for record in some],
            "text": [f"the digit {record.label}" for record in some],
        }
        feature = {"label": {"_type": "ClassLabel", "names": list("0123456789")}}
        metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
        table = pa.table(content).replace_schema_metadata(metadata)
        pq.write_table(table, path / f"train-{shard}.parquet", row_group_size=7)
    rows = io.StringIO()
    rows.write("file_name,text,label\n")
    for i, record in enumerate(digits):
        (path / f"{i:02}.png").write_bytes(record.image)
        rows.write(f"{i:02}.png,the digit {record.label},{record.label}\n")
    (path / "metadata.csv").write_text(rows.getvalue())
    return {"parquet": f"parquet:{path}/train-*.parquet", "folder": f"folder:{path}"}


def test_both_hold_the_same(specs):
    parquet, folder = map(sources.open_source, specs.values())
    assert parquet.class_names == folder.class_names == tuple("0123456789")
    for a, b in zip(
        map(parquet.__getitem__, range(COUNT)), map(folder.__getitem__, range(COUNT)), strict=True
    ):
        assert (a.image, a.label) == (b.image, b.label)
        assert image_records.captions_of(a) == image_records.captions_of(b)


@pytest.mark.slow
def test_worker_processes_load_the_same_batches(specs):
    source = sources.open_source(specs["parquet"])
    numbers = np.zeros(COUNT, int)
    load = pipeline.image_loader(source, numbers, sizes=[(8, 8)], crop="random", flip=True)
    found = []
    for workers in (0, 2):
        pools = order.pools_of([numbers], blocks=[source.blocks])
        batches = pipeline.batches(load, order.Order(pools, 8, 0), start_step=3, workers=workers)
        found.append([next(batches)["image"] for _ in range(3)])
        if workers:
            batches.close()
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_training_on_a_mixture_of_both_resumes_to_the_same_bits(specs, finished, tmp_path):
    config = tiny.generator()
    config.tokenizer = str(finished / "tokenizer" / "model")
    config.data.update(source="", crop="center", flip=True)
    config.data.mixture = ((specs["parquet"], 3.0), (specs["folder"], 1.0))
    config.evaluation.reference = ""
    run_stages(config, epath.Path(tmp_path / "whole"))
    config.steps = 4
    run_stages(config, epath.Path(tmp_path / "parts"))
    config.steps = 6
    run_stages(config, epath.Path(tmp_path / "parts"))
    whole, parts = (
        [line["loss"] for line in read_log(tmp_path / name)] for name in ("whole", "parts")
    )
    assert whole == parts and len(whole) == 6


@pytest.mark.slow
def test_a_tokenizer_trains_on_parquet(specs, tmp_path):
    config = tiny.tokenizer()
    config.data.source, config.evaluation.reference = specs["parquet"], specs["parquet"]
    run_stages(config, epath.Path(tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["reference"]["count"] == 20


@pytest.mark.slow
def test_commands_read_both(specs, finished, tmp_path):
    tokenizer = f"--tokenizer={finished}/tokenizer/model"
    for name, spec in specs.items():
        options = (tokenizer, f"--data={spec}", "--image_size=8", "--shard_size=25")
        for _ in range(2):  # the second finds what the first wrote
            done = commands.call("tokenize", *options, f"--output={tmp_path}/{name}")
            assert done.returncode == 0, done.stderr
    shards = [CodeShards(f"{tmp_path}/{name}") for name in specs]
    assert len(shards[0]) == len(shards[1]) == COUNT
    for i in range(COUNT):
        np.testing.assert_array_equal(shards[0][i].codes, shards[1][i].codes)
        assert shards[0][i].label == shards[1][i].label
    values = []
    for name, spec in specs.items():
        done = commands.call(
            *("evaluate", f"--samples={finished}/samples", f"--reference={spec}"),
            *("--metrics=frechet,accuracy", f"--output={tmp_path}/{name}.json"),
        )
        assert done.returncode == 0, done.stderr
        values.append(json.loads((tmp_path / f"{name}.json").read_text())["metrics"])
    assert values[0] == values[1]
    spec = "tests.test_commands:thumbnails"
    done = commands.call(
        *("features", f"--data={specs['parquet']}", "--image_size=8", f"--features={spec}"),
        f"--output={tmp_path}/features.npz",
    )
    assert done.returncode == 0, done.stderr
    done = commands.call(
        *("reconstruct", f"--tokenizers={finished}/tokenizer/model", "--image_size=8"),
        *(f"--data={specs['parquet']}", "--count=10", f"--output={tmp_path}/out"),
    )
    assert done.returncode == 0, done.stderr
