"""What each command does with its flags: the files that it leaves, and what they hold."""

import json
import shutil
import time

import jax
import numpy as np
import pytest
from PIL import Image

import maskgil_jax
from tests.helpers import commands
from tests.helpers.commands import call


@pytest.mark.slow
def test_sample_writes_pictures_and_an_npz(finished, tmp_path):
    done = commands.run(
        "sample",
        f"--model={finished}/model",
        "--classes=3,7",
        "--num=3",
        "--steps=4",
        f"--output={tmp_path}/out",
    )
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"{i:05}.png" for i in range(6)), "grid.png", "samples.npz"]
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        images, labels = samples["arr_0"], samples["labels"]
    assert labels.tolist() == [3, 3, 3, 7, 7, 7] and images.shape == (6, 8, 8, 3)
    generator = maskgil_jax.load(finished / "model")
    tokenizer = maskgil_jax.load(finished / "tokenizer" / "model")
    from maskgil_jax.data.images.pixel_levels import to_uint8

    codes = generator.sample(labels, 0, steps=4)
    difference = to_uint8(tokenizer.decode(codes)).astype(int) - images
    assert np.abs(difference).max() <= 1


@pytest.mark.slow
def test_a_draw_that_is_killed_is_refused_and_goes_on_to_the_same_files(finished, tmp_path):
    options = (f"--model={finished}/model", "--classes=3,7", "--num=200", "--steps=8")
    options += ("--batch_size=4",)
    killed = commands.start("sample", *options, f"--output={tmp_path}/killed", stdout=None)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("killed/*.png"))) < 40 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    reference = ("--reference=embedded", "--metrics=frechet", f"--output={tmp_path}/m.json")
    done = call("evaluate", f"--samples={tmp_path}/killed", *reference)
    assert done.returncode == 1 and "killed is unfinished" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "m.json").exists()
    done = call("sample", *options, f"--output={tmp_path}/killed")
    assert done.returncode == 0 and "of 400 images are there" in done.stderr
    assert call("sample", *options, f"--output={tmp_path}/whole").returncode == 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "killed").iterdir())
    for name in names:
        pair = [(tmp_path / of / name).read_bytes() for of in ("killed", "whole")]
        assert pair[0] == pair[1], name


@pytest.mark.slow
def test_a_damaged_model_is_refused_unless_told_otherwise(finished, tmp_path):
    model = shutil.copytree(finished / "model", tmp_path / "model")
    path = model / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 16}))
    options = (
        f"--model={model}",
        "--classes=3",
        "--num=1",
        "--steps=2",
        f"--output={tmp_path}/out",
    )
    done = call("sample", *options)
    assert done.returncode == 1 and "is damaged or was changed" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    assert call("sample", *options, "--noverify").returncode == 0


@pytest.mark.slow
def test_sample_draws_any_size(finished, tmp_path):
    options = (f"--model={finished}/model", "--classes=3,7", "--num=2", f"--output={tmp_path}/out")
    done = call("sample", *options, "--size=16x6", "--steps=2")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        assert samples["arr_0"].shape == (4, 6, 16, 3)
    with Image.open(tmp_path / "out" / "00003.png") as image:
        assert image.size == (16, 6)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [0, 7, 16])
def test_sample_of_a_prefix_token_by_token_and_the_rest_masked(prefix, finished, causal, tmp_path):
    done = call(
        "sample",
        f"--model={finished}/model",
        "--method=hybrid",
        f"--prefix_model={causal}/model",
        f"--prefix={prefix}",
        "--prefix_top_k=9",
        "--classes=3,7",
        "--num=2",
        "--steps=2",
        f"--output={tmp_path}/out",
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        images, labels = samples["arr_0"], samples["labels"]
    first = maskgil_jax.load(causal / "model").sample(labels, 0, tokens=prefix, top_k=9)
    codes = maskgil_jax.load(finished / "model").sample(labels, 0, codes=first, steps=2)
    from maskgil_jax.data.images.pixel_levels import to_uint8

    known = np.asarray(first) < 64
    assert (
        known.sum() == 4 * prefix and (np.asarray(codes)[known] == np.asarray(first)[known]).all()
    )
    pixels = to_uint8(maskgil_jax.load(finished / "tokenizer" / "model").decode(codes))
    assert np.abs(pixels.astype(int) - images).max() <= 1


def test_a_causal_model_draws_token_by_token(causal, tmp_path):
    options = (f"--model={causal}/model", "--classes=3", "--num=2", f"--output={tmp_path}/out")
    done = call("sample", *options, "--temperature=0", "--guidance=1.5")
    assert done.returncode == 0, done.stderr
    done = call("sample", *options, "--steps=3")
    assert done.returncode == 1 and "--steps=3 is not an option of --method=autoreg" in done.stderr


@pytest.mark.slow
def test_sweep_tells_quality_and_time_of_each_setting(finished, causal, tmp_path):
    options = (
        f"--model={finished}/model",
        "--method=hybrid",
        f"--prefix_model={causal}/model",
        "--vary=prefix=0,8,16",
        "--vary=guidance=1,3",
        "--steps=2",
        "--batch_size=30",
        "--reference=embedded:test",
        "--metrics=frechet,accuracy",
    )
    done = call("sweep", *options, f"--output={tmp_path}/out", "--num=30")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
    settings = [(row["prefix"], row["guidance"]) for row in rows]
    assert settings == [(p, g) for p in (0, 8, 16) for g in (1.0, 3.0)]
    for row in rows:
        assert row["seconds_per_image"] > 0 and row["pixel_frechet_distance"] > 0
        assert 0 <= row["pixel_class_accuracy"] <= 1
    # Nothing is left for masked decoding, and so for its guidance, after a prefix of all tokens.
    assert rows[4]["pixel_frechet_distance"] == rows[5]["pixel_frechet_distance"]
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"settings", "sweep.json", "sweep.csv", "sweep.md"} | {
        f"{name}.png" for name in ("quality_time", "frontier", "prefix", "guidance", "panel")
    }
    # The same again has nothing to draw, another one is refused.
    began = time.monotonic()
    again = call("sweep", *options, f"--output={tmp_path}/out", "--num=30")
    assert again.returncode == 0 and again.stdout == done.stdout, again.stderr
    assert time.monotonic() - began < 60
    other = call("sweep", *options, f"--output={tmp_path}/out", "--num=31")
    assert other.returncode == 1 and "is of other images (it differs in count" in other.stderr


