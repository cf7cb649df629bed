"""Bundles: a generator with its tokenizer in one directory that works wherever it lies."""

import functools
import json
import shutil
import sys

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

import maskgil_jax
from maskgil_jax.pretrained import companions, loading
from maskgil_jax.pretrained.generators import make_generator
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_data
from maskgil_jax.workflows import bundle
from tests.helpers import hub, tiny, tiny_gemma, tiny_llama
from tests.helpers.commands import call


def moved(finished, folder):
    """A work directory that was moved: none of the paths in it are there any more."""
    work = folder / "RUN"
    for name in ("model", "samples", "tokenizer/model"):
        shutil.copytree(finished / name, work / name)
    for name in ("config.json", "metrics.json"):
        shutil.copy(finished / name, work / name)
    path = work / "model" / "model.json"
    path.write_text(path.read_text().replace(str(finished), "/gone/RUN"))
    return work


@pytest.fixture(scope="module")
def bundled(finished, tmp_path_factory):
    """A bundle that was moved after what it was made of was removed."""
    work = moved(finished, tmp_path_factory.mktemp("elsewhere"))
    done = call("convert", "bundle", f"--source={work}/model", f"--output={work.parent}/first")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(work)
    return (work.parent / "first").rename(work.parent / "digits")


def test_a_moved_work_directory_finds_its_tokenizer(finished, tmp_path, caplog):
    work = moved(finished, tmp_path)
    with caplog.at_level("INFO"):
        generator, tokenizer = loading.load_pair(work / "model", "")
    assert generator.tokenizer["path"] == str(work / "tokenizer" / "model")
    assert tokenizer.fingerprint == generator.tokenizer["fingerprint"]
    told = [text for text in caplog.messages if "names /gone/RUN/tokenizer/model, which" in text]
    assert len(told) == 1


def test_moved_code_shards_find_their_tokenizer(finished, tmp_path):
    shutil.copytree(finished / "codes", tmp_path / "RUN" / "codes")
    shutil.copytree(finished / "tokenizer" / "model", tmp_path / "RUN" / "tokenizer" / "model")
    path = tmp_path / "RUN" / "codes" / "index.json"
    path.write_text(path.read_text().replace(str(finished), "/gone/RUN"))
    config = tiny.generator()
    config.data.source = f"arrayrecord:{tmp_path}/RUN/codes"
    data = generator_data.open_data(config)
    assert data.provenance["path"] == f"{tmp_path}/RUN/tokenizer/model"
    done = call(
        "inspect", f"--data={config.data.source}", "--num=4", f"--output={tmp_path}/codes.png"
    )
    assert done.returncode == 0, done.stderr


def test_another_tokenizer_at_the_same_place_is_not_taken(finished, tmp_path):
    work = moved(finished, tmp_path)
    path = work / "tokenizer" / "model" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 16}))
    with pytest.raises(InputError, match="no longer at /gone/RUN/tokenizer/model; give tokenizer"):
        loading.load_pair(work / "model", "")


def test_a_bundle_draws_what_its_run_drew(bundled, finished):
    """With the run's seed and none of its options: those are in the bundle."""
    output = bundled.parent / "out"
    options = (f"--model={bundled}", "--classes=0,5", "--num=2", f"--output={output}")
    done = call("sample", *options)
    assert done.returncode == 0, done.stderr
    assert "steps=3" in done.stderr
    drawn = np.load(output / "samples.npz")
    settings = json.loads(str(drawn["settings"]))
    assert settings["options"] == {} and settings["options_of_model"]["steps"] == 3
    generator, tokenizer = loading.load_pair(finished / "model", "")
    config = json.loads((finished / "config.json").read_text())["stages"]["generator"]["samples"]
    given = {name: config[name] for name in settings["options_of_model"]}
    pixels = tokenizer.decode(generator.sample([0, 0, 5, 5], 0, **given))
    expected = np.floor((np.asarray(pixels).clip(-1, 1) + 1) * 127.5 + 0.5)
    np.testing.assert_array_equal(drawn["arr_0"], expected.astype(np.uint8))


