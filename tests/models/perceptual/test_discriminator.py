import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maskgil_jax.interop import conversion
from maskgil_jax.models.perceptual import discriminator
from maskgil_jax.pretrained import loading
from tests.helpers import golden


@functools.partial(jax.jit, static_argnames="train")
def judge(network, images, train=True):
    return network(images, train=train)


def parameters(network):
    from flax import nnx

    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


@pytest.mark.parametrize("kind, count", [("patchgan", 2_765_633), ("stylegan", 36_500_225)])
def test_the_published_number_of_parameters(kind, count):
    config = discriminator.DiscriminatorConfig(kind=kind)
    network = jax.eval_shape(lambda: discriminator.make(config, jax.random.key(0)))
    assert parameters(network) == count
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    judgement = jax.eval_shape(judge, network, images)
    assert judgement.logits.shape == ((2, 900) if kind == "patchgan" else (2, 1))


@pytest.fixture(scope="module")
def patchgan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patchgan")
    state = {k: torch.from_numpy(v) for k, v in golden.weights("llamagen_patchgan").items()}
    torch.save({"discriminator": state, "model": {}}, folder / "vq.pt")
    source = str(folder / "vq.pt")
    conversion.import_model("llamagen-discriminator", source, str(folder / "model"), {})
    return folder / "model"


def test_patchgan_gives_the_official_logits_and_statistics(patchgan):
    expected = golden.arrays("llamagen_patchgan")
    network = loading.load_auxiliary(patchgan, "discriminator")
    images = expected["image_u8"].transpose(0, 2, 3, 1) / np.float32(127.5) - 1
    judgements = {
        "logits_eval": judge(network, images, train=False),
        "logits_train": judge(network, images),
    }
    for name, judgement in judgements.items():
        want = expected[name].reshape(len(images), -1)
        golden.check("llamagen_patchgan", name, judgement.logits, want)
    after = network.with_moments(judgements["logits_train"].moments).norms[0]
    for name, value in (("running_mean", after.mean), ("running_var", after.variance)):
        golden.check("llamagen_patchgan", f"{name}_after", value[...], expected[f"{name}_after"])
    assert not np.array_equal(network.norms[0].mean[...], after.mean[...])


def test_patchgan_is_exported_as_it_came(patchgan, tmp_path):
    conversion.export_model("llamagen-discriminator", str(patchgan), str(tmp_path / "d.pt"))
    written = torch.load(tmp_path / "d.pt", weights_only=True)["discriminator"]
    official = golden.weights("llamagen_patchgan")
    assert list(written) == list(official)
    for name, tensor in official.items():
        np.testing.assert_array_equal(written[name].numpy(), tensor)


class TorchStyleGAN(torch.nn.Module):
    """The official network's layers and names, for one image size."""

    def __init__(self, widths):
        super().__init__()
        conv, leaky = torch.nn.Conv2d, torch.nn.LeakyReLU(0.2)
        self.blocks = torch.nn.ModuleList([conv(3, widths[0], 3, padding=1), leaky])
        for cin, cout in zip(widths[:-1], widths[1:], strict=True):
            block = torch.nn.Module()
            block.conv_res = conv(cin, cout, 1, stride=2)
            block.net = torch.nn.Sequential(
                conv(cin, cout, 3, padding=1), leaky, conv(cout, cout, 3, padding=1), leaky
            )
            blur = torch.nn.Module()
            blur.register_buffer("f", torch.tensor([1.0, 2.0, 1.0]))
            block.downsample = torch.nn.ModuleList([blur, conv(cout, cout, 3, 2, padding=1)])
            self.blocks.append(block)
        n = widths[-1]
        self.final_conv = torch.nn.Sequential(conv(n, n, 3, padding=1), leaky)
        self.final_linear = torch.nn.Sequential(
            torch.nn.Linear(16 * n, n), leaky, torch.nn.Linear(n, 1)
        )

    def forward(self, x):
        x = self.blocks[1](self.blocks[0](x))
        for block in self.blocks[2:]:
            y, f = block.net(x), block.downsample[0].f / 4
            kernel = (f[:, None] * f[None, :]).expand(y.shape[1], 1, 3, 3)
            y = torch.nn.functional.pad(y, (1, 1, 1, 1), mode="reflect")
            y = torch.nn.functional.conv2d(y, kernel, groups=y.shape[1])
            x = (block.downsample[1](y) + block.conv_res(x)) / 2**0.5
        return self.final_linear(self.final_conv(x).flatten(1))


@pytest.mark.parametrize("size", [16, 64])
def test_stylegan_is_the_pytorch_network_of_the_same_tensors(size, tmp_path):
    config = discriminator.DiscriminatorConfig(kind="stylegan", channels=16, image_size=size)
    network = jax.jit(lambda: discriminator.make(config, jax.random.key(0)))()
    loading.Auxiliary(network).save(tmp_path / "model")
    official = str(tmp_path / "d.pt")
    conversion.export_model("llamagen-discriminator", str(tmp_path / "model"), official)
    torch_network = TorchStyleGAN(discriminator.StyleGAN.widths(config))
    state = torch.load(official, weights_only=True)["discriminator"]
    torch_network.load_state_dict(state, strict=True)
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = torch_network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(judge(network, images).logits, expected, atol=1e-5)
    conversion.import_model("llamagen-discriminator", official, str(tmp_path / "back"), {})
    again = loading.load_auxiliary(tmp_path / "back", "discriminator")
    for a, b in zip(jax.tree.leaves(network), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(kind="x"), "kind = 'x', expected one of patchgan, stylegan"),
        (dict(layers=7), "layers = 7 leaves no patch"),
        (dict(kind="stylegan", image_size=48), "48 pixels, expected a power of 2"),
    ],
)
def test_shapes_that_no_network_has_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        discriminator.DiscriminatorConfig(**arguments)