@pytest.mark.slow
def test_compare_measures_generators_of_both_kinds(finished, causal, tmp_path):
    done = call(
        "compare",
        f"--models={finished}/model,{causal}/model",
        f"--codes={finished}/codes",
        "--reference=embedded:test",
        "--num=40",
        "--batch_size=40",
        f"--output={tmp_path}/out",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "generators.json").read_text())["generators"]
    assert [row["kind"] for row in rows] == ["masked", "causal"]
    for row in rows:
        assert row["steps"] == 6 and 0 < row["validation_loss"] < np.log(64) + 0.1
        assert 0 <= row["validation_accuracy"] < 1 and row["pixel_frechet_distance"] > 0
    # The causal loss is that of the logits that a user gets.
    from maskgil_jax.data.shards.shard_reader import CodeShards
    from maskgil_jax.runtime.batches import spread

    shards = CodeShards(f"{finished}/codes")
    found = [shards[i] for i in spread(len(shards), 40).tolist()]
    codes, labels = np.stack([r.codes[0] for r in found]), np.array([r.label for r in found])
    logits = maskgil_jax.load(causal / "model").logits(codes, labels)
    log_p = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    expected = -np.take_along_axis(np.asarray(log_p), codes.reshape(40, -1, 1), axis=-1).mean()
    np.testing.assert_allclose(rows[1]["validation_loss"], expected, rtol=1e-5)
    for name in ("generators.csv", "generators.md", "generators.png", "samples.png", "curves.png"):
        assert (tmp_path / "out" / name).exists()

    tokenizer = f"--tokenizer={finished}/tokenizer/model"
    larger = ("--data=embedded:test", "--image_size=16", f"--output={tmp_path}/larger")
    assert call("tokenize", tokenizer, *larger).returncode == 0
    options = ("--reference=embedded:test", f"--output={tmp_path}/o")
    done = call("compare", f"--models={finished}/model", f"--codes={tmp_path}/larger", *options)
    assert done.returncode == 1 and "samples (4, 4) tokens, but the shards" in done.stderr