def test_a_bundle_is_a_model_directory_in_python(bundled, finished):
    generator = maskgil_jax.load(bundled)
    run = maskgil_jax.load(finished / "model")
    tokenizer = maskgil_jax.load(generator.tokenizer["path"])
    assert generator.fingerprint == run.fingerprint and tokenizer.kind == "tokenizer"
    assert generator.class_names == run.class_names == tuple(map(str, range(10)))
    assert generator.decoding["guidance"] == 3.0 and not run.decoding
    folders = [path for path in bundled.rglob("*") if path.is_dir()]
    assert all(any(path.iterdir()) for path in folders)  # git, and so the Hub, keeps no empty ones
    generator.save(bundled.parent / "saved")
    again = loading.generator_without_weights(bundled.parent / "saved")
    assert again.tokenizer["path"] == str(bundled / "tokenizer")
    assert again.decoding == generator.decoding


def test_the_card_has_metrics_options_sizes_and_picture(bundled, finished):
    text = (bundled / "README.md").read_text()
    _, matter, body = text.split("---\n", 2)
    assert yaml.safe_load(matter)["library_name"] == "maskgil_jax"
    metrics = json.loads((finished / "metrics.json").read_text())
    for name, value in metrics["metrics"].items():
        assert f"| {name} | {value:.4g} |" in body
    assert metrics["protocol"]["frechet"] in body and "`embedded`" in body
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(maskgil_jax.load(path).network))
        for path in (bundled, bundled / "tokenizer")
    ]
    assert f"| parameters of the generator | {sizes[0]:,} |" in body
    assert f"| parameters of the tokenizer | {sizes[1]:,} |" in body
    assert "steps=3" in body and str(finished) not in text and "/gone" not in text
    with Image.open(bundled / "grid.png") as ours, Image.open(finished / "samples/grid.png") as run:
        assert ours == run


def test_samples_of_other_weights_are_not_shown(finished, tmp_path):
    work = moved(finished, tmp_path)
    samples = work / "samples" / "samples.npz"
    arrays = dict(np.load(samples))
    settings = json.loads(str(arrays["settings"])) | {"generator": "0" * 16}
    np.savez(samples, **{**arrays, "settings": np.array(json.dumps(settings))})
    bundle.bundle(bundle.Parts(source=f"{work}/model"), f"{tmp_path}/OUT")
    assert not (tmp_path / "OUT" / "grid.png").exists()
    assert "## Metrics" not in (tmp_path / "OUT" / "README.md").read_text()


def test_an_encoder_goes_into_the_bundle_where_it_is_asked_for(finished, tmp_path):
    tiny_gemma.encoder().save(tmp_path / "encoder")
    encoder = maskgil_jax.load(tmp_path / "encoder")
    network = tiny_llama.built(
        codebook_size=64, grid=(4, 4), num_classes=0, feature_dim=32, condition_tokens=6
    )
    tokenizer = maskgil_jax.load(finished / "tokenizer" / "model").provenance
    generator = make_generator(network, tokenizer, encoder=encoder.provenance)
    generator.save(tmp_path / "model")
    common = ("bundle", f"--source={tmp_path}/model")
    assert call("convert", *common, f"--output={tmp_path}/without").returncode == 0
    done = call("convert", *common, f"--output={tmp_path}/with", "--with_encoder")
    assert done.returncode == 0, done.stderr
    (tmp_path / "encoder").rename(tmp_path / "gone")
    (tmp_path / "prompts.txt").write_text("seven and eight\n")
    options = ("sample", f"--prompts={tmp_path}/prompts.txt", "--num=1", "--steps=1")
    done = call(*options, f"--model={tmp_path}/without", f"--output={tmp_path}/out")
    assert done.returncode == 1 and "is no longer at" in done.stderr
    assert "give --encoder=DIR" in done.stderr
    done = call(*options, f"--model={tmp_path}/with", f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "with" / "README.md").read_text()
    assert "pipeline_tag: text-to-image" in card and "| encoder | in `encoder/`" in card
    shutil.rmtree(tmp_path / "with" / "encoder")
    done = call(*options, f"--model={tmp_path}/with", f"--output={tmp_path}/other")
    assert done.returncode == 1 and "it has no encoder in" in done.stderr


def test_nothing_is_overwritten(bundled):
    before = (bundled / "model.json").read_bytes()
    done = call("convert", "bundle", f"--source={bundled}", f"--output={bundled}")
    assert done.returncode == 1 and f"--output={bundled} exists; choose another" in done.stderr
    assert (bundled / "model.json").read_bytes() == before


