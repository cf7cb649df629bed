"""Inception v3 of December 2015, whose features FID, sFID and the Inception Score are made of.

Letters: B batch, H W image, C channels.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models import parameter_keys
from maskgil_jax.models.perceptual import pooling

SIDE = 299  # pixels of the network's input
CLASSES = 1008
EPSILON = 1e-3
SPATIAL_CHANNELS = 7  # of the first branch of Mixed_6d, that make sFID's 17 * 17 * 7 features


class Conv(NamedTuple):
    """A convolution without bias, batch normalisation, ReLU.

    Attributes:
      name: as in the PyTorch port.
      channels: that it gives.
      kernel: height and width.
      stride: 2 takes no padding.
      pad: to the same size.
    """

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pad: bool = True


# A branch is a chain of convolutions, of poolings by name, and of forks: tuples of convolutions
# whose outputs are concatenated.
Branch = tuple[Conv | str | tuple[Conv, ...], ...]
AVERAGE, MAX, SHRINK = "average 3x3", "max 3x3", "max 3x3, stride 2"


def _a(pool: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3)),
        ),
        (AVERAGE, Conv("branch_pool", pool)),
    )


def _b() -> tuple[Branch, ...]:
    return (
        (Conv("branch3x3", 384, (3, 3), 2, pad=False),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3), 2, pad=False),
        ),
        (SHRINK,),
    )


def _c(width: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", width),
            Conv("branch7x7_2", width, (1, 7)),
            Conv("branch7x7_3", 192, (7, 1)),
        ),
        (
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, (7, 1)),
            Conv("branch7x7dbl_3", width, (1, 7)),
            Conv("branch7x7dbl_4", width, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (AVERAGE, Conv("branch_pool", 192)),
    )


def _d() -> tuple[Branch, ...]:
    return (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, pad=False)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, (3, 3), 2, pad=False),
        ),
        (SHRINK,),
    )


def _e(pool: str) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 320),),
        (
            Conv("branch3x3_1", 384),
            (Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, (3, 3)),
            (Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, Conv("branch_pool", 192)),
    )


STEM: Branch = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, pad=False),
    Conv("Conv2d_2a_3x3", 32, (3, 3), pad=False),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    SHRINK,
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), pad=False),
    SHRINK,
)
BLOCKS = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": _b(),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": _d(),
    "Mixed_7b": _e(AVERAGE),
    # The 2015 graph pools by maximum in its last block, other Inception v3 by average.
    "Mixed_7c": _e(MAX),
}


@dataclasses.dataclass(frozen=True)
class InceptionConfig:
    """The network has one shape.

    Attributes:
      dtype: of the computation; features are float32.
    """

    dtype: str = "float32"


class InceptionFeatures(NamedTuple):
    """What metrics use of the network.

    Attributes:
      pool: float32 [B, 2048], of FID, precision and recall.
      spatial: float32 [B, 2023], of sFID.
      logits: float32 [B, 1008] without the bias, of the Inception Score.
    """

    pool: jax.Array
    spatial: jax.Array
    logits: jax.Array


class Inception(nnx.Module):
    """The network that TensorFlow's classify_image_graph_def.pb of 2015-12-05 holds.

    Source: torch-fidelity, feature_extractor_inceptionv3.py; openai/guided-diffusion,
    evaluations/evaluator.py (which names the nodes).
    """

    def __init__(self, config: InceptionConfig, key: jax.Array):
        rngs = parameter_keys.rngs(key)
        self.config = config
        self.convs = nnx.Dict(
            {path: ConvNorm(cin, conv, config.dtype, rngs) for path, cin, conv in layers()}
        )
        self.head = nnx.Linear(2048, CLASSES, precision="highest", rngs=rngs)

    def __call__(self, images: jax.Array, resize: str = "tf1_bilinear") -> InceptionFeatures:
        """Features of uint8 [B, H, W, 3] (or floats in 0 .. 255), any H and W.

        Args:
          images: of one size.
          resize: key of RESIZES.
        """
        stages = self.stages(images, resize)
        pool = stages["Mixed_7c"].mean(axis=(1, 2))
        spatial = stages["Mixed_6d"][..., :SPATIAL_CHANNELS].reshape(len(images), -1)
        logits = jnp.einsum("BC,Ck->Bk", pool, self.head.kernel[...], precision="highest")
        return InceptionFeatures(pool, spatial, logits)

    def stages(self, images: jax.Array, resize: str = "tf1_bilinear") -> dict[str, jax.Array]:
        """What the stem's poolings and each block give, float32 [B, h, w, C], by name."""
        x = (RESIZES[resize](images) - 128) / 128
        features: dict[str, jax.Array] = {}
        for layer in STEM:
            x = self._branch("", (layer,), x)
            if layer == SHRINK:
                features[f"MaxPool_{len(features) + 1}"] = x
        for name, branches in BLOCKS.items():
            x = jnp.concatenate([self._branch(f"{name}.", b, x) for b in branches], axis=-1)
            features[name] = x
        return {name: x.astype(jnp.float32) for name, x in features.items()}

    def _branch(self, block: str, branch: Branch, x: jax.Array) -> jax.Array:
        for layer in branch:
            if isinstance(layer, Conv):
                x = self.convs[block + layer.name](x)
            elif isinstance(layer, str):
                x = _POOLS[layer](x)
            else:
                x = jnp.concatenate([self._branch(block, (conv,), x) for conv in layer], axis=-1)
        return x


