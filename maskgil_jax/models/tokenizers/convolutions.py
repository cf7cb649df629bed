"""Convolutions, norms and changes of size that image tokenizers are built of.

Letters: B batch, H W pixels or tokens, C channels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.models.shared_parameters import Conv, factor, spread

# PyTorch's default start (uniform, variance 1 / (3 fan_in)), which the recipes were tuned with.
INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def conv(
    cin: int,
    cout: int,
    kernel: int,
    *,
    dtype: str,
    rngs: nnx.Rngs,
    bias: bool = True,
    strides: int = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Conv:
    """A convolution, padded to keep the size by default."""
    return Conv(
        cin,
        cout,
        (kernel, kernel),
        strides=strides,
        padding=padding,
        use_bias=bias,
        kernel_init=INIT,
        dtype=dtype,
        # Accelerators round float32 factors by default; codes would change.
        precision="highest" if dtype == "float32" else None,
        rngs=rngs,
    )


class GroupNorm(nnx.GroupNorm):
    """Flax's, with statistics from sums over each channel: no copy of the input in groups."""

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """[B, H, W, C] -> [B, H, W, C]."""
        B, H, W, C = x.shape

        def mean(x_BHWC: jax.Array) -> jax.Array:
            sums_BGc = x_BHWC.sum(axis=(1, 2)).reshape(B, self.num_groups, -1)
            means = sums_BGc.mean(axis=2, keepdims=True) / (H * W)
            return jnp.broadcast_to(means, sums_BGc.shape).reshape(B, 1, 1, C)

        centred = x.astype(jnp.float32)
        centred = centred - mean(centred)
        factor = jax.lax.rsqrt(mean(centred * centred) + self.epsilon)
        y = centred * (factor if self.scale is None else factor * self.scale[...])
        y = y if self.bias is None else y + self.bias[...]
        return y.astype(self.dtype)


def group_norm(
    channels: int, groups: int, *, dtype: str, rngs: nnx.Rngs, affine: bool = True
) -> GroupNorm:
    """GroupNorm as the official models have it."""
    return GroupNorm(
        channels,
        num_groups=groups,
        epsilon=1e-6,
        use_bias=affine,
        use_scale=affine,
        dtype=dtype,
        rngs=rngs,
    )


class Downsample(nnx.Module):
    """Halve the side by a strided convolution; the families pad it differently."""

    def __init__(
        self,
        channels: int,
        *,
        padding: Sequence[tuple[int, int]],
        dtype: str,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(channels, channels, 3, strides=2, padding=padding, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / 2, W / 2, C]."""
        return self.conv(x)


class AveragePool(nnx.Module):
    """Halve the side by the mean of 2x2."""

    def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
        pass

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / 2, W / 2, C]."""
        return nnx.avg_pool(x, (2, 2), strides=(2, 2))


# Rows of a 3x3 kernel that meet the same pixel of the smaller image, [row of the 2x2 block, tap].
TAPS = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))


class Upsample(nnx.Module):
    """Double the side: nearest neighbour, then a convolution.

    Computed on the smaller image: a 3x3 kernel meets only 2x2 different pixels, so that kernels of
    2x2, one for each pixel of a 2x2 block, do it in 4/9 of the products.
    """

    def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, 2 H, 2 W, C]."""
        B, H, W, C = x.shape
        dtype, taps = self.conv.dtype, jnp.array(TAPS, jnp.float32)
        kernel = self.conv.kernel[...]
        kernel = jnp.einsum("apk,bql,klCD->pqCabD", taps, taps, kernel, precision="highest")
        # Padded before: XLA exchanges the operands of a convolution whose kernel is the larger, as
        # this one's gradient would be for the kernel, and a CPU is 10 to 40 times slower with that.
        padded = jnp.pad(factor(x, dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = jax.lax.conv_general_dilated(
            padded,
            factor(kernel.reshape(2, 2, C, 4 * C), dtype),
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=self.conv.precision,
        ).reshape(B, H + 1, W + 1, 2, 2, C)
        rows = [
            jnp.stack([y[:, a : a + H, b : b + W, a, b] for b in (0, 1)], axis=3) for a in (0, 1)
        ]
        y = jnp.stack(rows, axis=2).reshape(B, 2 * H, 2 * W, C)
        if self.conv.bias is not None:
            y = y + spread(self.conv.bias[...], y)
        return y.astype(dtype)


class DepthToSpace(nnx.Module):
    """Double the side: a convolution to 4 C channels, each a quarter of the new pixels."""

    def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
        self.conv = conv(channels, 4 * channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, 2 H, 2 W, C]."""
        B, H, W, C = x.shape
        # The offset in the 2x2 block is the leading factor of the channels (DCR order).
        y = self.conv(x).reshape(B, H, W, 2, 2, C)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * H, 2 * W, C)


class AdaptiveGroupNorm(nnx.Module):
    """GroupNorm whose scale and bias come from the statistics of the quantised latents.

    Source: TencentARC/SEED-Voken, Open_MAGVIT2 improved_model.py, `AdaptiveGroupNorm`.
    """

    def __init__(self, z_channels: int, channels: int, *, dtype: str, rngs: nnx.Rngs):
        self.norm = group_norm(channels, 32, dtype=dtype, rngs=rngs, affine=False)
        self.scale, self.shift = (
            nnx.Linear(z_channels, channels, kernel_init=INIT, precision="highest", rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """[B, H, W, C], [B, h, w, z_channels] -> [B, H, W, C]."""
        z = z.astype(jnp.float32)
        # The official code takes PyTorch's default, the unbiased variance; of one position it
        # would be undefined.
        unbiased = min(1, z.shape[1] * z.shape[2] - 1)
        deviation = jnp.sqrt(z.var(axis=(1, 2), ddof=unbiased) + 1e-6)
        scale, shift = self.scale(deviation), self.shift(z.mean(axis=(1, 2)))
        y = self.norm(x)
        return spread(scale[:, None, None], y) * y + spread(shift[:, None, None], y)
