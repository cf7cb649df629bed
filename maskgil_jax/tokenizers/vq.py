"""The LlamaGen image tokenizer: convolutions around an l2-normalised codebook.

Letters: B batch, h w grid, C codebook dimension, V codes.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.tokenizers import convnet


@dataclasses.dataclass(frozen=True)
class VQConfig:
    """Shape of a VQTokenizer; the defaults are LlamaGen's VQ-16.

    Attributes:
      channels: width of the first level.
      channel_multipliers: one per level; each but the last halves the side.
      res_blocks: per level of the encoder; the decoder has one more.
      z_channels: width between the convolutions and the codebook projection.
      codebook_size, codebook_dim: V, C.
      dtype: of the convolutions; parameters and the codebook search are float32.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    z_channels: int = 256
    codebook_size: int = 16384
    codebook_dim: int = 8
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what GroupNorm cannot divide."""
        object.__setattr__(self, "channel_multipliers", tuple(self.channel_multipliers))
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype = {self.dtype!r}, expected float32 or bfloat16")
        if min(self.res_blocks, self.codebook_size, self.codebook_dim, self.z_channels) < 1:
            raise ValueError("res_blocks, codebook_size, codebook_dim and z_channels are 1 or more")
        if self.channels < 32 or self.channels % 32:
            raise ValueError(f"channels = {self.channels}, expected a multiple of 32 (GroupNorm)")

    @property
    def downsample(self) -> int:
        """Pixels per token and side."""
        return 2 ** (len(self.channel_multipliers) - 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """What quantisation gives.

    Attributes:
      z_BhwC: float32 codebook vectors; gradients pass straight through to the latents.
      codes_Bhw: int32.
      codebook_loss: mean (sg(z) - e)^2, moves the codebook.
      commitment_loss: mean (z - sg(e))^2, moves the encoder (weighted by the caller).
    """

    z_BhwC: jax.Array
    codes_Bhw: jax.Array
    codebook_loss: jax.Array
    commitment_loss: jax.Array


class VQTokenizer(nnx.Module):
    """Encoder, codebook, decoder.

    Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py.
    """

    def __init__(self, config: VQConfig, key: jax.Array):
        rngs = nnx.Rngs(key)
        shape = (
            config.channels,
            config.channel_multipliers,
            config.res_blocks,
            config.z_channels,
        )
        self.config = config
        self.encoder = convnet.Encoder(*shape, dtype=config.dtype, rngs=rngs)
        self.decoder = convnet.Decoder(*shape, dtype=config.dtype, rngs=rngs)
        # The projections around the codebook decide between close codes: always float32.
        self.quant_conv = convnet.conv(
            config.z_channels, config.codebook_dim, 1, dtype="float32", rngs=rngs
        )
        self.post_quant_conv = convnet.conv(
            config.codebook_dim, config.z_channels, 1, dtype="float32", rngs=rngs
        )
        table_VC = jax.random.normal(rngs.params(), (config.codebook_size, config.codebook_dim))
        self.codebook = nnx.Param(normalize(table_VC))

    def latents(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] -> float32 [B, h, w, C], before normalisation."""
        return self.quant_conv(self.encoder(images).astype(jnp.float32))

    def quantize(self, latents: jax.Array) -> Quantized:
        """Nearest codes of the normalised latents, with the two losses."""
        z_BhwC = normalize(latents)
        table_VC = normalize(self.codebook[...])
        codes_Bhw = nearest(jax.lax.stop_gradient(z_BhwC), jax.lax.stop_gradient(table_VC))
        e_BhwC = table_VC[codes_Bhw]
        return Quantized(
            z_BhwC=z_BhwC + jax.lax.stop_gradient(e_BhwC - z_BhwC),
            codes_Bhw=codes_Bhw,
            codebook_loss=jnp.mean((e_BhwC - jax.lax.stop_gradient(z_BhwC)) ** 2),
            commitment_loss=jnp.mean((jax.lax.stop_gradient(e_BhwC) - z_BhwC) ** 2),
        )

    def decode_vectors(self, z_BhwC: jax.Array) -> jax.Array:
        """Codebook vectors -> float32 [B, H, W, 3], not clipped."""
        return self.decoder(self.post_quant_conv(z_BhwC))

    def encode(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] -> int32 [B, h, w]."""
        return nearest(normalize(self.latents(images)), normalize(self.codebook[...]))

    def decode(self, codes_Bhw: jax.Array) -> jax.Array:
        """int32 [B, h, w] -> float32 [B, H, W, 3], not clipped."""
        return self.decode_vectors(normalize(self.codebook[...])[codes_Bhw])


def normalize(x: jax.Array) -> jax.Array:
    """Divide by the l2 norm of the last axis, at least 1e-12 (torch F.normalize)."""
    # The norm's gradient at 0 is nan without the inner where.
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0)) * (square > 0)
    return x / jnp.maximum(norm, 1e-12)


def nearest(z_BhwC: jax.Array, table_VC: jax.Array) -> jax.Array:
    """Index of the nearest row of the table, int32 [B, h, w]; ties go to the first.

    Distances are float32 at the highest matmul precision: bfloat16 would change codes.
    """
    products = jnp.einsum("BhwC,VC->BhwV", z_BhwC, table_VC, precision="highest")
    distance = jnp.sum(table_VC**2, axis=-1) - 2 * products
    return jnp.argmin(distance, axis=-1).astype(jnp.int32)
