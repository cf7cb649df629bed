"""Discriminators: judge images as real (high logits) or reconstructed."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.models import parameter_keys

MOMENTUM = 0.1  # of PyTorch's running statistics


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of a discriminator.

    Attributes:
      kind: "patchgan" (Isola et al. 2017) or "stylegan" (Karras et al. 2020).
      channels: width of the first layer; of StyleGAN's at 256 pixels.
      layers: PatchGAN's strided layers.
      image_size: StyleGAN's, in pixels, a power of 2; PatchGAN takes any.
    """

    kind: str = "patchgan"
    channels: int = 64
    layers: int = 3
    image_size: int = 256

    def __post_init__(self) -> None:
        """Refuse what no network has."""
        if self.kind not in DISCRIMINATORS:
            raise ValueError(f"kind = {self.kind!r}, expected one of {', '.join(DISCRIMINATORS)}")
        if self.channels < 1:
            raise ValueError(f"channels = {self.channels}, expected 1 or more")
        if self.kind == "patchgan" and (
            self.layers < 1 or self.image_size // 2**self.layers - 2 < 1
        ):
            raise ValueError(
                f"layers = {self.layers} leaves no patch of images of {self.image_size} pixels to "
                "judge; take fewer (1 or more)"
            )
        if self.kind == "stylegan" and (
            self.image_size < 8 or self.image_size != 2 ** int(math.log2(self.image_size))
        ):
            raise ValueError(
                f"images of {self.image_size} pixels, expected a power of 2, 8 or more, for kind = "
                "'stylegan'"
            )


class Judgement(NamedTuple):
    """What a discriminator says.

    Attributes:
      logits: [B, patches]; high where it looks real.
      features: of each layer.
      moments: mean and unbiased variance of the batch at each batch norm.
    """

    logits: jax.Array
    features: list[jax.Array]
    moments: list[tuple[jax.Array, jax.Array]]


class BatchNorm(nnx.Module):
    """Normalise channels by the statistics of the batch, or by their running averages.

    Under a mesh the batch is the global one.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.variance = nnx.BatchStat(jnp.ones(channels))

    def __call__(
        self, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """[B, H, W, C] -> [B, H, W, C], and mean and unbiased variance of the batch, [C] each."""
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        count = x.size // x.shape[-1]
        moments = mean, variance * count / max(count - 1, 1)
        if not train:
            mean, variance = self.mean[...], self.variance[...]
        x = (x - mean) * jax.lax.rsqrt(variance + self.eps)
        return x * self.scale[...] + self.bias[...], moments


class PatchGAN(nnx.Module):
    """Strided 4x4 convolutions, batch norm, leaky ReLU 0.2; float32.

    Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/discriminator_patchgan.py.
    """

    def __init__(self, config: DiscriminatorConfig, key: jax.Array):
        rngs = parameter_keys.rngs(key)
        self.config = config
        channels, layers = config.channels, config.layers
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]

        def conv(cin: int, cout: int, stride: int, bias: bool) -> nnx.Conv:
            return nnx.Conv(
                cin,
                cout,
                (4, 4),
                strides=stride,
                padding=1,
                use_bias=bias,
                kernel_init=nnx.initializers.normal(0.02),
                rngs=rngs,
            )

        self.conv_in = conv(3, channels, 2, True)
        self.convs = nnx.List(
            [
                conv(widths[i], widths[i + 1], 2 if i + 1 < layers else 1, False)
                for i in range(layers)
            ]
        )
        self.norms = nnx.List([BatchNorm(width) for width in widths[1:]])
        self.conv_out = conv(widths[-1], 1, 1, True)

    def __call__(self, images: jax.Array, *, train: bool) -> Judgement:
        """Judge overlapping patches of [B, H, W, 3] in [-1, 1]."""
        x = jax.nn.leaky_relu(self.conv_in(images), 0.2)
        features, all_moments = [x], []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x, moments = norm(conv(x), train=train)
            x = jax.nn.leaky_relu(x, 0.2)
            features.append(x)
            all_moments.append(moments)
        return Judgement(self.conv_out(x).reshape(len(x), -1), features, all_moments)

    def with_moments(self, moments: list[tuple[jax.Array, jax.Array]]) -> "PatchGAN":
        """A copy whose running averages have taken in the moments of one more batch."""
        copy = jax.tree.map(lambda x: x, self)
        for norm, (mean, variance) in zip(copy.norms, moments, strict=True):
            for average, new in ((norm.mean, mean), (norm.variance, variance)):
                average.set_value(average[...] + MOMENTUM * (new - average[...]))
        return copy


class StyleGANBlock(nnx.Module):
    """Two 3x3 convolutions, a blur and a strided one, beside a strided 1x1."""

    def __init__(self, cin: int, cout: int, rngs: nnx.Rngs):
        self.shortcut = nnx.Conv(cin, cout, (1, 1), strides=2, padding="VALID", rngs=rngs)
        self.conv1 = nnx.Conv(cin, cout, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(cout, cout, (3, 3), rngs=rngs)
        self.downsample = nnx.Conv(cout, cout, (3, 3), strides=2, padding=1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, cin] -> [B, H / 2, W / 2, cout]."""
        y = jax.nn.leaky_relu(self.conv1(x), 0.2)
        y = jax.nn.leaky_relu(self.conv2(y), 0.2)
        return (self.downsample(_blur(y)) + self.shortcut(x)) / math.sqrt(2)


