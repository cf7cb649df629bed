import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import maskgil_jax
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError


@pytest.fixture(scope="module")
def tokenizer(finished):
    return maskgil_jax.load(finished / "tokenizer" / "model")


@pytest.fixture(scope="module")
def generator(finished):
    return maskgil_jax.load(finished / "model")


def test_shapes_dtypes_and_names(tokenizer, generator):
    images = jax.random.uniform(jax.random.key(0), (2, 16, 24, 3), minval=-1)
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 8, 12) and codes.dtype == jnp.int32
    assert tokenizer.latents(images).shape == (2, 8, 12, 4)
    decoded = tokenizer.decode(codes)
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32
    assert tokenizer.codebook_size == 64 and tokenizer.downsample == 2
    assert generator.kind == "masked" and generator.grid == (4, 4) and generator.mask_id == 64
    assert generator.null_condition(3).tolist() == [10, 10, 10]
    logits = generator.logits(np.full((2, 4, 4), generator.mask_id), np.array([1, 10]))
    assert logits.shape == (2, 16, 64) and logits.dtype == jnp.float32


@pytest.mark.slow
def test_an_image_depends_on_seed_index_and_class_not_on_its_batch(generator):
    classes = np.arange(10)
    together = generator.sample(classes, 5, steps=2)
    parts = [generator.sample(classes[i : i + 3], 5, steps=2, start=i) for i in range(0, 10, 3)]
    np.testing.assert_array_equal(together, np.concatenate(parts))
    other_seed = generator.sample(classes, 6, steps=2)
    assert (np.asarray(together) != np.asarray(other_seed)).any()
    assert together.shape == (10, 4, 4) and int(together.max()) < 64


@pytest.mark.slow
def test_images_do_not_depend_on_the_number_of_devices(generator):
    mesh = sharding.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})
    network = jax.device_put(generator.network, sharding.replicated(mesh))
    classes = jax.device_put(np.arange(8, dtype=np.int32), NamedSharding(mesh, P("data")))
    spread = loading.wrap(network).sample(classes, 3, steps=2)
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_array_equal(spread, generator.sample(np.arange(8), 3, steps=2))


@pytest.mark.slow
def test_known_codes_stay_and_only_the_others_are_drawn(generator):
    known = generator.sample(np.arange(3), 0, steps=3)
    hidden = known.at[0, 1:3, 1:3].set(generator.mask_id).at[1, :, 2:].set(generator.mask_id)
    codes = np.asarray(generator.sample(np.arange(3), 1, codes=hidden, steps=3))
    visible = np.asarray(hidden) != generator.mask_id
    np.testing.assert_array_equal(codes[visible], np.asarray(known)[visible])
    assert (codes < 64).all() and (codes != np.asarray(known)).any()
    # The class of an edited image may be another; the number of hidden tokens may differ.
    other = np.asarray(generator.sample(np.array([0, 9, 2]), 1, codes=hidden, steps=3))
    np.testing.assert_array_equal(other[[0, 2]], codes[[0, 2]])
    with pytest.raises(InputError, match="codes of 2 images .*for 3 conditions"):
        generator.sample(np.arange(3), 1, codes=hidden[:2])


@pytest.mark.slow
def test_guidance_one_is_no_guidance(generator):
    """The unconditional pass is then left out, and nothing changes."""
    classes, options = np.arange(4), dict(steps=3)
    plain = generator.sample(classes, 0, guidance=1.0, **options)
    nearly = generator.sample(classes, 0, guidance=1.0 + 1e-7, guidance_ramp="constant", **options)
    np.testing.assert_array_equal(plain, nearly)
    by_weight = generator.sample(classes, 0, guidance=0.0, guidance_form="weight", **options)
    np.testing.assert_array_equal(plain, by_weight)


def test_a_class_makes_a_difference(generator):
    hidden = np.full((2, 4, 4), generator.mask_id)
    logits = generator.logits(hidden, np.array([0, 1]))
    assert np.abs(np.asarray(logits[0] - logits[1])).max() > 1e-4


