"""The plan of a config for TPUs that are not here, as a user asks for it."""

import json
import os

import pytest

from maskgil_jax.planning.chips import CHIPS
from tests.helpers import commands

pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")


def plan(*options):
    """What is compiled is kept beside JAX's programs of the suite, not in the user's home."""
    kept = f"--cache={os.environ['JAX_COMPILATION_CACHE_DIR']}/plans"
    return commands.call("plan", kept, *options)


@pytest.mark.slow
def test_a_generator_on_two_topologies(tmp_path):
    done = plan(
        "--config=tests/helpers/tiny.py:generator",
        "--config.model.remat=full",
        "--config.model.num_classes=10",
        "--topology=v5e:2x2,v6e:2x4",
        "--codebook_size=64",
        "--grid=4,4",
        "--batch_per_chip=16",
        f"--output={tmp_path}/plan.json",
    )
    assert done.returncode == 0, done.stderr
    plans = json.loads((tmp_path / "plan.json").read_text())["plans"]
    assert [(p["topology"], p["chips"], p["batch_size"]) for p in plans] == [
        ("v5e:2x2", 4, 64),
        ("v6e:2x4", 8, 128),
    ]
    for p in plans:
        chip = CHIPS[p["topology"][:3]]
        assert p["fits"] and p["bytes_total"] == sum(p["bytes"].values()) < chip.hbm_bytes
        # Recomputed layers: a fourth of the layers' FLOPs more.
        assert 1 < p["hardware_flops_per_step"] / p["model_flops_per_step"] < 1.5
        assert p["compute_seconds"] == pytest.approx(
            p["estimated_cycles"] / chip.clock + p["kernel_seconds"]
        )
        both = p["compute_seconds"] + p["collective_seconds"]
        assert p["step_seconds_nothing_overlapped"] == pytest.approx(both)
        assert p["step_seconds_all_hidden"] <= p["step_seconds"] <= both * (1 + 1e-9)
        assert p["mfu"] * p["step_seconds"] * chip.flops * p["chips"] == pytest.approx(
            p["model_flops_per_step"]
        )
        assert p["training_days"] * 24 * p["chips"] == pytest.approx(p["chip_hours"])
        assert p["mfu"] < p["mfu_bound"] < 1 and 0.5 < min(p["calibration"]["plain"].values())
        # Beside the large batch that of the config.
        assert p["recipe"]["batch_size"] == 32 and 0 < p["recipe"]["mfu"] < p["mfu"]
        assert p["collectives"]["all-reduce"]["bytes_sent"] > 0
        assert len(p["costliest"]) == 10 and p["sampler"]["step_seconds"] > 0
    for word in ("counted", "estimated", "MFU", "v6e:2x4"):
        assert word in done.stdout
    assert (tmp_path / "plan.md").read_text().count("| v") == 4
    assert (tmp_path / "plan.png").stat().st_size > 5000


