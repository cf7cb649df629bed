"""Halton-MaskGIT's transformer: the class acts through adaptive norms, not through a token.

Letters: B batch, h w grid, L = h * w image tokens, R registers, T = L + R, n some positions, D
width, H heads, K head dimension, F hidden units of the MLP, V classes of the head, N layers.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.models.shared_parameters import spread
from maskgil_jax.models.token_models import config_checks
from maskgil_jax.models.token_models.attention import attention
from maskgil_jax.models.token_models.layers import (
    RMSNorm,
    dropout,
    swiglu,
    through_layers,
)
from maskgil_jax.models.token_models.products import product

# Layers, width and heads of the published sizes.
SIZES = {
    "T": dict(layers=6, dim=384, heads=6),
    "S": dict(layers=12, dim=512, heads=6),
    "B": dict(layers=12, dim=768, heads=12),
    "L": dict(layers=24, dim=1024, heads=16),
}


@dataclasses.dataclass(frozen=True)
class HaltonConfig:
    """Shape of a HaltonTransformer.

    Attributes:
      layers, dim, heads: N, D, H; the head dimension is D / H rounded down.
      mlp_dim: F.
      codebook_size: number of image codes; id `codebook_size` is the mask.
      num_classes: number of condition classes; id `num_classes` is the null class.
      grid: (height, width) in tokens, the only one that its positions are for.
      registers: tokens without a position, appended.
      dropout: rate on the outputs of attention and MLP.
      remat: what is recomputed in the backward pass: "none", "minimal" (what is cheap: norms,
        activations) or "full" (each layer).
      unroll: layers in one iteration of the compiled loop.
      dtype: of the computation; parameters are float32.
    """

    layers: int
    dim: int
    heads: int
    mlp_dim: int
    codebook_size: int
    num_classes: int
    grid: tuple[int, int]
    registers: int = 1
    dropout: float = 0.0
    remat: str = "minimal"
    unroll: int = 1
    dtype: str = "float32"

    causal = False
    feature_dim = 0
    fits_any_grid = False  # positions are learned
    has_null_condition = True

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        object.__setattr__(self, "grid", tuple(self.grid))
        config_checks.check_run(self)
        sizes = ("layers", "dim", "heads", "mlp_dim", "registers")
        config_checks.check_counts(self, (*sizes, "codebook_size", "num_classes"))

    @property
    def mask_id(self) -> int:
        """The code that stands for a masked token."""
        return self.codebook_size

    @property
    def output_size(self) -> int:
        """V: the mask is predicted too."""
        return self.codebook_size + 1

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """One, of the classes of the head."""
        return (self.output_size,)


class HaltonTransformer(nnx.Module):
    """Logits of masked image tokens, given the visible ones and a class.

    Source: valeoai/Halton-MaskGIT, Network/transformer.py.
    """

    # Parameters that `classify` reads: the head is the table of the codes.
    of_head: tuple[str, ...] = ("code_embedding", "head_bias")

    def __init__(self, config: HaltonConfig, key: jax.Array):
        keys = jax.random.split(key, 6)
        normal = nnx.initializers.normal(0.02)
        D, L = config.dim, config.grid[0] * config.grid[1]
        self.config = config
        self.code_embedding = nnx.Param(normal(keys[0], (config.codebook_size + 1, D)))
        self.class_embedding = nnx.Param(normal(keys[1], (config.num_classes + 1, D)))
        self.position_embedding = nnx.Param(normal(keys[2], (L, D)))
        self.register_embedding = nnx.Param(normal(keys[3], (config.registers, D)))
        self.blocks = jax.vmap(lambda k: HaltonBlock(config, k))(
            jax.random.split(keys[4], config.layers)
        )
        self.norm = RMSNorm(D)
        self.norm_bias = nnx.Param(jnp.zeros(D))
        # Zero: at first the class changes nothing.
        self.modulation = nnx.Param(jnp.zeros((D, 2, D)))
        self.modulation_bias = nnx.Param(jnp.zeros((2, D)))
        self.head_bias = nnx.Param(jnp.zeros(config.output_size))

    def backbone(
        self, codes_Bhw: jax.Array, classes_B: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Outputs of the last layer, normed and modulated, [B, h * w, D]; `key`: dropout.

        Raises:
          ValueError: a grid other than the config's.
        """
        config, B = self.config, len(codes_Bhw)
        if codes_Bhw.shape[1:] != config.grid:
            raise ValueError(f"codes of {codes_Bhw.shape[1:]} tokens, expected {config.grid}")
        x_BLD = self.code_embedding[codes_Bhw.reshape(B, -1)] + self.position_embedding[...]
        registers = jnp.broadcast_to(
            self.register_embedding[...], (B, config.registers, config.dim)
        )
        x_BTD = jnp.concatenate([x_BLD, registers], axis=1).astype(config.dtype)
        class_BD = jax.nn.silu(self.class_embedding[classes_B].astype(config.dtype))
        x_BTD = through_layers(
            self.blocks,
            x_BTD,
            lambda block, x_BTD, key: block(x_BTD, class_BD, key),
            key,
            layers=config.layers,
            remat=config.remat,
            unroll=config.unroll,
        )
        x_BLD = self.norm(x_BTD[:, : x_BLD.shape[1]])
        x_BLD = x_BLD + spread(self.norm_bias[...], x_BLD)
        shift, scale = modulation(class_BD, self.modulation, self.modulation_bias)
        return x_BLD * spread(1 + scale, x_BLD) + spread(shift, x_BLD)

    def normed(self, x_BnD: jax.Array) -> jax.Array:
        """Nothing: the last norm depends on the class and is done in `backbone`."""
        return x_BnD

    def classify(self, x_BnD: jax.Array, positions_Bn: jax.Array | None = None) -> jax.Array:
        """The head, which is the table of the codes, the same at all positions: [B, n, V]."""
        table_VD = self.code_embedding[...].astype(self.config.dtype)
        logits_BnV = product("BnD,VD->BnV", x_BnD, table_VD, jnp.float32)
        return logits_BnV + self.head_bias[...]

    def drop_condition(self, classes_B: jax.Array, drop_B: jax.Array) -> jax.Array:
        """The null class where `drop_B`."""
        return jnp.where(drop_B, self.config.num_classes, classes_B)


