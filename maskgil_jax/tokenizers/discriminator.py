"""PatchGAN: judges patches of an image as real or reconstructed (Isola et al. 2017)."""

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.Module):
    """Normalise channels by the statistics of the batch at hand.

    Training is all a discriminator is for, so no running averages are kept. Under a mesh the
    statistics are those of the global batch.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        x = x - x.mean(axis=(0, 1, 2))
        x = x * jax.lax.rsqrt((x * x).mean(axis=(0, 1, 2)) + self.eps)
        return x * self.scale[...] + self.bias[...]


class PatchGAN(nnx.Module):
    """Strided 4x4 convolutions, batch norm, leaky ReLU 0.2; float32.

    Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/discriminator_patchgan.py.
    """

    def __init__(self, channels: int, layers: int, key: jax.Array):
        rngs = nnx.Rngs(key)
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

    def __call__(self, images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """[B, H, W, 3] in [-1, 1] -> logits [B, h, w] (high: real), features of each layer."""
        x = jax.nn.leaky_relu(self.conv_in(images), 0.2)
        features = [x]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(conv(x)), 0.2)
            features.append(x)
        return self.conv_out(x)[..., 0], features