@pytest.mark.slow
def test_two_slices_exchange_gradients_alone_over_their_network(tmp_path):
    done = plan(
        "--config=tests/helpers/tiny.py:generator",
        "--config.model.num_classes=10",
        "--config.mesh.data=1",
        "--config.mesh.fsdp=-1",
        *("--topology=v5e:2x2,2xv5e:2x2", "--codebook_size=64", "--grid=4,4", "--nosampler"),
        *("--norecipe", "--batch_per_chip=8", f"--output={tmp_path}/plan.json"),
    )
    assert done.returncode == 0, done.stderr
    one, two = json.loads((tmp_path / "plan.json").read_text())["plans"]
    assert (one["chips"], one["slices"], one["dcn"]) == (4, 1, {})
    assert (two["chips"], two["slices"], two["batch_size"]) == (8, 2, 64)
    assert two["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    # Each chip sums its quarter of the gradients with that of the other slice, in float32, and
    # numbers such as the loss: 2.2 times the bytes of doing so once. What does not divide by 4 is
    # whole on every chip, and no kernel fits so small heads, whose matrices go once for each part.
    sent = sum(kind["bytes_sent"] for kind in two["dcn"].values())
    assert two["dcn"].keys() == {"all-reduce"}
    assert 1 <= sent / (two["parameters"] / 4 * 4) < 2.5
    assert two["step_seconds_nothing_overlapped"] == pytest.approx(
        two["compute_seconds"] + two["collective_seconds"] + two["dcn_seconds"]
    )
    # Within a slice the exchanges are those of one slice alone.
    within = [sum(kind["bytes_sent"] for kind in p["collectives"].values()) for p in (one, two)]
    assert within[1] == pytest.approx(within[0], rel=0.5)
    assert "between 2 slices" in done.stdout


@pytest.mark.slow
def test_a_search_plans_the_fastest_and_goes_on_where_it_was_stopped(tmp_path):
    def search(compiles):
        done = plan(
            "--config=tests/helpers/tiny.py:generator",
            "--topology=v5e:2x2",
            *("--codebook_size=64", "--grid=4,4", "--nosampler", "--norecipe", "--search"),
            *(f"--search_compiles={compiles}", f"--cache={tmp_path}/cache"),
            f"--output={tmp_path}/plan.json",
        )
        assert done.returncode == 0, done.stderr
        (planned,) = json.loads((tmp_path / "plan.json").read_text())["plans"]
        return planned, done.stdout

    first, _ = search(2)
    more, text = search(1)
    assert [len(one["search"]) for one in (first, more)] == [2, 3]
    speeds = [one["images_per_second"] for one in more["search"]]
    assert speeds == sorted(speeds, reverse=True) and more["images_per_second"] == speeds[0]
    assert "searched              3 settings" in text


@pytest.mark.slow
def test_a_generator_of_features_and_its_sampler(tmp_path):
    done = plan(
        "--config=tests/helpers/tiny.py:generator",
        "--config.model.feature_dim=24",
        "--config.model.condition_tokens=8",
        "--topology=v5e:2x2",
        "--codebook_size=64",
        "--grid=4,4",
        f"--output={tmp_path}/plan.json",
    )
    assert done.returncode == 0, done.stderr
    (of_features,) = json.loads((tmp_path / "plan.json").read_text())["plans"]
    # Those of the sampler: 3 steps of two passes over 8 + 16 tokens in 2 layers, and the features.
    assert of_features["sampler"]["step_seconds"] > 0
    assert of_features["sampler"]["model_flops_per_step"] > 0


@pytest.mark.slow
def test_lumina_mgpt_and_its_sampler(tmp_path):
    done = plan(
        "--config=configs/lumina_mgpt.py",
        *("--config.model.layers=2", "--config.model.dim=256", "--config.model.heads=2"),
        *("--config.model.kv_heads=2", "--config.model.mlp_dim=512", "--config.batch_size=8"),
        *("--config.samples.batch_size=2", "--config.model.vocabulary=9300"),
        "--topology=v5e:2x2",
        "--codebook_size=8192",
        "--grid=4,4",
        f"--output={tmp_path}/plan.json",
    )
    assert done.returncode == 0, done.stderr
    (of_prompts,) = json.loads((tmp_path / "plan.json").read_text())["plans"]
    assert of_prompts["fits"] and of_prompts["mfu"] > 0
    # Recomputed layers, and what fills the last chunk of positions up, come on top.
    assert 1 < of_prompts["hardware_flops_per_step"] / of_prompts["model_flops_per_step"] < 1.6
    assert of_prompts["sampler"]["fits"] and of_prompts["sampler"]["step_seconds"] > 0


@pytest.mark.slow
def test_a_tokenizer():
    done = plan("--config=tests/helpers/tiny.py:tokenizer", "--topology=v5e:2x2")
    assert done.returncode == 0, done.stderr
    assert "MFU" in done.stdout and "sampler" not in done.stdout


@pytest.mark.slow
def test_what_does_not_fit_is_said_with_how_much_is_missing(tmp_path):
    done = plan(
        "--config=tests/helpers/tiny.py:generator",
        "--topology=v5e:2x2",
        "--grid=64,64",
        "--codebook_size=16384",
        "--batch_per_chip=2048",
        "--nosampler",
    )
    assert done.returncode == 0, done.stderr
    assert "DOES NOT FIT" in done.stdout and "too much" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, words",
    [
        (["--topology=v5p:5x7"], "--topology=v5p:5x7"),
        (["--topology=h100:8"], "expected a TPU of v5e, v5p, v6e"),
        ([], "--topology is missing"),
        (
            ["--topology=v5e:2x2", "--config.compiler_options=xla_no=1"],
            "No such compile option: 'xla_no'",
        ),
        (["--topology=v5e:2x2", "--config.batch_size=7"], "config.batch_size = 7"),
    ],
)
def test_bad_input_is_one_clear_line(options, words):
    done = plan("--config=tests/helpers/tiny.py:generator", *options)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line
