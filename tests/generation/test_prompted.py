"""Images by a model that reads prompts itself: by the command, and as the prefix of a hybrid."""

import copy
import functools
import logging
import shutil

import jax
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.generation import requests, samplers, sampling
from maskgil_jax.generation.options import Companions, Decoding, SampleOptions
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import npz
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.errors import InputError
from tests.helpers import random_weights, tiny_dimoo, tiny_llama, tiny_lumina
from tests.helpers.tiny import SMALL_VQ

GRID = (2, 4)
PROMPTS = ["red apple", "pear"]
LABELS = np.array([1, 0, 1])
FAST = dict(guidance=1.0, top_k=5)


@pytest.fixture(scope="module")
def tokenizer():
    changes = dict(codebook_size=8192, quantizer="euclidean", channel_multipliers=(1,) * 5)
    config = VQConfig(**SMALL_VQ | changes)
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(0)))
    return Tokenizer(network, "vq")


@functools.cache
def of_text():
    """A masked generator of the same codes and of features."""
    return tiny_llama.masked(
        num_classes=0, feature_dim=7, condition_tokens=2, codebook_size=8192, grid=(6, 6)
    )


def by_row(labels):
    values = np.random.default_rng(0).standard_normal((2, 2, 7)).astype(np.float32)
    return Features(values[labels], np.ones((len(labels), 2), bool))


def texts(labels):
    return [PROMPTS[label] for label in labels]


def hybrid(first, **changes):
    settings = dict(prefix=5, prefix_options=FAST, conditions=by_row, grid=GRID, steps=2)
    given = dict(texts=samplers.Texts(texts)) | settings | changes
    return samplers.hybrid_sampler(first, of_text(), 3, **given)


def test_a_prefix_reads_the_prompts_and_the_rest_their_features():
    first = tiny_lumina.generator()
    codes = np.asarray(hybrid(first)(LABELS, 0))
    prefix = first.sample(texts(LABELS), 3, tokens=5, grid=GRID, **FAST)
    rest = of_text().sample(by_row(LABELS), 3, codes=prefix, steps=2)
    np.testing.assert_array_equal(codes, rest)
    np.testing.assert_array_equal(codes.reshape(3, 8)[:, :5], prefix.reshape(3, 8)[:, :5])
    assert codes.max() < 8192


def test_codes_of_another_tokenizer_are_refused_and_of_an_unknown_one_said(caplog):
    first = copy.copy(tiny_lumina.generator())
    with caplog.at_level(logging.WARNING):
        hybrid(first)
    assert "names no tokenizer" in caplog.text
    first.tokenizer, rest = {"path": "a", "fingerprint": "1"}, copy.copy(of_text())
    rest.tokenizer = {"path": "b", "fingerprint": "2"}
    with pytest.raises(InputError, match="models that do not fit: .'1', '2'."):
        samplers.hybrid_sampler(
            first, rest, 0, prefix=5, prefix_options={}, texts=samplers.Texts(texts), grid=GRID
        )
    with pytest.raises(InputError, match="the model of the prefix reads prompts"):
        hybrid(first, texts=None)


