import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maskgil_jax.interop import conversion
from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError
from tests.helpers import golden


def files(folder):
    """The two public files, with what else the first holds."""
    state = {name: torch.from_numpy(x) for name, x in golden.weights("lpips").items()}
    heads = {name: x for name, x in state.items() if name.startswith("lin")}
    backbone = {name: x for name, x in state.items() if name not in heads}
    backbone["classifier.6.weight"] = torch.zeros(10, 8)
    torch.save(backbone, folder / "vgg16.pth")
    torch.save(heads, folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpips")
    source = ",".join(map(str, files(folder)))
    conversion.import_model("lpips", source, str(folder / "model"), {})
    return folder / "model"


def images(name):
    return golden.arrays("lpips")[name].transpose(0, 2, 3, 1) / np.float32(127.5) - 1


def test_the_official_features_and_distances(imported):
    network, expected = loading.load_auxiliary(imported, "lpips"), golden.arrays("lpips")
    x, y = images("image_u8"), images("other_u8")
    found = jax.jit(lambda n, x, y: n(x, y))(network, x, y)
    golden.check("lpips", "distance", found, expected["distance"].ravel())
    features = jax.jit(lambda n, x: n.features(x))(network, x[:1])
    for k, of_layer in enumerate(features, start=1):
        of_layer = np.asarray(of_layer).transpose(0, 3, 1, 2)[:, ::8]
        want = expected[f"feature{k}"]
        stride = of_layer.shape[2] // want.shape[2]
        golden.check("lpips", f"feature{k}", of_layer[:, :, ::stride, ::stride], want)


def test_export_gives_the_same_tensors(imported, tmp_path):
    conversion.export_model("lpips", str(imported), str(tmp_path / "out.pt"))
    written = torch.load(tmp_path / "out.pt", weights_only=True)["state_dict"]
    for name, tensor in golden.weights("lpips").items():
        np.testing.assert_array_equal(written[name].numpy(), tensor)


@pytest.mark.parametrize("given, missing", [(0, "vgg.pth of LPIPS"), (1, "vgg16-397923af.pth")])
def test_the_file_that_is_missing_is_named(given, missing, tmp_path):
    source = str(files(tmp_path)[given])
    with pytest.raises(InputError, match=missing):
        conversion.import_model("lpips", source, str(tmp_path / "model"), {})


def small():
    config = LPIPSConfig(channels=(8, 8, 8, 8, 8))
    return jax.jit(lambda: LPIPS(config, jax.random.key(0)))()


def test_dropout_is_off_unless_asked_and_right_on_average():
    network = small()
    x, y = jax.random.uniform(jax.random.key(1), (2, 2, 16, 16, 3), minval=-1)
    distances = jax.jit(lambda n, x, y: n(x, y))(network, x, y)
    keys = jax.random.split(jax.random.key(2), 200)
    draw = jax.vmap(lambda n, x, y, key: n(x, y, key), in_axes=(None, None, None, 0))
    dropped = jax.jit(draw)(network, x, y, keys)
    assert dropped.std() > 0
    np.testing.assert_allclose(dropped.mean(axis=0), distances, rtol=0.05)


def test_gradients_are_finite_where_images_agree_or_features_vanish():
    network = small()
    x = jnp.full((1, 16, 16, 3), 0.1)
    network.groups[0][0].bias[...] = jnp.full(8, -100.0)  # every feature of the first group is 0
    gradient = jax.jit(jax.grad(lambda y, n: n(jnp.zeros_like(y), y).sum()))(x, network)
    assert np.isfinite(gradient).all()