BAD_IMAGES = [
    (np.zeros((2, 16, 16), np.float32), r"shape \(2, 16, 16\)"),
    (
        np.zeros((1, 16, 17, 3), np.float32),
        "16 x 17 pixels, expected sides that are multiples of 2",
    ),
    (np.zeros((1, 16, 16, 3), np.uint8), "images are uint8, expected float32"),
    (np.full((1, 16, 16, 3), 255, np.float32), r"range from 255 to 255, expected \[-1, 1\]"),
    (np.full((1, 16, 16, 3), np.nan, np.float32), "range from nan"),
]


@pytest.mark.parametrize("images, message", BAD_IMAGES)
def test_bad_images_are_refused(images, message, tokenizer):
    with pytest.raises(InputError, match=message):
        tokenizer.encode(images)


def test_bad_codes_and_conditions_are_refused(tokenizer, generator):
    with pytest.raises(InputError, match="codes from 0 to 64, expected 0 to 63"):
        tokenizer.decode(np.array([[[0, 64]]]))
    with pytest.raises(InputError, match="codes are float64"):
        tokenizer.decode(np.zeros((1, 4, 4)))
    codes = np.zeros((2, 4, 4), int)
    with pytest.raises(InputError, match="class ids from 3 to 11, expected 0 to 9"):
        generator.logits(codes, np.array([3, 11]))
    with pytest.raises(InputError, match="1 conditions for 2 images"):
        generator.logits(codes, np.array([3]))
    with pytest.raises(InputError, match="condition is float32"):
        generator.sample(np.zeros(3, np.float32), 0)
    with pytest.raises(InputError, match="steps = 0"):
        generator.sample(np.zeros(3, int), 0, steps=0)


def test_a_directory_that_is_no_model_is_refused(tmp_path, finished):
    with pytest.raises(InputError, match="is not a model directory"):
        maskgil_jax.load(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(InputError, match="not readable JSON"):
        maskgil_jax.load(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        maskgil_jax.load(tmp_path)
    broken = (finished / "model" / "model.json").read_text().replace('"dim": 32', '"dim": 64')
    (tmp_path / "model.json").write_text(broken)
    (tmp_path / "params").symlink_to(finished / "model" / "params")
    with pytest.raises(InputError, match="does not hold what its model.json says"):
        maskgil_jax.load(tmp_path)


def test_the_compute_type_can_be_chosen(finished):
    model = maskgil_jax.load(finished / "model", dtype="bfloat16")
    assert model.network.config.dtype == "bfloat16"
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.network)} == {"float32"}


def test_saving_replaces_a_model_only_by_a_whole_one(generator, tmp_path, monkeypatch):
    from maskgil_jax.pretrained import model_directory
    from maskgil_jax.pretrained.loading import Generator

    generator.save(tmp_path / "model")
    before = maskgil_jax.load(tmp_path / "model")
    other = Generator(jax.tree.map(lambda x: x + 1, generator.network))

    def fails(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(model_directory, "write_json", fails)
    with pytest.raises(OSError):
        other.save(tmp_path / "model")
    monkeypatch.undo()
    after = maskgil_jax.load(tmp_path / "model")
    hidden = np.full((1, 4, 4), 64)
    np.testing.assert_array_equal(before.logits(hidden, [1]), after.logits(hidden, [1]))
    other.save(tmp_path / "model")
    changed = maskgil_jax.load(tmp_path / "model")
    assert (np.asarray(changed.logits(hidden, [1])) != np.asarray(after.logits(hidden, [1]))).any()


def test_importing_is_light():
    import subprocess
    import sys

    code = "import maskgil_jax, sys; sys.exit(any(m in sys.modules for m in ('jax', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("path", [None, 42, "", b"model", "a\0b", ["model"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match="is no path: expected the text of one"):
        maskgil_jax.load(path)


def test_a_path_without_a_model_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match=f"{path} is not a model directory"):
            maskgil_jax.load(path)
