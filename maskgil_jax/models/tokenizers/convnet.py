"""The convolutional encoders and decoders of all tokenizers, NHWC.

The families share one skeleton (GroupNorm, swish, 3x3 convolutions, levels of residual
blocks between two resolutions); what they do differently stands in STYLES.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.models.tokenizers.convolutions import (
    AdaptiveGroupNorm,
    AveragePool,
    DepthToSpace,
    Downsample,
    Upsample,
    conv,
    group_norm,
)


@dataclasses.dataclass(frozen=True)
class Style:
    """What the families do differently.

    Attributes:
      downsample, upsample: between levels.
      bias: of the encoder's first convolution and of those in residual blocks.
      shortcut_of_branch: where the width changes, a 1x1 convolution of the branch is added to the
        branch itself, so that the block has no identity path.
      middle_attention: the middle is residual block, attention, residual block; else
        `middle_blocks` residual blocks, or where that is 0 as many as a level has.
      extra_block: decoder levels have one residual block more than encoder levels.
      adaptive_norm: before each decoder level.
      out_kernel: of the encoder's last convolution.
      unit_range: the networks see and give pixels in [0, 1].
      norm_groups: of each GroupNorm.
    """

    downsample: Callable[..., nnx.Module]
    upsample: Callable[..., nnx.Module]
    bias: bool
    shortcut_of_branch: bool
    middle_attention: bool
    extra_block: bool
    adaptive_norm: bool
    out_kernel: int
    unit_range: bool
    middle_blocks: int = 0
    norm_groups: int = 32


STYLES = {
    # CompVis/taming-transformers, taming/modules/diffusionmodules/model.py; LlamaGen, Chameleon
    "vqgan": Style(
        downsample=functools.partial(Downsample, padding=((0, 1), (0, 1))),
        upsample=Upsample,
        bias=True,
        shortcut_of_branch=False,
        middle_attention=True,
        extra_block=True,
        adaptive_norm=False,
        out_kernel=3,
        unit_range=False,
    ),
    # TencentARC/SEED-Voken, Open_MAGVIT2/modules/diffusionmodules/improved_model.py
    "magvit2": Style(
        downsample=functools.partial(Downsample, padding=((1, 1), (1, 1))),
        upsample=DepthToSpace,
        bias=False,
        shortcut_of_branch=False,
        middle_attention=False,
        extra_block=False,
        adaptive_norm=True,
        out_kernel=1,
        unit_range=False,
    ),
    # google-research/maskgit, maskgit/nets/vqgan_tokenizer.py
    "maskgit": Style(
        downsample=AveragePool,
        upsample=Upsample,
        bias=False,
        shortcut_of_branch=True,
        middle_attention=False,
        extra_block=False,
        adaptive_norm=False,
        out_kernel=1,
        unit_range=True,
    ),
    # huggingface/diffusers, models/autoencoders/vq_model.py, without its attention
    "diffusers": Style(
        downsample=functools.partial(Downsample, padding=((0, 1), (0, 1))),
        upsample=Upsample,
        bias=True,
        shortcut_of_branch=False,
        middle_attention=False,
        extra_block=True,
        adaptive_norm=False,
        out_kernel=3,
        unit_range=True,
        middle_blocks=2,
    ),
}


class ResBlock(nnx.Module):
    """Two norm-swish-convolution layers added to the input."""

    def __init__(self, cin: int, cout: int, style: Style, *, dtype: str, rngs: nnx.Rngs):
        norm = functools.partial(group_norm, groups=style.norm_groups, dtype=dtype, rngs=rngs)
        self.norm1 = norm(cin)
        self.conv1 = conv(cin, cout, 3, bias=style.bias, dtype=dtype, rngs=rngs)
        self.norm2 = norm(cout)
        self.conv2 = conv(cout, cout, 3, bias=style.bias, dtype=dtype, rngs=rngs)
        self.of_branch = style.shortcut_of_branch
        self.has_shortcut = cin != cout
        if self.has_shortcut:
            width = cout if self.of_branch else cin
            self.shortcut = conv(width, cout, 1, bias=style.bias, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, cin] -> [B, H, W, cout]."""
        y = self.conv1(jax.nn.swish(self.norm1(x)))
        y = self.conv2(jax.nn.swish(self.norm2(y)))
        if self.has_shortcut:
            x = self.shortcut(y if self.of_branch else x)
        return y + x


class Attention(nnx.Module):
    """Single-head self-attention over all positions."""

    def __init__(self, channels: int, style: Style, *, dtype: str, rngs: nnx.Rngs):
        self.norm = group_norm(channels, style.norm_groups, dtype=dtype, rngs=rngs)
        self.q, self.k, self.v, self.out = (
            conv(channels, channels, 1, dtype=dtype, rngs=rngs) for _ in range(4)
        )
        self.precision = self.q.precision

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        B, H, W, C = x.shape
        y = self.norm(x)
        q, k, v = (layer(y).reshape(B, H * W, C) for layer in (self.q, self.k, self.v))
        weights = jnp.einsum("BqC,BkC->Bqk", q, k, precision=self.precision) * C**-0.5
        weights = jax.nn.softmax(weights.astype(jnp.float32), axis=-1).astype(v.dtype)
        y = jnp.einsum("Bqk,BkC->BqC", weights, v, precision=self.precision).reshape(B, H, W, C)
        return x + self.out(y)


