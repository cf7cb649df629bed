"""LPIPS, the perceptual distance of Zhang et al. 2018, on VGG16 features."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.models import parameter_keys
from maskgil_jax.models.perceptual import pooling

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of VGG16, between two poolings
DROPOUT = 0.5
# Of the official scaling layer, which takes images in [-1, 1] to ImageNet's mean and deviation.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclasses.dataclass(frozen=True)
class LPIPSConfig:
    """Shape of LPIPS.

    Attributes:
      channels: of the five groups of convolutions.
      dtype: of the convolutions; distances are float32.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Take lists, as they come from JSON."""
        object.__setattr__(self, "channels", tuple(self.channels))


class LPIPS(nnx.Module):
    """Weighted squared distance between unit-normalised features of two images.

    Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/lpips.py.
    """

    def __init__(self, config: LPIPSConfig, key: jax.Array):
        rngs = parameter_keys.rngs(key)
        self.config = config
        groups, cin = [], 3
        for width, count in zip(config.channels, CONVOLUTIONS, strict=True):
            widths = [cin] + [width] * count
            convs = [
                nnx.Conv(
                    widths[i],
                    width,
                    (3, 3),
                    dtype=config.dtype,
                    precision="highest" if config.dtype == "float32" else None,
                    rngs=rngs,
                )
                for i in range(count)
            ]
            groups.append(nnx.List(convs))
            cin = width
        self.groups = nnx.List(groups)
        self.heads = nnx.List([nnx.Param(jnp.full(width, 1 / width)) for width in config.channels])

    def features(self, images: jax.Array) -> list[jax.Array]:
        """What each group ends with (relu1_2 .. relu5_3), of [B, H, W, 3] in [-1, 1]."""
        x = (images - jnp.array(SHIFT)) / jnp.array(SCALE)
        features = []
        for i, group in enumerate(self.groups):
            if i:
                x = pooling.maximum(x, size=2, stride=2)
            for conv in group:
                x = jax.nn.relu(conv(x))
            features.append(x)
        return features

    def __call__(
        self, x: jax.Array, y: jax.Array, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Distances, float32 [B].

        Args:
          x, y: [B, H, W, 3] in [-1, 1]; sides of 16 or more.
          dropout_key: drops half of the channels' squared distances at random, as the official
            training code does (it leaves the heads' dropout on); None is evaluation.
        """
        total = jnp.zeros(len(x))
        pairs = zip(self.features(x), self.features(y), self.heads, strict=True)
        for i, (of_x, of_y, head) in enumerate(pairs):
            square = (_unit(of_x) - _unit(of_y)) ** 2
            if dropout_key is not None:
                keep = jax.random.bernoulli(
                    jax.random.fold_in(dropout_key, i), 1 - DROPOUT, square.shape
                )
                square = square * keep / (1 - DROPOUT)
            total += jnp.einsum("BHWC,C->B", square, head[...], precision="highest") / (
                square.shape[1] * square.shape[2]
            )
        return total


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    # Where all features are 0, which relu makes common, the root has no gradient.
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0)) * (square > 0)
    return x / (norm + 1e-10)
