"""Sweeps over the prefix of hybrids of text and of features in files: what they leave behind."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from maskgil_jax.data.images.pixel_levels import to_uint8
from maskgil_jax.evaluation.options import Generating, Measuring
from maskgil_jax.generation import sampling
from maskgil_jax.generation.options import Companions, Decoding, SampleOptions
from maskgil_jax.interop import conversion
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.loading import Tokenizer, load_generator
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import decoding_sweep, sweep_panel
from maskgil_jax.workflows.options import SweepOptions
from tests.helpers import golden, tiny_gemma, tiny_llama, tiny_lumina
from tests.helpers.tiny import SMALL_VQ

PROMPTS = ["a black dog", "zero"]


def tokenizer_of(codes, folder):
    """A tokenizer of so many codes, saved; and what generators say of it."""
    config = VQConfig(**SMALL_VQ | dict(codebook_size=codes, channel_multipliers=(1, 1, 1)))
    tokenizer = Tokenizer(jax.jit(lambda: VQTokenizer(config, jax.random.key(0)))(), "vq")
    tokenizer.save(folder / "vq")
    return tokenizer, {"path": str(folder / "vq"), "fingerprint": tokenizer.fingerprint}


def masked_of_features(known, folder, **changes):
    """A masked generator of features, saved."""
    generator = tiny_llama.masked(num_classes=0, **changes)
    generator.tokenizer = known
    generator.save(folder / "masked")
    return generator


def swept(folder, side, prefixes, **generating):
    """The rows of a sweep of 8 images, and what it left."""
    pixels = np.random.default_rng(0).integers(256, size=(8, *side, 3), dtype=np.uint8)
    np.savez(folder / "real.npz", arr_0=pixels)
    first = dict(method="hybrid", steps=2, prefix_model=str(folder / "first"), prefix_guidance=1.0)
    decoding_sweep.sweep(
        SweepOptions(
            model=str(folder / "masked"),
            vary=(f"prefix={','.join(map(str, prefixes))}",),
            reference=str(folder / "real.npz"),
            output=str(folder / "sweep"),
            num=8,
            generating=Generating(
                batch_size=8, companions=Companions(), decoding=Decoding(**first), **generating
            ),
            measuring=Measuring(metrics=("frechet",)),
            processes=None,
        )
    )
    return json.loads((folder / "sweep" / "sweep.json").read_text())


@pytest.mark.slow
def test_a_prefix_that_reads_the_prompts_is_swept(tmp_path):
    tokenizer, known = tokenizer_of(8192, tmp_path)
    encoder = tiny_gemma.encoder()
    encoder.save(tmp_path / "gemma")
    features = dict(feature_dim=32, condition_tokens=4)
    rest = masked_of_features(known, tmp_path, codebook_size=8192, grid=(6, 6), **features)
    rest.encoder = encoder.provenance | {"path": str(tmp_path / "gemma")}
    rest.save(tmp_path / "masked")
    first = tiny_lumina.generator()
    first.save(tmp_path / "first")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    found = swept(tmp_path, (24, 24), [0, 5], prompts=str(tmp_path / "prompts.txt"))
    assert [row["prefix"] for row in found["rows"]] == [0, 5]
    assert all(row["seconds_per_image"] > 0 for row in found["rows"])
    texts = PROMPTS * 4
    conditions = encoder.features(texts, 4)
    codes = first.sample(texts, 0, tokens=5, guidance=1.0)
    for prefix, known in ((0, None), (5, codes)):
        drawn = rest.sample(conditions, 0, steps=2, codes=known)
        strip = sweep_panel.read_strip(tmp_path / "sweep/settings" / f"prefix={prefix}.png", 8)
        assert np.abs(to_uint8(np.asarray(tokenizer.decode(drawn))).astype(int) - strip).max() <= 1
    panel = np.asarray(Image.open(tmp_path / "sweep" / "panel.png"))
    assert panel.shape[0] == 46 + 8 * 50  # two lines above images that are enlarged twice
    first_of_last = strip[0].repeat(2, axis=0).repeat(2, axis=1)
    found = [
        left
        for left in range(panel.shape[1] - 48)
        if (panel[46:94, left : left + 48] == first_of_last).all()
    ]
    assert len(found) == 1


@pytest.mark.slow
def test_llamagen_of_features_in_files_is_the_prefix(tmp_path):
    """LlamaGen's own file, imported, before a masked model of the same features."""
    save_file(golden.weights("llamagen_gpt_t2i"), tmp_path / "t2i.safetensors")
    conversion.import_model(
        "llamagen-gpt",
        str(tmp_path / "t2i.safetensors"),
        str(tmp_path / "first"),
        {"heads": 4, "grid": (4, 4)},
    )
    _, known = tokenizer_of(128, tmp_path)
    features = dict(feature_dim=48, condition_tokens=120)
    rest = masked_of_features(known, tmp_path, codebook_size=128, grid=(4, 4), **features)
    given = np.asarray(golden.arrays("llamagen_gpt_t2i")["caption_f16"], np.float32)
    (tmp_path / "features").mkdir()
    for name, rows in zip("ab", given, strict=True):
        np.save(tmp_path / "features" / f"{name}.npy", rows)
    first = load_generator(tmp_path / "first")
    codes = first.sample(given, 0, tokens=5, guidance=1.0)
    drawn = np.asarray(rest.sample(given, 0, codes=codes, steps=2))
    np.testing.assert_array_equal(drawn.reshape(2, 16)[:, :5], codes.reshape(2, 16)[:, :5])

    sampling.sample(
        SampleOptions(
            model=str(tmp_path / "masked"),
            output=str(tmp_path / "out"),
            features=tuple(str(tmp_path / "features" / f"{name}.npy") for name in "ab"),
            num=1,
            batch_size=2,
            companions=Companions(),
            processes=Processes(),
            decoding=Decoding(
                method="hybrid",
                steps=2,
                prefix=5,
                prefix_model=str(tmp_path / "first"),
                prefix_guidance=1.0,
            ),
        )
    )
    with np.load(tmp_path / "out" / "samples.npz") as file:
        images = file["arr_0"]
    found = swept(tmp_path, (16, 16), [5, 16], condition_features=str(tmp_path / "features"))
    assert found["samples"]["features"].startswith("2 files of")
    strip = sweep_panel.read_strip(tmp_path / "sweep/settings" / "prefix=5.png", 8)
    assert np.abs(strip[:2].astype(int) - images).max() <= 1


def test_a_folder_without_features_is_named(tmp_path):
    _, known = tokenizer_of(20, tmp_path)
    masked_of_features(known, tmp_path, feature_dim=7, condition_tokens=2)
    with pytest.raises(InputError, match="condition_features=.*: expected .npy files, there are"):
        swept(tmp_path, (6, 8), [1], condition_features=str(tmp_path / "vq"))
