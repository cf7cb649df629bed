"""Lumina-mGPT tuned on captioned images, from a folder to samples, as small as it goes."""

import io

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import maskgil_jax
from maskgil_jax import config as defaults
from maskgil_jax.conditioning import prompts
from maskgil_jax.data.records.image_records import Record
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.tokenizers import Tokenizer
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import random_weights, tiny, tiny_lumina

SETTINGS = dict(layers=2, dim=32, heads=4, kv_heads=4, mlp_dim=48, vocabulary=9300, dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Captioned images, a tokenizer with the codes of Chameleon-VQ, and a vocabulary."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        size = (12, 24) if i % 2 else (16, 16)
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(
            folder / f"images/{i:02}.png"
        )
        (folder / f"images/{i:02}.txt").write_text("red apple" if i % 3 else "pear")
    config = VQConfig(**tiny.SMALL_VQ | dict(codebook_size=8192))
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(0)))
    Tokenizer(network).save(folder / "vq")
    (folder / "tokenizer.json").write_bytes(tiny_lumina.vocabulary())
    return folder


def config_of(folder, **model):
    config = defaults.lumina_generator("7B")
    config.tokenizer, config.vocabulary = f"{folder}/vq", f"{folder}/tokenizer.json"
    config.steps, config.batch_size, config.log_every = 6, 8, 1
    config.checkpoint_every = config.pictures_every = 3
    config.data.update(source=f"folder:{folder}/images", image_size=16, crop="center", flip=False)
    config.data.threads = 2
    config.model.update(SETTINGS | dict(condition_tokens=128, dropout=0.0, remat="none") | model)
    config.optimizer.update(learning_rate=3e-3, warmup_steps=0)
    config.samples.update(classes=2, per_class=1, batch_size=2)
    config.evaluation.per_class = 1
    return config


@pytest.fixture(scope="module")
def trained(folder):
    run_stages(config_of(folder), epath.Path(folder / "run"))
    return folder / "run"


def test_a_model_is_tuned_and_draws_of_prompts(trained):
    losses = [line["loss"] for line in read_log(trained)]
    assert losses[0] == pytest.approx(np.log(9300) + 1e-5 * np.log(9300) ** 2, abs=1e-3)
    assert losses[-1] < losses[0] - 0.3
    model = maskgil_jax.load(trained / "model")
    codes = model.sample(["red apple", "pear"], 0, grid=(8, 8))
    assert codes.shape == (2, 8, 8)
    names = np.load(trained / "samples" / "samples.npz")["class_names"].tolist()
    assert set(names) <= {"red apple", "pear"}


def test_a_run_starts_from_a_model_that_reads_captions_itself(trained, folder):
    config = config_of(folder)
    config.vocabulary, config.start_from.generator = "", str(trained / "model")
    config.steps = 1
    run_stages(config, epath.Path(folder / "further"))
    first = read_log(folder / "further")[0]["loss"]
    assert first < read_log(trained)[0]["loss"] - 0.3


def record(caption):
    image = io.BytesIO()
    Image.new("RGB", (16, 16)).save(image, "PNG")
    return Record(image.getvalue(), 0, "a.png", lambda: (caption,))


def reader_of(folder, tokens, grids=((8, 8), (6, 10))):
    return prompts.of_captions(f"{folder}/tokenizer.json", tokens, 9300, grids).read


def test_the_prompt_says_the_size_and_the_caption(folder):
    model = tiny_lumina.generator()
    read, rng = reader_of(folder, 128), np.random.default_rng(0)
    for bucket, grid in enumerate([(8, 8), (6, 10)]):
        example = read(record("red apple"), rng, bucket)
        ids = example["ids"][example["mask"]]
        patches = [8804 + side // 2 for side in grid]
        assert ids.tolist() == [*model.ids(["red apple"], grid)[0], 8197, *patches]


def test_long_captions_lose_their_end(folder):
    read, rng = reader_of(folder, 128), np.random.default_rng(0)
    whole, cut = (read(record("red apple" * n), rng, 0) for n in (1, 50))
    assert cut["mask"].all() and cut["ids"][-4] == 8710
    length = int(whole["mask"].sum()) - 4
    np.testing.assert_array_equal(cut["ids"][:length], whole["ids"][whole["mask"]][:length])


def test_captions_with_signs_are_unreadable(folder):
    with pytest.raises(Unreadable, match="becomes the sign '<eoss>', which is no text"):
        reader_of(folder, 128)(record("<eoss>"), np.random.default_rng(0), 0)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(vocabulary=""), "config.vocabulary = '': there is no tokenizer.json"),
        (dict(vocabulary="{folder}/vq"), "there is no tokenizer.json, which captions are read by"),
        ({"model.vocabulary": 9000}, "tokenizer.json has 9[0-9]* ids, but config.model.vocabulary"),
        ({"model.condition_tokens": 9}, "condition_tokens = 9, expected [0-9]* or more: a prompt"),
        ({"data.image_size": 10}, "grid = .5, 5., expected even sides of 2 to 128"),
        ({"data.source": "embedded"}, "no caption"),
        ({"model.num_classes": 10}, "num_classes = 10, expected 0"),
        ({"model.order": "raster"}, "order = 'raster', expected 'lines'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, folder, tmp_path):
    config = config_of(folder)
    config.data.buckets = ""
    for name, value in changes.items():
        value = value.format(folder=folder) if isinstance(value, str) else value
        config.update_from_flattened_dict({name: value})
    with pytest.raises(InputError, match=message):
        run_stages(config, epath.Path(tmp_path))


def test_code_shards_are_refused(folder, finished, tmp_path):
    config = config_of(folder)
    config.data.update(source=f"arrayrecord:{finished}/codes", image_size=8, buckets="")
    with pytest.raises(InputError, match="keep no captions for preset chameleon: expected images"):
        run_stages(config, epath.Path(tmp_path))