@pytest.mark.slow
def test_tokenize_then_evaluate(finished, tmp_path):
    done = call(
        "tokenize",
        f"--tokenizer={finished}/tokenizer/model",
        "--data=embedded:test",
        f"--output={tmp_path}/codes",
        "--image_size=8",
        "--crops=10",
    )
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "codes" / "index.json").read_text())
    assert index["examples"] == 360 and index["views"] == 10 and index["complete"]
    assert (
        index["tokenizer"]["fingerprint"]
        == maskgil_jax.load(finished / "tokenizer" / "model").fingerprint
    )

    done = call(
        "evaluate",
        f"--samples={finished}/samples",
        "--reference=embedded:test",
        "--metrics=frechet,pr,accuracy",
        f"--output={tmp_path}/metrics.json",
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["samples"]["count"] == 40 and content["reference"]["count"] == 360
    assert content["metrics"].keys() == content["real_to_real"].keys()
    assert "not comparable with FID" in content["features"][0]


@pytest.mark.slow
def test_evaluate_draws_what_it_measures(finished, tmp_path):
    drawing = (f"--model={finished}/model", "--steps=3", "--guidance=2", "--seed=5")
    classes = ",".join(str(i % 10) for i in range(300))
    done = call("sample", *drawing, f"--classes={classes}", "--num=1", f"--output={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    common = ("--reference=embedded:test", "--metrics=frechet,pr,accuracy")
    for name, options in (
        ("files", (f"--samples={tmp_path}/s",)),
        ("drawn", (*drawing, "--num=300", "--batch_size=100")),
    ):
        done = call("evaluate", *options, *common, f"--output={tmp_path}/{name}.json")
        assert done.returncode == 0, done.stderr
    files, drawn = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("files", "drawn"))
    # Another batch size moves pixels by a level here and there, as rounding of floats goes.
    for name, value in files["metrics"].items():
        np.testing.assert_allclose(drawn["metrics"][name], value, rtol=0.02, err_msg=name)
    about = drawn["samples"]
    assert about["count"] == 300 and about["seed"] == drawn["seed"] == 5
    assert about["options"] == {"steps": 3, "guidance": 2.0}
    model = maskgil_jax.load(finished / "tokenizer" / "model")
    assert about["tokenizer"] == model.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drawn.json", "files.json", "s"]


@pytest.mark.slow
def test_features_once_serve_every_evaluation(finished, tmp_path):
    spec = "tests.test_commands:thumbnails"
    common = (f"--samples={finished}/samples", f"--features={spec}", "--metrics=frechet,pr")
    done = call(
        "features",
        "--data=embedded:test",
        "--image_size=8",
        f"--features={spec}",
        f"--output={tmp_path}/features.npz",
    )
    assert done.returncode == 0, done.stderr
    for name, reference in (("images", "embedded:test"), ("file", f"{tmp_path}/features.npz")):
        done = call(
            "evaluate", *common, f"--reference={reference}", f"--output={tmp_path}/{name}.json"
        )
        assert done.returncode == 0, done.stderr
    images, file = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("images", "file"))
    assert images["metrics"].keys() == file["metrics"].keys() and len(file["metrics"]) == 3
    for name, value in images["metrics"].items():
        np.testing.assert_allclose(file["metrics"][name], value, rtol=1e-6, err_msg=name)
    assert file["reference"]["of"]["pixels_sha256"] == images["reference"]["pixels_sha256"]
    # Both sides by the flag of this name.
    both = f"--features={tmp_path}/features.npz,{tmp_path}/features.npz"
    done = call("evaluate", both, "--metrics=frechet", f"--output={tmp_path}/both.json")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "both.json").read_text())
    assert abs(content["metrics"]["thumbnails_frechet_distance"]) < 1e-9
    done = call(
        "evaluate", *common[:1], both, "--reference=embedded", f"--output={tmp_path}/n.json"
    )
    assert done.returncode == 1 and "names both sides: expected no samples, no model" in done.stderr


def thumbnails(images):
    """A network of a user."""
    return images[:, ::2, ::2].reshape(len(images), -1).astype(np.float32)


@pytest.mark.slow
def test_a_tokenizer_that_moved_is_asked_for(finished, tmp_path):
    import shutil

    shutil.copytree(finished / "model", tmp_path / "model")
    path = str(finished / "tokenizer" / "model")
    description = (tmp_path / "model" / "model.json").read_text()
    (tmp_path / "model" / "model.json").write_text(description.replace(path, "/gone"))
    options = (f"--model={tmp_path}/model", "--classes=1", "--steps=2", f"--output={tmp_path}/out")
    done = call("sample", *options)
    assert done.returncode == 1 and "is no longer at /gone; give --tokenizer=DIR" in done.stderr
    assert call("sample", *options, f"--tokenizer={path}").returncode == 0
    options = (f"--models={tmp_path}/model", f"--codes={finished}/codes", "--num=8")
    options += ("--reference=embedded:test", "--metrics=frechet", f"--output={tmp_path}/table")
    done = call("compare", *options)
    assert done.returncode == 1 and "is no longer at /gone; give --tokenizer=DIR" in done.stderr
    assert call("compare", *options, f"--tokenizer={path}").returncode == 0


@pytest.mark.slow
def test_reconstruct_compares_tokenizers_and_evaluate_agrees(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished / "tokenizer" / "model", other)
    done = call(
        "reconstruct",
        f"--tokenizers={finished}/tokenizer/model,{other}",
        "--data=embedded:test",
        "--image_size=8",
        "--count=20",
        f"--output={tmp_path}/out",
    )
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "out" / "tokenizers.json").read_text())
    first, second = table["tokenizers"]
    assert (first["tokenizer"], second["tokenizer"]) == ("tokenizer", "other")
    assert first["codes"] == 64 and first["head_parameters"] == 768 * 64
    assert first["psnr"] == second["psnr"] and "| tokenizer | cosine | 64 |" in done.stdout
    for name in ("tokenizers.md", "tokenizers.csv", "tokenizers.png", "reconstructions.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0

    done = call(
        "evaluate",
        f"--samples={tmp_path}/out/tokenizer.npz",
        f"--reference={tmp_path}/out/originals.npz",
        "--metrics=psnr,ssim,codebook",
        f"--output={tmp_path}/metrics.json",
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("psnr", "ssim", "codebook_usage", "codebook_perplexity"):
        assert content["metrics"][name] == first[name]
    assert "uint8 by half_up" in content["samples"]["protocol"]
    # The training run measured the same on the same images.
    trained = json.loads((finished / "tokenizer" / "metrics.json").read_text())
    np.testing.assert_allclose(trained["psnr"], first["psnr"], rtol=1e-4)
