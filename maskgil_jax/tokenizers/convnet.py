"""The convolutional encoder and decoder of the taming family (VQGAN), NHWC.

GroupNorm of 32 groups, swish, 3x3 convolutions; self-attention at the lowest resolution.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx


def conv(cin: int, cout: int, kernel: int, *, dtype: str, rngs: nnx.Rngs) -> nnx.Conv:
    """A biased convolution that keeps the size."""
    # PyTorch's default start (uniform, variance 1 / (3 fan_in)), which the recipes were tuned with.
    init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nnx.Conv(cin, cout, (kernel, kernel), kernel_init=init, dtype=dtype, rngs=rngs)


def group_norm(channels: int, *, dtype: str, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """GroupNorm as the official models have it."""
    return nnx.GroupNorm(
        channels, num_groups=32, epsilon=1e-6, use_fast_variance=False, dtype=dtype, rngs=rngs
    )


class ResBlock(nnx.Module):
    """Two norm-swish-convolution layers added to the input."""

    def __init__(self, cin: int, cout: int, *, dtype: str, rngs: nnx.Rngs):
        self.norm1 = group_norm(cin, dtype=dtype, rngs=rngs)
        self.conv1 = conv(cin, cout, 3, dtype=dtype, rngs=rngs)
        self.norm2 = group_norm(cout, dtype=dtype, rngs=rngs)
        self.conv2 = conv(cout, cout, 3, dtype=dtype, rngs=rngs)
        if cin != cout:
            self.shortcut = conv(cin, cout, 1, dtype=dtype, rngs=rngs)
        self.has_shortcut = cin != cout

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, cin] -> [B, H, W, cout]."""
        y = self.conv1(jax.nn.swish(self.norm1(x)))
        y = self.conv2(jax.nn.swish(self.norm2(y)))
        return y + (self.shortcut(x) if self.has_shortcut else x)


class Attention(nnx.Module):
    """Single-head self-attention over all positions."""

    def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
        self.norm = group_norm(channels, dtype=dtype, rngs=rngs)
        self.q, self.k, self.v, self.out = (
            conv(channels, channels, 1, dtype=dtype, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        B, H, W, C = x.shape
        y = self.norm(x)
        q, k, v = (layer(y).reshape(B, H * W, 1, C) for layer in (self.q, self.k, self.v))
        y = jax.nn.dot_product_attention(q, k, v).reshape(B, H, W, C)
        return x + self.out(y)


class Downsample(nnx.Module):
    """Halve the side. The padding is right and bottom only, as the official encoder pads."""

    def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            channels,
            channels,
            (3, 3),
            strides=2,
            padding=((0, 1), (0, 1)),
            kernel_init=nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / 2, W / 2, C]."""
        return self.conv(x)


class Upsample(nnx.Module):
    """Double the side: nearest neighbour, then a convolution."""

    def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, 2 H, 2 W, C]."""
        return self.conv(x.repeat(2, axis=1).repeat(2, axis=2))


class Level(nnx.Module):
    """Residual blocks of one resolution, each followed by attention where asked, then a resize."""

    def __init__(
        self,
        cin: int,
        cout: int,
        blocks: int,
        *,
        attention: bool,
        resize: type[Downsample] | type[Upsample] | None,
        dtype: str,
        rngs: nnx.Rngs,
    ):
        widths = [cin] + [cout] * blocks
        self.res = nnx.List(
            [ResBlock(widths[i], cout, dtype=dtype, rngs=rngs) for i in range(blocks)]
        )
        self.attention = nnx.List(
            [Attention(cout, dtype=dtype, rngs=rngs) for _ in range(blocks if attention else 0)]
        )
        if resize:
            self.resize = resize(cout, dtype=dtype, rngs=rngs)
        self.has_resize = resize is not None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, cin] -> [B, H', W', cout]."""
        for i, block in enumerate(self.res):
            x = block(x)
            if self.attention:
                x = self.attention[i](x)
        return self.resize(x) if self.has_resize else x


class Middle(nnx.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
        self.res1 = ResBlock(channels, channels, dtype=dtype, rngs=rngs)
        self.attention = Attention(channels, dtype=dtype, rngs=rngs)
        self.res2 = ResBlock(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return self.res2(self.attention(self.res1(x)))


class Encoder(nnx.Module):
    """Images to features, 2^(levels - 1) times smaller. `levels[0]` is the highest resolution."""

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        res_blocks: int,
        z_channels: int,
        *,
        dtype: str,
        rngs: nnx.Rngs,
    ):
        widths = [channels] + [channels * m for m in multipliers]
        last = len(multipliers) - 1
        self.conv_in = conv(3, channels, 3, dtype=dtype, rngs=rngs)
        self.levels = nnx.List(
            [
                Level(
                    widths[i],
                    widths[i + 1],
                    res_blocks,
                    attention=i == last,
                    resize=None if i == last else Downsample,
                    dtype=dtype,
                    rngs=rngs,
                )
                for i in range(last + 1)
            ]
        )
        self.middle = Middle(widths[-1], dtype=dtype, rngs=rngs)
        self.norm_out = group_norm(widths[-1], dtype=dtype, rngs=rngs)
        self.conv_out = conv(widths[-1], z_channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] -> [B, h, w, z_channels]."""
        x = self.conv_in(images)
        for level in self.levels:
            x = level(x)
        return self.conv_out(jax.nn.swish(self.norm_out(self.middle(x))))


class Decoder(nnx.Module):
    """Features to images. `levels[0]` is the lowest resolution, as in LlamaGen's key order."""

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        res_blocks: int,
        z_channels: int,
        *,
        dtype: str,
        rngs: nnx.Rngs,
    ):
        widths = [channels * m for m in reversed(multipliers)]
        last = len(multipliers) - 1
        self.conv_in = conv(z_channels, widths[0], 3, dtype=dtype, rngs=rngs)
        self.middle = Middle(widths[0], dtype=dtype, rngs=rngs)
        self.levels = nnx.List(
            [
                Level(
                    widths[max(i - 1, 0)],
                    widths[i],
                    res_blocks + 1,
                    attention=i == 0,
                    resize=None if i == last else Upsample,
                    dtype=dtype,
                    rngs=rngs,
                )
                for i in range(last + 1)
            ]
        )
        self.norm_out = group_norm(widths[-1], dtype=dtype, rngs=rngs)
        self.conv_out = conv(widths[-1], 3, 3, dtype=dtype, rngs=rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        """[B, h, w, z_channels] -> float32 [B, H, W, 3], not clipped."""
        x = self.middle(self.conv_in(z))
        for level in self.levels:
            x = level(x)
        return self.conv_out(jax.nn.swish(self.norm_out(x))).astype(jnp.float32)
