"""Folders that draw images by themselves: for PyTorch, and for JAX without this package."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import maskgil_jax
from maskgil_jax.data.images.pixel_levels import to_uint8
from maskgil_jax.interop import conversion
from maskgil_jax.models.token_models.bert import Bert, BertConfig
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.generators import make_generator
from maskgil_jax.pretrained.tokenizers import Tokenizer
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import bundle
from tests.helpers import random_weights, tiny, tiny_llama, tiny_lumina
from tests.helpers.commands import call

FEATURES = dict(num_classes=0, feature_dim=7, condition_tokens=4)
ALONE = """
import importlib.abc, runpy, sys
BLOCKED = {blocked}
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name + " is not there")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, "")
runpy.run_path("example.py")
assert not BLOCKED & {{name.split(".")[0] for name in sys.modules}}
"""
OURS = {"maskgil_jax", "flax", "orbax", "optax", "etils", "grain", "clu", "ml_collections", "PIL"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The directory of a tokenizer of 20 codes, of a downsampling of 2."""
    path = tmp_path_factory.mktemp("tokenizer") / "vq"
    config = VQConfig(**tiny.SMALL_VQ | dict(codebook_size=20))
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(0)))
    Tokenizer(network).save(path)
    return str(path)


@pytest.fixture
def model(tokenizer, tmp_path):
    """A function that writes the directory of a generator, with changes to its config."""

    def write(**changes):
        known = maskgil_jax.load(tokenizer).provenance
        directory = tmp_path / "model"
        make_generator(tiny_llama.built(**changes), known, tuple("abcde")).save(directory)
        return str(directory)

    return write


def run_alone(folder, blocked):
    """Run the example of a folder in a new process, where these packages cannot be imported."""
    code = ALONE.format(blocked=blocked)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k.startswith(("JAX_", "XLA_"))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def export(format_name, source, folder, **arguments):
    conversion.export_model(format_name, source, str(folder), arguments)
    return folder