@pytest.mark.parametrize("prefix", [-1, 9])
def test_a_prefix_longer_than_the_grid_is_named(prefix):
    decoding = dict(method="hybrid", prefix=prefix, prefix_model="NOWHERE")
    with pytest.raises(InputError, match=f"prefix={prefix}, expected 0 to 8: an image has 2 x 4"):
        samplers.from_options(of_text(), decoding, 0, by_row, grid=GRID)


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    """The directory of a model that names its tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer.save(folder / "vq")
    model = copy.copy(tiny_lumina.generator())
    model.tokenizer = {"path": str(folder / "vq"), "fingerprint": tokenizer.fingerprint}
    model.save(folder / "lumina")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return folder


def options(folder, **changes):
    given = dict(
        model=str(folder / "lumina"), prompts=str(folder / "prompts.txt"), size="128x64", num=2,
        batch_size=2, seed=3, companions=Companions(), output=str(folder / "out"),
        decoding=Decoding(**FAST), processes=Processes(),
    )  # fmt: skip
    return SampleOptions(**given | changes)


def test_the_command_draws_prompts(model, tokenizer):
    sampling.sample(options(model))
    found = npz.read_arrays(str(model / "out" / "samples.npz"))
    assert found["arr_0"].shape == (4, 64, 128, 3)
    np.testing.assert_array_equal(found["labels"], [0, 0, 1, 1])
    assert (model / "out" / "00003.png").exists() and (model / "out" / "grid.png").exists()
    drawn = tiny_lumina.generator().sample(
        [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]], 3, grid=(4, 8), **FAST
    )
    pixels = (np.asarray(tokenizer.decode(drawn)).clip(-1, 1) + 1) * 127.5
    assert np.abs(found["arr_0"] - pixels).max() <= 1


@pytest.fixture(scope="module")
def dimoo(model):
    """The directory of a masked model of the same tokenizer."""
    masked = copy.copy(tiny_dimoo.generator())
    masked.tokenizer = maskgil_jax.load(model / "lumina").tokenizer
    masked.save(model / "dimoo")
    return str(model / "dimoo")


def test_the_command_draws_prompts_with_a_masked_model(model, dimoo, tokenizer):
    fast = dict(steps=2, guidance=1.0)
    sampling.sample(options(model, model=dimoo, num=1, decoding=Decoding(**fast)))
    found = npz.read_arrays(str(model / "out" / "samples.npz"))
    drawn = tiny_dimoo.generator().sample(PROMPTS, 3, grid=(4, 8), **fast)
    pixels = (np.asarray(tokenizer.decode(drawn)).clip(-1, 1) + 1) * 127.5
    assert np.abs(found["arr_0"] - pixels).max() <= 1
    with pytest.raises(InputError, match="the nearest are 96x96, 128x64"):
        sampling.sample(options(model, model=dimoo, size="256x96"))
    with pytest.raises(InputError, match="top_kk"):
        tiny_dimoo.generator().check_options(dict(top_kk=3), (4, 8))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            dict(size="256x96"),
            "size=256x96 is none of the .* sizes about 96x96.*the nearest are 96x96, 128x64",
        ),
        (dict(prompts="", classes=(1,)), "the generator is conditioned on prompts, not on classes"),
        (
            dict(companions=Companions(encoder="gemma")),
            "encoder=gemma: the generator reads prompts",
        ),
        (dict(decoding=Decoding(steps=3)), "steps=3 is not an option of method=autoregressive"),
    ],
)
def test_what_it_cannot_draw_is_named(changes, message, model):
    with pytest.raises(InputError, match=message):
        sampling.sample(options(model, **changes))


def test_every_size_of_the_list_is_taken():
    generator = tiny_lumina.generator()
    for size in ("96x96", "128x64", "64x96", "64x128"):
        grid = requests.grid_of(size, 16)
        requests.check_listed(generator, size, grid)
        generator.check_options({}, grid)


def test_what_cannot_be_drawn_is_named_before_weights_are_read(model, tmp_path):
    """The weights are not there."""
    shutil.copytree(model / "lumina", tmp_path / "lumina")
    shutil.rmtree(tmp_path / "lumina" / "params")
    (tmp_path / "long.txt").write_text("pear " * 1500)
    bare = dict(model=str(tmp_path / "lumina"))
    with pytest.raises(InputError, match="size=256x96 is none of the 7 sizes"):
        sampling.sample(options(model, **bare, size="256x96"))
    with pytest.raises(InputError, match="prompt 0 has .* an image of 4 x 8 codes takes 40 and"):
        sampling.sample(options(model, **bare, prompts=str(tmp_path / "long.txt")))
    decoding = dict(method="hybrid", prefix=5, prefix_model=str(tmp_path / "lumina"))
    rest = copy.copy(of_text())
    rest.tokenizer = {"path": "b", "fingerprint": "2"}
    with pytest.raises(InputError, match="models that do not fit"):
        samplers.from_options(rest, decoding, 0, by_row, grid=GRID)


@pytest.mark.slow
def test_devices_that_share_the_weights_draw_the_same_images(model, tmp_path):
    drawn = []
    for tensor in (1, 4):
        output = tmp_path / str(tensor)
        sampling.sample(options(model, output=str(output), tensor=tensor))
        drawn.append(npz.read_arrays(str(output / "samples.npz"))["arr_0"])
    np.testing.assert_array_equal(*drawn)
    weights = maskgil_jax.load(model / "lumina", tensor=4).network.blocks.query
    assert len(weights[...].sharding.device_set) == 4
    assert weights[...].addressable_shards[0].data.size * 4 == weights[...].size


def test_more_devices_than_there_are_are_refused(model):
    with pytest.raises(InputError, match="tensor = 9, expected 1 to 8 .devices of this process."):
        maskgil_jax.load(model / "lumina", tensor=9)