class HaltonBlock(nnx.Module):
    """One layer; a model holds all its layers as one block with a leading depth axis."""

    def __init__(self, config: HaltonConfig, key: jax.Array):
        D, H, F = config.dim, config.heads, config.mlp_dim
        K = D // H
        keys = jax.random.split(key, 4)
        xavier = nnx.initializers.xavier_uniform()
        self.config = config
        self.modulation = nnx.Param(jnp.zeros((D, 6, D)))
        self.modulation_bias = nnx.Param(jnp.zeros((6, D)))
        self.qkv = nnx.Param(
            jnp.stack(
                [xavier(k, (D, H * K)) for k in jax.random.split(keys[0], 3)], axis=1
            ).reshape(D, 3, H, K)
        )
        self.out = nnx.Param(xavier(keys[1], (H * K, D)).reshape(H, K, D))
        self.gate_up = nnx.Param(
            jnp.stack([xavier(k, (D, F)) for k in jax.random.split(keys[2])], axis=1)
        )
        self.down = nnx.Param(xavier(keys[3], (F, D)))
        self.attention_norm, self.mlp_norm = RMSNorm(D), RMSNorm(D)

    def __call__(self, x_BTD: jax.Array, class_BD: jax.Array, key: jax.Array | None) -> jax.Array:
        """Attention, then MLP, each modulated by the class and added to its input."""
        keys = (None, None) if key is None else jax.random.split(key)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation(
            class_BD, self.modulation, self.modulation_bias
        )
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            spread(value, x_BTD) for value in (shift1, 1 + scale1, gate1, shift2, 1 + scale2, gate2)
        )
        y_BTD = self.attention(self.attention_norm(x_BTD) * scale1 + shift1)
        x_BTD = x_BTD + gate1 * dropout(y_BTD, self.config.dropout, keys[0])
        y_BTD = self.mlp(self.mlp_norm(x_BTD) * scale2 + shift2)
        return x_BTD + gate2 * dropout(y_BTD, self.config.dropout, keys[1])

    def attention(self, x_BTD: jax.Array) -> jax.Array:
        """Attention of every token to every token; the norm of q and k spans all heads."""
        qkv_BTCHK = product("BTD,DCHK->BTCHK", x_BTD, self.cast(self.qkv))
        q_BTHK, k_BTHK, v_BTHK = (part[:, :, 0] for part in jnp.split(qkv_BTCHK, 3, axis=2))
        o_BTHK = attention(
            _over_heads(q_BTHK),
            _over_heads(k_BTHK),
            v_BTHK,
            boundary=x_BTD.shape[1] - self.config.registers,
        )
        return product("BTHK,HKD->BTD", o_BTHK, self.cast(self.out))

    def mlp(self, x_BTD: jax.Array) -> jax.Array:
        """SwiGLU."""
        both_BTCF = product("BTD,DCF->BTCF", x_BTD, self.cast(self.gate_up))
        return product(
            "BTF,FD->BTD", swiglu(both_BTCF[:, :, 0], both_BTCF[:, :, 1]), self.cast(self.down)
        )

    def cast(self, parameter: nnx.Param) -> jax.Array:
        """A parameter in the dtype of the computation."""
        return parameter[...].astype(self.config.dtype)


def modulation(class_BD: jax.Array, kernel: nnx.Param, bias: nnx.Param) -> list[jax.Array]:
    """Shifts, scales and gates of a class, each [B, 1, D], in float32: they are few."""
    values_BCD = jnp.einsum("BD,DCE->BCE", class_BD.astype(jnp.float32), kernel[...])
    values_BCD = values_BCD + bias[...]
    return list(jnp.split(values_BCD, values_BCD.shape[1], axis=1))


def _over_heads(x_BTHK: jax.Array, eps: float = 1e-5) -> jax.Array:
    x32 = x_BTHK.astype(jnp.float32)
    square = jnp.mean(x32 * x32, axis=(2, 3), keepdims=True)
    return (x32 * jax.lax.rsqrt(square + eps)).astype(x_BTHK.dtype)
