"""One network that is trained on both tasks, from its config to its table and figure."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax import compare as command
from maskgil_jax.evaluation import likelihood
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(finished, tmp_path_factory):
    """The work directory of a run of both tasks on the codes of `finished`, in Halton's order."""
    config = tiny.generator()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.model.order = "halton"
    config.loss.autoregressive_share = 0.5
    run_stages(config, workdir := epath.Path(tmp_path_factory.mktemp("both")))
    return workdir


def test_a_run_keeps_what_both_ways_of_drawing_need(both):
    model = maskgil_jax.load(both / "model")
    assert model.kind == "masked" and model.has_causal_prefix
    assert model.network.config.order == "halton"
    lines = [json.loads(line) for line in (both / "training.jsonl").read_text().splitlines()]
    lengths = [line["prefix_tokens"] for line in lines if "prefix_tokens" in line]
    assert len(lengths) == 6 and 0 < np.mean(lengths) < 12
    assert model.sample([3], 0, steps=2).shape == (1, 4, 4)
    assert model.as_causal().sample([3], 0).max() < 64


def test_compare_measures_all_ways_of_it_and_of_two_models(both, finished, causal, tmp_path):
    models = ",".join(f"{path}/model" for path in (finished, causal, both))
    arguments = {
        "models": models,
        "codes": f"{finished}/codes",
        "reference": "embedded:test",
        "prefixes": "5",
        "num": "20",
        "batch_size": "20",
        "output": f"{tmp_path}/out",
    }
    argv = ["maskgil_jax.compare", *(f"--{name}={value}" for name, value in arguments.items())]
    assert command.main(argv) == 0
    rows = json.loads((tmp_path / "out" / "generators.json").read_text())["generators"]
    names = [finished.name, causal.name, both.name]
    found = [(row["generator"], row["kind"], row["prefix"]) for row in rows]
    assert found == [
        (names[0], "masked", 0),
        (names[0], "masked", 5),
        (names[1], "causal", 16),
        (names[2], "both", 0),
        (names[2], "both", 5),
        (names[2], "both", 16),
    ]
    distances = {row["pixel_frechet_distance"] for row in rows}
    assert len(distances) == len(rows)  # each way draws, and is measured on, images of its own
    losses = {(row["generator"], row["prefix"]): row.get("validation_loss") for row in rows}
    assert losses[names[2], 5] is None and losses[names[2], 0] != losses[names[2], 16]
    model = maskgil_jax.load(both / "model")
    from maskgil_jax.data.shards.shard_reader import CodeShards

    records = likelihood.spread_records(CodeShards(f"{finished}/codes"), 20)
    expected = likelihood.validation(model.as_causal(), records, 20, 0)[0]
    np.testing.assert_allclose(losses[names[2], 16], expected, rtol=1e-5)
    for name in ("generators.csv", "generators.md", "generators.png", "samples.png"):
        assert (tmp_path / "out" / name).exists()


def test_a_masked_model_is_a_start_for_both(finished):
    from maskgil_jax.training import generator_start

    network = maskgil_jax.load(finished / "model").network
    joint = dataclasses.replace(network.config, causal_prefix=True)
    tokenizer = {"fingerprint": maskgil_jax.load(finished / "tokenizer" / "model").fingerprint}
    started = generator_start.load_start(str(finished / "model"), joint, tokenizer, {})
    assert started is not None
