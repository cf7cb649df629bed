import jax
import numpy as np
import pytest
import torch
from PIL import Image

from maskgil_jax.interop import conversion
from maskgil_jax.models.perceptual import inception
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime import sharding
from tests.helpers import golden


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    state = {name: torch.from_numpy(x) for name, x in golden.weights("fid_inception").items()}
    torch.save(state, folder / "weights.pth")
    conversion.import_model("fid-inception", str(folder / "weights.pth"), str(folder / "model"), {})
    return folder / "model"


def test_the_official_features(imported):
    network = loading.load_auxiliary(imported, "inception")
    expected = golden.arrays("fid_inception")
    images = expected["image_u8"].transpose(0, 2, 3, 1)
    found, stages = jax.jit(lambda n, x: (n(x), n.stages(x)))(network, images)

    def check(name, values):
        golden.check("fid_inception", name, np.asarray(values), expected[name])

    pooled = {
        "f_64": stages["MaxPool_1"],
        "f_192": stages["MaxPool_2"],
        "f_768": stages["Mixed_6e"],
    }
    for name, values in pooled.items():
        check(name, values.mean(axis=(1, 2)))
    check("f_2048", found.pool)
    check("f_logits_unbiased", found.logits)
    check("f_logits", found.logits + network.head.bias[...])
    spatial = np.asarray(found.spatial).reshape(4, 17, 17, 7).transpose(0, 3, 1, 2)
    check("spatial_mixed6_conv7", spatial)
    resized = np.asarray((inception.resize_tf1(images) - 128) / 128).transpose(0, 3, 1, 2)
    check("resized_sub", resized[:2, :, ::13, ::13])
    check("resized_rows", resized[:1, :, :40:8])


def test_a_batch_split_over_devices_gives_the_same_features(imported):
    network = loading.load_auxiliary(imported, "inception")
    images = np.random.default_rng(0).integers(256, size=(8, 64, 64, 3), dtype=np.uint8)
    jitted, mesh = jax.jit(lambda n, x: n(x)), sharding.local_mesh()
    expected = jitted(network, images)
    found = jitted(
        jax.device_put(network, sharding.replicated(mesh)),
        jax.device_put(images, sharding.batch(mesh)),
    )
    for name, values in expected._asdict().items():
        split = getattr(found, name)
        assert split.sharding.is_equivalent_to(sharding.batch(mesh), split.ndim), name
        atol = 1e-5 * np.abs(values).max()
        np.testing.assert_allclose(split, values, rtol=0, atol=atol, err_msg=name)


def test_export_gives_the_same_tensors(imported, tmp_path):
    conversion.export_model("fid-inception", str(imported), str(tmp_path / "out.pth"))
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    expected = golden.weights("fid_inception")
    assert list(written) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(written[name].numpy(), tensor)


@pytest.mark.parametrize("height, width", [(32, 32), (256, 256), (200, 300), (512, 512)])
def test_the_clean_resize_is_that_of_pillow(height, width):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(2, height, width, 3), dtype=np.uint8)
    images[1] = np.where(images[1] > 127, 255, 0)
    found = np.asarray(jax.jit(inception.resize_clean)(images))
    for image, resized in zip(images, found, strict=True):
        for channel in range(3):
            floats = Image.fromarray(image[..., channel].astype(np.float32))
            expected = np.asarray(floats.resize((299, 299), Image.Resampling.BICUBIC))
            np.testing.assert_allclose(resized[..., channel], expected.clip(0, 255), atol=1e-3)
