"""The image tokenizers: encoder, quantiser, decoder; all families in one module.

| family | style | quantizer | attention | z_channels | codes x dimension |
| --- | --- | --- | --- | --- | --- |
| LlamaGen VQ-16, VQ-8 | vqgan | cosine | yes | 256 | 16384 x 8 |
| MaskGIT-VQ of the paper (taming f16) | vqgan | euclidean | yes | 256 | 1024 x 256 |
| Chameleon-VQ | vqgan | euclidean | no | 256 | 8192 x 256 |
| Open-MAGVIT2 | magvit2 | lookup_free | no | 0 | 262144 x 18 |
| Google's MaskGIT tokenizer | maskgit | euclidean | no | 0 | 1024 x 256 |
| VQModel of diffusers (aMUSEd's) | diffusers | euclidean | no | 64 | 8192 x 64 |

Letters: B batch, H W image, h w grid, C codebook dimension, V codes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.models import parameter_keys
from maskgil_jax.models.tokenizers import convnet, quantizers

QUANTIZERS = ("cosine", "euclidean", "lookup_free")


@dataclasses.dataclass(frozen=True)
class VQConfig:
    """Shape of a VQTokenizer; the defaults are LlamaGen's VQ-16.

    Attributes:
      style: key of convnet.STYLES.
      channels: width of the first level.
      channel_multipliers: one per level; each but the last halves the side.
      res_blocks: per level of the encoder.
      attention: after each residual block of the lowest resolution.
      z_channels: width between the convolutions and the projections onto and off the codebook;
        0: no projections.
      quantizer: "cosine" (nearest row, both sides l2-normalised), "euclidean" (nearest row) or
        "lookup_free" (signs; V = 2^C and no table).
      codebook_size, codebook_dim: V, C.
      norm_groups: of each GroupNorm; 32 but in style "diffusers".
      search_block: most distances between latents and codes that are held at once.
      dtype: of the convolutions; parameters and quantiser are float32.
    """

    style: str = "vqgan"
    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    attention: bool = True
    z_channels: int = 256
    quantizer: str = "cosine"
    codebook_size: int = 16384
    codebook_dim: int = 8
    norm_groups: int = 32
    search_block: int = 2**26
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what no network has."""
        object.__setattr__(self, "channel_multipliers", tuple(self.channel_multipliers))
        for name, known in (
            ("style", tuple(convnet.STYLES)),
            ("quantizer", QUANTIZERS),
            ("dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        for name in ("res_blocks", "codebook_size", "codebook_dim", "norm_groups", "search_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 1 or more")
        levels = self.channel_multipliers
        if not levels or not all(type(n) is int and n > 0 for n in levels):
            raise ValueError(f"channel_multipliers = {levels}, expected numbers of 1 or more")
        if self.z_channels < 0:
            raise ValueError(f"z_channels = {self.z_channels}, expected 0 (none) or more")
        groups = self.norm_groups
        if self.channels < groups or self.channels % groups:
            raise ValueError(
                f"channels = {self.channels}, expected a multiple of {groups} (GroupNorm)"
            )
        if groups != 32 and self.style != "diffusers":
            raise ValueError(f"norm_groups = {groups} with style {self.style}, expected 32")
        if self.quantizer == "lookup_free" and self.codebook_size != 2**self.codebook_dim:
            raise ValueError(
                f"codebook_size = {self.codebook_size}, expected {2**self.codebook_dim} = "
                f"2^codebook_dim for a lookup-free quantizer"
            )

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
      codebook_loss: mean (sg(z) - e)^2, moves the codebook; 0 where there is none.
      commitment_loss: mean (z - sg(e))^2, moves the encoder (weighted by the caller).
    """

    z_BhwC: jax.Array
    codes_Bhw: jax.Array
    codebook_loss: jax.Array
    commitment_loss: jax.Array


class VQTokenizer(nnx.Module):
    """Encoder, quantiser, decoder.

    Its methods are pure and may be jitted. They check no values: images beyond [-1, 1] are encoded
    as they are, and codes that do not exist give NaN pixels.

    Source: the files named at convnet.STYLES; LlamaGen tokenizer/tokenizer_image/vq_model.py.
    """

    def __init__(self, config: VQConfig, key: jax.Array):
        rngs = parameter_keys.rngs(key)
        self.config = config
        style = convnet.STYLES[config.style]
        self.style = dataclasses.replace(style, norm_groups=config.norm_groups)
        shape = (
            config.channels,
            config.channel_multipliers,
            config.res_blocks,
            config.z_channels or config.codebook_dim,
            self.style,
        )
        options: dict[str, Any] = dict(attention=config.attention, dtype=config.dtype, rngs=rngs)
        self.encoder = convnet.Encoder(*shape, **options)
        self.decoder = convnet.Decoder(*shape, **options)
        if config.z_channels:
            # The projections around the codebook decide between close codes: always float32.
            self.quant_conv = convnet.conv(
                config.z_channels, config.codebook_dim, 1, dtype="float32", rngs=rngs
            )
            self.post_quant_conv = convnet.conv(
                config.codebook_dim, config.z_channels, 1, dtype="float32", rngs=rngs
            )
        if config.quantizer != "lookup_free":
            shape_VC = (config.codebook_size, config.codebook_dim)
            table_VC = jax.random.normal(rngs.params(), shape_VC)
            self.codebook = nnx.Param(quantizers.normalize(table_VC))

    def latents(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] -> float32 [B, h, w, C], before normalisation."""
        if self.style.unit_range:
            images = (images + 1) / 2
        z = self.encoder(images).astype(jnp.float32)
        return self.quant_conv(z) if self.config.z_channels else z

    def codes(self, latents: jax.Array) -> jax.Array:
        """float32 [B, h, w, C] -> int32 [B, h, w]."""
        if self.config.quantizer == "lookup_free":
            return quantizers.sign_codes(latents)
        return quantizers.nearest(
            self.comparable(latents), self._table_VC(), self.config.search_block
        )

    def vectors(self, codes_Bhw: jax.Array) -> jax.Array:
        """int32 [B, h, w] -> float32 [B, h, w, C]; NaN for codes that do not exist."""
        if self.config.quantizer == "lookup_free":
            z_BhwC = quantizers.signs(codes_Bhw, self.config.codebook_dim)
        else:
            z_BhwC = self._table_VC()[codes_Bhw]
        exists = (codes_Bhw >= 0) & (codes_Bhw < self.config.codebook_size)
        return jnp.where(exists[..., None], z_BhwC, jnp.nan)

    def quantize(self, latents: jax.Array) -> Quantized:
        """Codes of the latents with the two losses."""
        z_BhwC = self.comparable(latents)
        codes_Bhw = jax.lax.stop_gradient(self.codes(latents))
        e_BhwC = self.vectors(codes_Bhw)
        return Quantized(
            z_BhwC=z_BhwC + jax.lax.stop_gradient(e_BhwC - z_BhwC),
            codes_Bhw=codes_Bhw,
            codebook_loss=jnp.mean((e_BhwC - jax.lax.stop_gradient(z_BhwC)) ** 2)
            * (self.config.quantizer != "lookup_free"),
            commitment_loss=jnp.mean((jax.lax.stop_gradient(e_BhwC) - z_BhwC) ** 2),
        )

    def entropy_loss(self, latents: jax.Array) -> jax.Array:
        """Mean entropy of the soft assignments minus the entropy of their mean, in nats."""
        if self.config.quantizer == "lookup_free":
            each, mean = quantizers.sign_entropies(latents)
        else:
            each, mean = quantizers.entropies(
                self.comparable(latents), self._table_VC(), self.config.search_block
            )
        return each - mean

    def features(self, z_BhwC: jax.Array) -> jax.Array:
        """Codebook vectors -> what the last convolution sees, [B, H, W, channels]."""
        return self.decoder.features(
            self.post_quant_conv(z_BhwC) if self.config.z_channels else z_BhwC
        )

    def pixels(self, features: jax.Array) -> jax.Array:
        """The last convolution: float32 [B, H, W, 3], not clipped."""
        y = self.decoder.conv_out(features).astype(jnp.float32)
        return 2 * y - 1 if self.style.unit_range else y

    def encode(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] -> int32 [B, h, w]."""
        return self.codes(self.latents(images))

    def decode(self, codes_Bhw: jax.Array) -> jax.Array:
        """int32 [B, h, w] -> float32 [B, H, W, 3], not clipped."""
        return self.pixels(self.features(self.vectors(codes_Bhw)))

    def comparable(self, latents: jax.Array) -> jax.Array:
        """What is compared with the rows of the codebook; the same shape."""
        return quantizers.normalize(latents) if self.config.quantizer == "cosine" else latents

    def _table_VC(self) -> jax.Array:
        table_VC = self.codebook[...]
        return quantizers.normalize(table_VC) if self.config.quantizer == "cosine" else table_VC