class Level(nnx.Module):
    """Residual blocks of one resolution, each followed by attention where asked, then a resize."""

    def __init__(
        self,
        cin: int,
        cout: int,
        blocks: int,
        style: Style,
        *,
        attention: bool,
        resize: Callable[..., nnx.Module] | None,
        dtype: str,
        rngs: nnx.Rngs,
    ):
        widths = [cin] + [cout] * blocks
        self.res = nnx.List(
            [ResBlock(widths[i], cout, style, dtype=dtype, rngs=rngs) for i in range(blocks)]
        )
        self.attention = nnx.List(
            [
                Attention(cout, style, dtype=dtype, rngs=rngs)
                for _ in range(blocks if attention else 0)
            ]
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


class AttentionMiddle(nnx.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, style: Style, *, dtype: str, rngs: nnx.Rngs):
        self.res1 = ResBlock(channels, channels, style, dtype=dtype, rngs=rngs)
        self.attention = Attention(channels, style, dtype=dtype, rngs=rngs)
        self.res2 = ResBlock(channels, channels, style, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return self.res2(self.attention(self.res1(x)))


def middle(
    channels: int, blocks: int, style: Style, *, dtype: str, rngs: nnx.Rngs
) -> AttentionMiddle | Level:
    """What stands between the levels of encoder or decoder and the quantiser."""
    if style.middle_attention:
        return AttentionMiddle(channels, style, dtype=dtype, rngs=rngs)
    blocks = style.middle_blocks or blocks
    return Level(
        channels, channels, blocks, style, attention=False, resize=None, dtype=dtype, rngs=rngs
    )


class Encoder(nnx.Module):
    """Images to features, 2^(levels - 1) times smaller. `levels[0]` is the highest resolution."""

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        res_blocks: int,
        z_channels: int,
        style: Style,
        *,
        attention: bool,
        dtype: str,
        rngs: nnx.Rngs,
    ):
        widths = [channels] + [channels * m for m in multipliers]
        last = len(multipliers) - 1
        self.conv_in = conv(3, channels, 3, bias=style.bias, dtype=dtype, rngs=rngs)
        self.levels = nnx.List(
            [
                Level(
                    widths[i],
                    widths[i + 1],
                    res_blocks,
                    style,
                    attention=attention and i == last,
                    resize=None if i == last else style.downsample,
                    dtype=dtype,
                    rngs=rngs,
                )
                for i in range(last + 1)
            ]
        )
        self.middle = middle(widths[-1], res_blocks, style, dtype=dtype, rngs=rngs)
        self.norm_out = group_norm(widths[-1], style.norm_groups, dtype=dtype, rngs=rngs)
        self.conv_out = conv(widths[-1], z_channels, style.out_kernel, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] ([0, 1] for a unit_range) -> [B, h, w, z_channels]."""
        x = self.conv_in(images)
        for level in self.levels:
            x = level(x)
        return self.conv_out(jax.nn.swish(self.norm_out(self.middle(x))))


class Decoder(nnx.Module):
    """Latents to `features`, from which `conv_out` makes pixels.

    `levels[0]` is the lowest resolution, as in LlamaGen's key order.
    """

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        res_blocks: int,
        z_channels: int,
        style: Style,
        *,
        attention: bool,
        dtype: str,
        rngs: nnx.Rngs,
    ):
        outputs = [channels * m for m in reversed(multipliers)]
        inputs = outputs[:1] + outputs[:-1]
        last = len(multipliers) - 1
        self.conv_in = conv(z_channels, inputs[0], 3, dtype=dtype, rngs=rngs)
        self.middle = middle(inputs[0], res_blocks, style, dtype=dtype, rngs=rngs)
        self.adaptive = nnx.List(
            [
                AdaptiveGroupNorm(z_channels, width, dtype=dtype, rngs=rngs)
                for width in (inputs if style.adaptive_norm else [])
            ]
        )
        self.levels = nnx.List(
            [
                Level(
                    inputs[i],
                    outputs[i],
                    res_blocks + style.extra_block,
                    style,
                    attention=attention and i == 0,
                    resize=None if i == last else style.upsample,
                    dtype=dtype,
                    rngs=rngs,
                )
                for i in range(last + 1)
            ]
        )
        self.norm_out = group_norm(outputs[-1], style.norm_groups, dtype=dtype, rngs=rngs)
        self.conv_out = conv(outputs[-1], 3, 3, dtype=dtype, rngs=rngs)

    def features(self, z: jax.Array) -> jax.Array:
        """[B, h, w, z_channels] -> [B, H, W, C], what the last convolution sees."""
        x = self.middle(self.conv_in(z))
        for i, level in enumerate(self.levels):
            if self.adaptive:
                x = self.adaptive[i](x, z)
            x = level(x)
        return jax.nn.swish(self.norm_out(x))