class ConvNorm(nnx.Module):
    """A convolution with batch normalisation by the running statistics, and ReLU."""

    def __init__(self, cin: int, conv: Conv, dtype: str, rngs: nnx.Rngs):
        self.shape = conv
        self.conv = nnx.Conv(
            cin,
            conv.channels,
            conv.kernel,
            strides=conv.stride,
            # One column too many: without any padding, XLA's convolutions on CPUs are two to five
            # times slower.
            padding="SAME" if conv.pad else ((0, 0), (0, 1)),
            use_bias=False,
            dtype=dtype,
            precision="highest" if dtype == "float32" else None,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(
            conv.channels, use_running_average=True, epsilon=EPSILON, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, cin] to [B, h', w', cout]."""
        if self.shape.kernel == (1, 1):  # as products, 5 % faster on CPUs
            x, kernel = (v.astype(self.conv.dtype) for v in (x, self.conv.kernel[0, 0]))
            return jax.nn.relu(self.norm(jnp.dot(x, kernel, precision=self.conv.precision)))
        width = x.shape[2] if self.shape.pad else x.shape[2] - self.shape.kernel[1] + 1
        y = self.conv(x)[:, :, : -(-width // self.shape.stride)]
        return jax.nn.relu(self.norm(y))


def layers() -> list[tuple[str, int, Conv]]:
    """Name with its block, input channels and shape of each convolution."""
    convolutions: list[tuple[str, int, Conv]] = []

    def follow(block: str, branch: Branch, width: int) -> int:
        for layer in branch:
            if isinstance(layer, Conv):
                convolutions.append((block + layer.name, width, layer))
                width = layer.channels
            elif not isinstance(layer, str):
                width = sum(follow(block, (conv,), width) for conv in layer)
        return width

    width = follow("", STEM, 3)
    for name, branches in BLOCKS.items():
        width = sum(follow(f"{name}.", branch, width) for branch in branches)
    return convolutions


def resize_tf1(images: jax.Array) -> jax.Array:
    """[B, H, W, 3] to float32 [B, 299, 299, 3] as TensorFlow 1's ResizeBilinear.

    Pixel i of the result lies at i * H / 299 of the image: no half-pixel shift, clamped at the end.
    """
    return _resized(images, _bilinear)


def resize_clean(images: jax.Array) -> jax.Array:
    """[B, H, W, 3] to float32 [B, 299, 299, 3] in 0 .. 255, by Pillow's bicubic filter.

    Antialiased, of floats, without rounding. jax.image.resize has the same filter, at positions
    that float32 moves by up to 0.01 of a level.

    Source: clean-fid 0.1.35, resize.py, mode "clean".
    """
    return jnp.clip(_resized(images, _bicubic), 0, 255)


RESIZES = {"tf1_bilinear": resize_tf1, "clean_bicubic": resize_clean}


def _resized(images: jax.Array, weights: Callable[[int], np.ndarray]) -> jax.Array:
    rows, columns = (jnp.asarray(weights(side), jnp.float32) for side in images.shape[1:3])
    x = jnp.einsum("yH,BHWC->ByWC", rows, images.astype(jnp.float32), precision="highest")
    return jnp.einsum("xW,ByWC->ByxC", columns, x, precision="highest")


def _bicubic(side: int) -> np.ndarray:
    """Keys' cubic of a = -1/2, widened where it shrinks, cut at the border: float64 [299, side]."""
    scale = side / SIDE
    centres = (np.arange(SIDE)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(side) + 0.5 - centres) / max(scale, 1)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def _bilinear(side: int) -> np.ndarray:
    position = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)
    low = position.astype(np.int32)
    weights = np.zeros((SIDE, side), np.float32)
    rows = np.arange(SIDE)
    weights[rows, low] = 1 - (position - low)
    # Added, since the two are one pixel at the end.
    weights[rows, np.minimum(low + 1, side - 1)] += position - low
    return weights


_POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    AVERAGE: pooling.average_3x3,
    MAX: functools.partial(pooling.maximum, size=3, stride=1, padding="SAME"),
    SHRINK: functools.partial(pooling.maximum, size=3, stride=2),
}