def test_the_folder_for_pytorch_draws_a_picture_without_jax(model, tmp_path):
    source, folder = model(), tmp_path / "folder"
    arguments = ("--arg=steps=3", "--arg=guidance=2.5", "--arg=grid=4x4")
    done = call(
        "convert",
        "export",
        "--format=maskgil",
        f"--source={source}",
        f"--output={folder}",
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    run_alone(folder, OURS | {"jax", "jaxlib", "numpy"})
    with Image.open(folder / "example.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (8, 4 * 8, 3) and pixels.std() > 10

    text = (folder / "example.py").read_text()
    assert "seed=0, grid=(4, 4), steps=3, guidance=2.5)" in text and "a, b, c, d" in text
    assert len(text.split('"""\n', 1)[1].strip().splitlines()) <= 12
    # The weights are those of the model, and come back as it was.
    conversion.import_model(
        "maskgil", str(folder / "generator.safetensors"), str(tmp_path / "back"), {}
    )
    back, ours = maskgil_jax.load(tmp_path / "back"), maskgil_jax.load(source)
    assert back.fingerprint == ours.fingerprint and back.tokenizer == ours.tokenizer


def test_a_bundle_that_was_moved_gives_its_tokenizer_and_its_options(model, tmp_path):
    source = model()
    generator = maskgil_jax.load(source)
    generator.decoding = dict(steps=2, guidance=1.5)
    generator.save(tmp_path / "run")
    bundle.bundle(bundle.Parts(source=str(tmp_path / "run")), str(tmp_path / "bundle"))
    (tmp_path / "bundle").rename(tmp_path / "moved")
    folder = export("maskgil", str(tmp_path / "moved"), tmp_path / "folder", guidance=2.0)
    assert "seed=0, steps=2, guidance=2.0)" in (folder / "example.py").read_text()
    run_alone(folder, OURS)
    assert (folder / "example.png").exists()


def test_the_folder_for_pytorch_takes_features_from_a_file(model, tmp_path):
    folder = export("maskgil", model(**FEATURES | dict(causal=True)), tmp_path / "folder")
    given = dict(features=torch.randn(2, 4, 7), mask=torch.ones(2, 4, dtype=torch.bool))
    safetensors.torch.save_file(given, folder / "features.safetensors")
    run_alone(folder, OURS | {"jax", "jaxlib"})
    with Image.open(folder / "example.png") as image:
        assert image.size == (2 * 8, 6)


def images_of(source, labels, **options):
    generator = maskgil_jax.load(source)
    tokenizer = maskgil_jax.load(generator.tokenizer["path"])
    return to_uint8(tokenizer.decode(generator.sample(labels, **options)))


def sampler_of(folder, batch):
    module = (folder / f"sampler_{batch}.stablehlo").read_bytes()
    weights = dict(np.load(folder / "weights.npz"))

    def sample(seed, start, condition):
        exported = jax.export.deserialize(bytearray(module))
        return exported.call(weights, np.uint32(seed), np.int32(start), condition)

    return sample


def test_the_module_of_stablehlo_draws_our_images_where_this_package_is_not(model, tmp_path):
    source, folder = model(), tmp_path / "folder"
    arguments = ("--arg=batch=2,3", "--arg=platforms=cpu,cuda,tpu", "--arg=steps=3")
    done = call(
        *("convert", "export", "--format=stablehlo", f"--source={source}", f"--output={folder}"),
        *arguments,
        "--arg=preset=maskgit",
    )
    assert done.returncode == 0, done.stderr
    run_alone(folder, OURS | {"torch", "safetensors"})
    lines = (folder / "example.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert imports == ["import jax", "import numpy as np"]
    drawn, options = np.load(folder / "example.npy"), dict(rule="maskgit", schedule="cosine")
    options |= dict(steps=3, guidance=1.0)
    ours = images_of(source, [0, 1], rng=0, **options)
    np.testing.assert_array_equal(drawn, ours)
    assert drawn.dtype == np.uint8 and drawn.shape == (2, 6, 8, 3) and drawn.std() > 10

    module = jax.export.deserialize(bytearray((folder / "sampler_3.stablehlo").read_bytes()))
    assert module.platforms == ("cpu", "cuda", "tpu")
    assert [x.shape for x in module.out_avals] == [(3, 6, 8, 3)]
    weights = dict(np.load(folder / "weights.npz"))
    assert not any("encoder" in path for path in weights)
    sizes = [(folder / f"sampler_{batch}.stablehlo").stat().st_size for batch in (2, 3)]
    assert max(sizes) < sum(x.nbytes for x in weights.values())


def test_the_module_of_stablehlo_draws_hybrids_of_features(model, tmp_path):
    source = model(**FEATURES | dict(causal_prefix=True, order="halton", dtype="bfloat16"))
    arguments = dict(method="hybrid", prefix=5, prefix_guidance=1.0, steps=2, batch=2)
    folder = export("stablehlo", source, tmp_path / "folder", platforms="cpu", **arguments)
    rng = np.random.default_rng(0)
    condition = rng.standard_normal((2, 4, 7), np.float32), np.arange(4) < np.array([[2], [4]])
    drawn = sampler_of(folder, 2)(3, 0, condition)
    generator = maskgil_jax.load(source)
    prefix = generator.as_causal().sample(condition, 3, tokens=5, guidance=1.0)
    ours = images_of(source, condition, rng=3, codes=prefix, prefix=5, steps=2)
    np.testing.assert_array_equal(drawn, ours)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_the_module_of_stablehlo_draws_what_has_no_condition_and_token_by_token(
    causal, model, tmp_path
):
    source = model(num_classes=0, causal=causal)
    folder = export("stablehlo", source, tmp_path / "folder", platforms="cpu", top_k=3)
    drawn = sampler_of(folder, 1)(2**32 - 1, 2, np.zeros(1, np.int32))
    ours = images_of(source, [0], rng=2**32 - 1, start=2, top_k=3)
    np.testing.assert_array_equal(drawn, ours)


def test_the_module_of_stablehlo_has_the_baselines_too(tokenizer, tmp_path):
    shape = dict(layers=1, dim=16, heads=2, mlp_dim=32, codebook_size=20, num_classes=3)
    config = BertConfig(**shape, grid=(2, 3))
    network = random_weights.network(lambda: Bert(config, jax.random.key(0)), 0.3)
    known = maskgil_jax.load(tokenizer).provenance
    generator = make_generator(network, known)
    generator.decoding = dict(rule="halton", steps=5)  # which its directory names
    generator.save(tmp_path / "bert")
    source = str(tmp_path / "bert")
    folder = export("stablehlo", source, tmp_path / "folder", steps=2)
    drawn = sampler_of(folder, 1)(1, 0, np.array([2], np.int32))
    ours = images_of(source, [2], rng=1, rule="halton", steps=2)
    np.testing.assert_array_equal(drawn, ours)
    with pytest.raises(InputError, match="is a Bert, but maskgil holds a Llama"):
        export("maskgil", source, tmp_path / "other")


REFUSED = {
    "platform": (
        dict(platforms="cpu,gpu"),
        "arg=platforms=cpu,gpu: gpu is none of cpu, cuda, rocm, tpu",
    ),
    "batch": (dict(batch="0"), "arg=batch=0: expected sizes of batches, such as 8 or 1,8"),
    "option": (dict(speed=2), "arg=speed=2: there is no such decoding option here, expected some"),
    "of prefix": (
        dict(method="hybrid", prefix=3, prefix_steps=2),
        "arg=prefix_steps=2: there is no such decoding option here, expected some of prefix_guid",
    ),
    "prefix": (
        dict(method="hybrid", prefix=13),
        "arg=method=hybrid needs arg=prefix=N, 0 to 12 tokens",
    ),
    "grid": (dict(grid=4), "arg=grid=4: expected HEIGHTxWIDTH in tokens"),
    "steps": (dict(steps=13), "steps = 13, expected 1 to 12"),
    "preset": (dict(preset="best"), "arg=preset=best: expected one of maskgil, maskgil_paper"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_no_sampler_has_are_refused(case, model, tmp_path):
    arguments, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        export("stablehlo", model(causal_prefix=True), tmp_path / "folder", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("format_name", ["maskgil", "stablehlo"])
def test_what_cannot_be_exported_is_named(format_name, model, tokenizer, tmp_path):
    tiny_llama.masked().save(tmp_path / "bare")
    source, folder = model(), tmp_path / "folder"
    with pytest.raises(InputError, match="does not name its tokenizer; give tokenizer=DIR"):
        export(format_name, str(tmp_path / "bare"), folder)
    with pytest.raises(InputError, match="/no is not a model directory"):
        conversion.export_model(format_name, str(tmp_path / "bare"), str(folder), {}, "/no")
    with pytest.raises(InputError, match="holds a tokenizer, expected a generator"):
        export(format_name, tokenizer, folder)
    with pytest.raises(InputError, match="arg=method=hybrid: this model draws by masked"):
        export(format_name, source, folder, method="hybrid")
    with pytest.raises(InputError, match=f"output={tmp_path}/model exists"):
        export(format_name, source, tmp_path / "model")


def test_models_that_read_prompts_have_no_folder(tmp_path):
    tiny_lumina.generator().save(tmp_path / "lumina")
    with pytest.raises(InputError, match="reads prompts itself: stablehlo holds models of classes"):
        export("stablehlo", str(tmp_path / "lumina"), tmp_path / "folder")
    with pytest.raises(InputError, match="this format has vocabulary = 0"):
        export("maskgil", str(tmp_path / "lumina"), tmp_path / "folder")


def test_arguments_of_folders_are_not_of_files(model, tmp_path):
    with pytest.raises(InputError, match="arg=steps=3 is of imports, and of exports to a folder"):
        export("maskgil", model(), tmp_path / "x.safetensors", steps=3)
    with pytest.raises(InputError, match="tokenizer=vq is of bundles, and of exports to a folder"):
        conversion.export_model("maskgil", model(), str(tmp_path / "x.pt"), {}, "vq")
    with pytest.raises(InputError, match="format=stablehlo can only be exported"):
        conversion.import_model("stablehlo", "x", str(tmp_path / "y"), {})
