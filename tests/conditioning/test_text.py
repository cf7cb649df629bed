"""Generators of text, from captioned images to samples of prompts, with a tiny encoder."""

import json
import logging

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import maskgil_jax
from maskgil_jax.conditioning import choice
from maskgil_jax.conditioning.text import CaptionReader
from maskgil_jax.data import sources
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training import generator_data
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import code_shards
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, tiny, tiny_gemma

NAMES = "zero one two three four five six seven eight nine".split()
FEATURES = dict(feature_dim=32, condition_tokens=6, num_classes=0)


@pytest.fixture(scope="module")
def encoder(built_once):
    """The directory of a text encoder."""
    return built_once("text_encoder", tiny_gemma.encoder().save)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of digits with two captions each."""
    folder = tmp_path_factory.mktemp("pairs")
    source = sources.open_source("embedded")
    for i in range(64):
        record = source[i]
        (folder / f"{i:02}.png").write_bytes(record.image)
        (folder / f"{i:02}.txt").write_text(f"{NAMES[record.label]}\na black {record.label}\n")
    return folder


def shards(finished, pairs, output, **changes):
    config = tiny.codes()
    config.update(tokenizer=f"{finished}/tokenizer/model", source=f"folder:{pairs}", **changes)
    code_shards.run(config, epath.Path(output))
    return f"arrayrecord:{output}"


def config_of(source, encoder, finished):
    config = tiny.generator()
    config.tokenizer, config.encoder = f"{finished}/tokenizer/model", str(encoder)
    config.data.update(source=source, image_size=8, crop="center", flip=False)
    config.model.update(FEATURES)
    config.samples.classes = 4
    config.evaluation.reference = ""
    config.steps = 4
    return config


@pytest.fixture(scope="module")
def trained(finished, pairs, encoder, built_once):
    """Work directories of the same training, by where the features of captions come from."""

    def fill(base):
        kept = dict(encoder=str(encoder), caption_tokens=8)
        data = {
            "images": f"folder:{pairs}",
            "token ids": shards(finished, pairs, base / "ids", **kept),
            "features": shards(finished, pairs, base / "features", **kept, features=True),
        }
        for name, source in data.items():
            run_stages(config_of(source, encoder, finished), base / name)

    return built_once("text", fill)


def test_features_made_in_the_step_or_beforehand_give_the_same_training(trained):
    losses = {
        name: [row["loss"] for row in read_log(trained / name)]
        for name in ("images", "token ids", "features")
    }
    assert len(losses["images"]) == 4
    np.testing.assert_allclose(losses["token ids"], losses["images"], rtol=1e-6)
    np.testing.assert_allclose(losses["features"], losses["images"], rtol=1e-6)


def test_shards_hold_all_captions_and_their_features(trained, encoder):
    loaded = maskgil_jax.load(encoder)
    ids, features = (CodeShards(str(trained / name)) for name in ("ids", "features"))
    assert ids.index.encoder["fingerprint"] == loaded.fingerprint and ids.index.features == ""
    for i in (0, 17, 63):
        record = features[i]
        label = json.loads((trained / "ids" / "index.json").read_text())["class_names"]
        captions = [loaded.vocabulary.text(caption) for caption in record.captions]
        assert captions[0] in NAMES and captions[1].startswith("a black ") and len(label) == 1
        assert [c.tolist() for c in ids[i].captions] == [c.tolist() for c in record.captions]
        for caption, values in zip(captions, record.features, strict=True):
            expected, mask = loaded.features([caption], 8)
            np.testing.assert_allclose(values, expected[0][np.asarray(mask[0])], atol=1e-5)


def test_token_ids_beyond_the_vocabulary_are_unreadable(encoder):
    vocabulary = maskgil_jax.load(encoder).vocabulary
    read = CaptionReader(vocabulary, 8, features=False)
    last, beyond = (
        CodeRecord(np.zeros((1, 4, 4), int), 0, "a", (8, 8), (np.array([id], np.int32),))
        for id in (vocabulary.size - 1, vocabulary.size)
    )
    assert read(last, np.random.default_rng(0), 0)["prompt"][-1] == vocabulary.size - 1
    with pytest.raises(Unreadable, match=f"token id {vocabulary.size} of a caption, expected 0 to"):
        read(beyond, np.random.default_rng(0), 0)


def test_the_model_knows_its_encoder_and_its_pictures_their_captions(trained, encoder):
    generator = maskgil_jax.load(trained / "images" / "model")
    loaded = maskgil_jax.load(encoder)
    assert generator.encoder["fingerprint"] == loaded.fingerprint
    assert generator.encoder["path"] == str(encoder)
    assert choice.encoder_of(generator, "").fingerprint == loaded.fingerprint
    names = np.load(trained / "images" / "samples" / "samples.npz")["class_names"].tolist()
    assert len(names) == 4
    assert all(name in NAMES or name.startswith("a black ") for name in names)


def test_another_encoder_is_refused(trained, tmp_path):
    tiny_gemma.encoder(layer=-1).save(tmp_path / "other")
    generator = maskgil_jax.load(trained / "images" / "model")
    with pytest.raises(InputError, match="was trained on features of"):
        choice.encoder_of(generator, str(tmp_path / "other"))
    of_classes = maskgil_jax.load(trained / "images" / "model")
    of_classes.encoder = {}
    with pytest.raises(InputError, match="was not trained with an encoder"):
        choice.encoder_of(of_classes, "")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.feature_dim": 16}, r"width 32, but config.model.feature_dim = 16.*=32"),
        ({"model.feature_dim": 0, "model.condition_tokens": 1}, "expected one of the first two"),
        ({"encoder": ""}, "expected one of the first two"),
        ({"data.features": "x"}, "expected one of the first two"),
        ({"data.image_size": 16}, "image_size = 16, but .* --config.data.image_size=8"),
        ({"model.condition_tokens": 9}, "keep 8 tokens of a caption, but .*condition_tokens = 9"),
    ],
)
def test_what_does_not_fit_is_named_before_training(
    changes, message, trained, encoder, finished, tmp_path
):
    config = config_of(f"arrayrecord:{trained / 'ids'}", encoder, finished)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        run_stages(config, epath.Path(tmp_path))


def test_shards_without_captions_and_of_another_encoder_are_refused(
    trained, encoder, finished, tmp_path
):
    config = config_of(f"arrayrecord:{finished / 'codes'}", encoder, finished)
    with pytest.raises(InputError, match="hold no captions.*tokenize with encoder="):
        run_stages(config, epath.Path(tmp_path))
    tiny_gemma.encoder(layer=-1).save(tmp_path / "other")
    config = config_of(f"arrayrecord:{trained / 'ids'}", tmp_path / "other", finished)
    with pytest.raises(InputError, match="hold captions for .*, but the encoder here is"):
        run_stages(config, epath.Path(tmp_path))


@pytest.mark.slow
def test_images_without_usable_captions_are_left_out_and_counted(
    finished, encoder, tmp_path, caplog
):
    folder = tmp_path / "pairs"
    folder.mkdir()
    bad = {"empty": b"\n \n", "latin": "caf\xe9".encode("latin-1"), "long": b"word " * 10_000}
    for i in range(20):
        Image.fromarray(np.full((8, 8, 3), 12 * i, np.uint8)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text("zero")
    for i, content in enumerate(bad.values()):
        (folder / f"{i:02}.txt").write_bytes(content)
    (folder / "03.txt").unlink()
    (folder / "04.txt").rename(folder / "04.json")
    (folder / "04.json").write_text('{"caption": "so cute \\ud83d"}')  # half an emoji
    config = config_of(f"folder:{folder}", encoder, finished)
    config.data.bad_image_limit = 0.3
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        run_stages(config, epath.Path(tmp_path / "run"))
    assert read_log(tmp_path / "run")[-1]["unreadable_images"] == 5
    for name in ("00.png", "01.png", "02.png", "03.png", "04.png"):
        assert any(name in record.message for record in caplog.records)
    written = shards(
        finished, folder, tmp_path / "codes", encoder=str(encoder), bad_image_limit=0.3
    )
    assert len(CodeShards(written.partition(":")[2])) == 15
    with pytest.raises(InputError, match="bad_image_limit"):
        shards(finished, folder, tmp_path / "few", encoder=str(encoder), bad_image_limit=0.1)


@pytest.mark.slow
def test_an_encoder_is_split_over_devices_like_the_rest(
    trained, pairs, encoder, finished, tmp_path
):
    config = config_of(f"folder:{pairs}", encoder, finished)
    config.mesh.update(data=2, fsdp=2, tensor=2)
    run_stages(config, epath.Path(tmp_path))
    expected = [row["loss"] for row in read_log(trained / "images")]
    np.testing.assert_allclose([row["loss"] for row in read_log(tmp_path)], expected, rtol=1e-5)
    assert jax.device_count() == 8


@pytest.mark.slow
def test_a_model_of_text_goes_on_at_many_larger_sizes(trained, pairs, encoder, finished, tmp_path):
    """Weak to strong: from squares of 8 pixels to sizes about 16 pixels a side."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i in range(48):
        size = [(20, 20), (40, 12), (12, 40)][i % 3]
        Image.open(pairs / f"{i:02}.png").resize(size).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text((pairs / f"{i:02}.txt").read_text())
    config = config_of(f"folder:{folder}", encoder, finished)
    config.data.update(image_size=16, buckets="lumina")
    config.batch_size, config.steps = 8, 6
    config.start_from.generator = f"{trained}/images/model"
    run_stages(config, epath.Path(tmp_path / "run"))
    before, after = (maskgil_jax.load(d / "model") for d in (trained / "images", tmp_path / "run"))
    assert (before.grid, after.grid) == ((4, 4), (8, 8))
    moved = [
        float(abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(
            jax.tree.leaves(after.network), jax.tree.leaves(before.network), strict=True
        )
    ]
    assert 0 < max(moved) < 0.05  # some steps away, not from scratch
    tiny_gemma.encoder(layer=-1).save(tmp_path / "other")
    config.encoder = str(tmp_path / "other")
    with pytest.raises(InputError, match="start_from.generator.*trained on features of encoder"):
        run_stages(config, epath.Path(tmp_path / "refused"))


@pytest.mark.slow
def test_prompts_of_a_file_are_drawn_at_any_size_away_from_another(trained, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("zero\n\na black 7\n")
    options = [f"--model={trained}/images/model", f"--prompts={prompts}", "--steps=2", "--num=2"]
    options.append("--guidance=1000")  # the model has hardly been trained
    drawn = {}
    for negative in ("", "--negative_prompt=nine"):
        out = tmp_path / f"out{negative}"
        done = commands.call(
            "sample", *options, "--size=16x8", f"--output={out}", *([negative] * bool(negative))
        )
        assert done.returncode == 0, done.stderr
        with np.load(out / "samples.npz") as found:
            drawn[negative] = found["arr_0"]
            assert found["class_names"].tolist() == ["zero", "a black 7"]
            assert found["labels"].tolist() == [0, 0, 1, 1]
    assert drawn[""].shape == (4, 8, 16, 3)
    assert (drawn[""] != drawn["--negative_prompt=nine"]).any()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--prompts=none.txt"], "--prompts=none.txt"),
        (["--prompts=none.txt", "--classes=1"], "classes and prompts given"),
        (["--classes=1", "--negative_prompt=x"], "goes with prompts, not with classes"),
        (["--speech=none.wav"], "--speech=none.wav"),
        (["--speech={folder}/a.wav"], "expected --recognizer=DIR"),
    ],
)
def test_bad_prompts_are_one_clear_line(options, message, trained, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="needs the extra [speech]")
    soundfile.write(tmp_path / "a.wav", np.zeros(1600, np.float32), 16_000)
    options = [option.format(folder=tmp_path) for option in options]
    done = commands.call(
        "sample", f"--model={trained}/images/model", *options, f"--output={tmp_path}/out"
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line


def test_how_well_captions_match_is_measured_by_a_command(trained, tmp_path):
    done = commands.call(
        "condition_match",
        f"--model={trained}/images/model",
        f"--codes={trained}/features",
        "--masks=2",
        f"--output={tmp_path}/match.json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "match.json").read_text())
    assert found["images"] > 40 and 0 <= found["interval"][0] <= found["preferred"]
    assert f"{found['preferred']:.1%} of {found['images']} images" in done.stdout


def test_captioned_images_of_several_folders_are_mixed(pairs, encoder, finished, tmp_path):
    """Folders name the one class of their images, of which text knows nothing."""
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted(pairs.glob("0*")):
        (other / path.name).write_bytes(path.read_bytes())
    config = config_of("", encoder, finished)
    config.data.mixture = ((f"folder:{pairs}", 3), (f"folder:{other}", 1))
    assert len(generator_data.open_data(config).dataset) == 64 + 10