class StyleGAN(nnx.Module):
    """Residual blocks down to 4x4, then a dense judgement of the whole image; float32.

    Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/discriminator_stylegan.py.
    """

    def __init__(self, config: DiscriminatorConfig, key: jax.Array):
        rngs = parameter_keys.rngs(key)
        self.config = config
        widths = self.widths(config)
        self.conv_in = nnx.Conv(3, widths[0], (3, 3), rngs=rngs)
        self.blocks = nnx.List(
            [
                StyleGANBlock(cin, cout, rngs)
                for cin, cout in zip(widths[:-1], widths[1:], strict=True)
            ]
        )
        self.conv_out = nnx.Conv(widths[-1], widths[-1], (3, 3), rngs=rngs)
        self.dense = nnx.Conv(widths[-1], widths[-1], (4, 4), padding="VALID", rngs=rngs)
        self.out = nnx.Linear(widths[-1], 1, rngs=rngs)

    @staticmethod
    def widths(config: DiscriminatorConfig) -> list[int]:
        """Channels at image_size, half of it, ... and at 4 pixels."""
        sides = [2**i for i in range(int(math.log2(config.image_size)), 1, -1)]
        return [max(1, min(8 * config.channels, 256 * config.channels // side)) for side in sides]

    def __call__(self, images: jax.Array, *, train: bool) -> Judgement:
        """Judge [B, image_size, image_size, 3] in [-1, 1]; `train` makes no difference."""
        x = jax.nn.leaky_relu(self.conv_in(images), 0.2)
        features = [x]
        for block in self.blocks:
            x = block(x)
            features.append(x)
        x = jax.nn.leaky_relu(self.conv_out(x), 0.2)
        x = jax.nn.leaky_relu(self.dense(x), 0.2)
        return Judgement(self.out(x).reshape(len(x), 1), features, [])

    def with_moments(self, moments: list[tuple[jax.Array, jax.Array]]) -> "StyleGAN":
        """Itself: it keeps no running averages."""
        return self


Discriminator = PatchGAN | StyleGAN
DISCRIMINATORS: dict[str, type[PatchGAN] | type[StyleGAN]] = {
    "patchgan": PatchGAN,
    "stylegan": StyleGAN,
}


def make(config: DiscriminatorConfig, key: jax.Array) -> Discriminator:
    """The network that a config describes."""
    return DISCRIMINATORS[config.kind](config, key)


def _blur(x: jax.Array) -> jax.Array:
    """[1, 2, 1] / 4 along both sides, borders reflected."""
    for axis in (1, 2):
        pad = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        p, n = jnp.pad(x, pad, mode="reflect"), x.shape[axis]
        parts = [jax.lax.slice_in_dim(p, i, i + n, axis=axis) for i in range(3)]
        x = (parts[0] + 2 * parts[1] + parts[2]) / 4
    return x