def test_a_bundle_without_its_tokenizer_is_one_message(bundled, tmp_path):
    shutil.copytree(bundled, tmp_path / "digits")
    shutil.rmtree(tmp_path / "digits" / "tokenizer")
    done = call("sample", f"--model={tmp_path}/digits", "--classes=1", f"--output={tmp_path}/out")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/digits is not whole: it has no tokenizer in {tmp_path}/digits/tokenizer"
        "; copy or download it again, or give --tokenizer=DIR"
    )


def test_options_of_another_direction_are_refused(tmp_path):
    common = ("--source=/no", f"--output={tmp_path}/x")
    done = call("convert", "bundle", "--format=gemma", *common)
    assert (
        done.returncode == 1 and "--format=gemma goes with import and export alone" in done.stderr
    )
    done = call("convert", "export", "--format=gemma", "--with_encoder", *common)
    assert done.returncode == 1 and "goes with bundle alone" in done.stderr
    done = call("convert", "import", *common)
    assert done.returncode == 1 and "--format=: expected one of" in done.stderr


def test_a_card_of_an_imported_model_says_that_its_run_is_not_known(bundled, tmp_path):
    assert companions.INSIDE in (bundled / "model.json").read_text()
    bundle.bundle(bundle.Parts(source=str(bundled)), f"{tmp_path}/again")
    text = (tmp_path / "again" / "README.md").read_text()
    assert "| training | not known |" in text and "steps=3" in text


@pytest.fixture
def on_the_hub(bundled, tmp_path, monkeypatch):
    """The bundle as ada/digits of a stand-in of the Hub; gives the paths that are asked for."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from maskgil_jax.pretrained.hub import _snapshot

    _snapshot.cache_clear()
    download = huggingface_hub.snapshot_download
    with hub.serving({"ada/digits": bundled}) as (endpoint, asked):
        monkeypatch.setattr(
            huggingface_hub,
            "snapshot_download",
            functools.partial(download, endpoint=endpoint, cache_dir=tmp_path / "cache"),
        )
        yield asked
    _snapshot.cache_clear()


def test_a_bundle_is_loaded_and_sampled_from_the_hub(bundled, on_the_hub, tmp_path):
    generator = maskgil_jax.load("hf://ada/digits")
    assert generator.fingerprint == maskgil_jax.load(bundled).fingerprint
    count = len(on_the_hub)
    options = ("--classes=0,5", "--num=2", "--steps=2")
    for name, model in (("hub", "hf://ada/digits"), ("here", bundled)):
        done = call("sample", f"--model={model}", *options, f"--output={tmp_path}/{name}")
        assert done.returncode == 0, done.stderr
    assert len(on_the_hub) == count  # one download for a process, tokenizer and all
    assert (
        maskgil_jax.load("hf://ada/digits/tokenizer").fingerprint
        == (generator.tokenizer["fingerprint"])
    )
    ours, theirs = (np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("hub", "here"))
    np.testing.assert_array_equal(ours, theirs)


def test_what_the_hub_does_not_have_is_one_message(on_the_hub, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="hf://ada/nothing cannot be downloaded: "):
        maskgil_jax.load("hf://ada/nothing")
    with pytest.raises(InputError, match="hf://digits: expected hf://USER/NAME, or"):
        maskgil_jax.load("hf://digits")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = call("sample", "--model=hf://ada/other", "--classes=1", f"--output={tmp_path}/out")
    assert done.returncode == 1
    assert done.stderr == (
        "error: hf://ada/other needs huggingface_hub: pip install 'maskgil_jax[hub]'\n"
    )


@pytest.mark.slow
def test_a_bundle_is_written_to_a_bucket_and_read_from_it(bundled, bucket, tmp_path):
    done = call("convert", "bundle", f"--source={bundled}", f"--output={bucket}/digits")
    assert done.returncode == 0, done.stderr
    generator, tokenizer = loading.load_pair(f"{bucket}/digits", "")
    assert generator.tokenizer["path"] == f"{bucket}/digits/tokenizer"
    assert (bucket / "digits" / "README.md").exists()
    done = call("convert", "bundle", f"--source={bucket}/digits", f"--output={tmp_path}/back")
    assert done.returncode == 0, done.stderr
    assert maskgil_jax.load(tmp_path / "back").fingerprint == generator.fingerprint
    assert {path.name for path in bucket.iterdir()} == {"digits"}  # nothing under another name
