"""Bidirectional LLaMA over image tokens: the token model of MaskGIL.

Letters: B batch, h w grid, L = h * w image tokens, T = L + 1 with the condition token, D width,
H heads, K head dimension, F hidden units of the MLP, V classes of the head, N layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models import rope

PRESETS: dict[str, dict[str, Any]] = {
    # The paper: 2D RoPE, the condition drawn first, QK-norm, norms on the outputs of attention and
    # MLP (as a sandwich, like the same authors' Lumina), separate tables, no class for the mask.
    "paper": dict(
        rope="2d",
        condition_position="first",
        joint_embedding=False,
        mask_logit=False,
        qk_norm="layer",
        post_norm="sandwich",
    ),
    # The released code (synbol/MaskGIL, Network/gpt.py).
    "maskgil_released": dict(
        rope="1d",
        condition_position="last",
        joint_embedding=True,
        mask_logit=True,
        qk_norm="none",
        post_norm="none",
    ),
}


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Shape and switches of a Llama; the defaults are the paper's choices.

    Attributes:
      layers, dim, heads: N, D, H.
      codebook_size: number of image codes; id `codebook_size` is the mask.
      num_classes: number of condition classes; id `num_classes` is the null class.
      grid: (height, width) in tokens that the model is trained on.
      ffn_multiple: hidden units are int(8 D / 3) rounded up to a multiple of this.
      dropout: rate on the outputs of attention and MLP.
      rope: "2d", or "1d": raster order as released, where the row of the condition stands first
        in the table even if the condition token stands last in the sequence, so that the first
        image token gets it.
      condition_rope: rotation of the condition: "zero" (released) or "identity".
      condition_position: "first" or "last" in the sequence.
      joint_embedding: one table for codes, mask and classes.
      mask_logit: the head has a column for the mask id.
      qk_norm: "layer" (per head, with scale and bias), "rms" or "none".
      post_norm: "sandwich" (x + norm(f(norm(x)))), "output" (x + norm(f(x))) or "none".
      remat: recompute each layer in the backward pass.
      dtype: of the computation; parameters are float32.
    """

    layers: int
    dim: int
    heads: int
    codebook_size: int
    num_classes: int
    grid: tuple[int, int]
    ffn_multiple: int = 256
    dropout: float = 0.0
    rope: str = "2d"
    condition_rope: str = "zero"
    condition_position: str = "first"
    joint_embedding: bool = False
    mask_logit: bool = False
    qk_norm: str = "layer"
    post_norm: str = "sandwich"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        object.__setattr__(self, "grid", tuple(self.grid))
        for field in ("layers", "dim", "heads", "codebook_size", "num_classes", "ffn_multiple"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} = {getattr(self, field)}, expected 1 or more")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"grid = {self.grid}, expected (height, width)")
        allowed = dict(
            rope=("1d", "2d"),
            condition_rope=("zero", "identity"),
            condition_position=("first", "last"),
            qk_norm=("layer", "rms", "none"),
            post_norm=("sandwich", "output", "none"),
            dtype=("float32", "bfloat16"),
        )
        for field, values in allowed.items():
            if getattr(self, field) not in values:
                raise ValueError(f"{field} = {getattr(self, field)!r}, expected one of {values}")
        if self.dim % self.heads or (self.dim // self.heads) % 4:
            raise ValueError(
                f"dim = {self.dim} over heads = {self.heads}: RoPE needs a whole head dimension "
                "that is a multiple of 4"
            )

    @property
    def head_dim(self) -> int:
        """K."""
        return self.dim // self.heads

    @property
    def ffn_dim(self) -> int:
        """F."""
        return -(-int(8 * self.dim / 3) // self.ffn_multiple) * self.ffn_multiple

    @property
    def mask_id(self) -> int:
        """The code that stands for a hidden token."""
        return self.codebook_size

    @property
    def output_size(self) -> int:
        """V, the number of columns of the head."""
        return self.codebook_size + int(self.mask_logit)


class RMSNorm(nnx.Module):
    """x / rms(x), computed in float32 and cast before the scale, as LlamaGen does."""

    def __init__(self, dim: int, eps: float = 1e-5):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(dim))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return x32.astype(x.dtype) * self.scale[...].astype(x.dtype)


def qk_norm(config: LlamaConfig) -> nnx.Module:
    """The norm of queries or keys, over the head dimension."""
    if config.qk_norm == "rms":
        return RMSNorm(config.head_dim)
    return nnx.LayerNorm(
        config.head_dim,
        epsilon=1e-5,
        use_fast_variance=False,
        dtype=config.dtype,
        rngs=nnx.Rngs(0),  # scale 1 and bias 0 draw nothing
    )


class Block(nnx.Module):
    """One layer; a model holds all its layers as one Block with a leading depth axis."""

    def __init__(self, config: LlamaConfig, key: jax.Array):
        D, H, K, F = config.dim, config.heads, config.head_dim, config.ffn_dim
        keys = jax.random.split(key, 4)
        normal = nnx.initializers.normal(0.02)
        self.config = config
        self.qkv = nnx.Param(normal(keys[0], (D, 3, H, K)))
        self.out = nnx.Param(normal(keys[1], (H, K, D)))
        self.gate_up = nnx.Param(normal(keys[2], (D, 2, F)))
        self.down = nnx.Param(normal(keys[3], (F, D)))
        if config.qk_norm != "none":
            self.query_norm, self.key_norm = qk_norm(config), qk_norm(config)
        if config.post_norm != "output":
            self.attention_norm, self.mlp_norm = RMSNorm(D), RMSNorm(D)
        if config.post_norm != "none":
            self.attention_post_norm, self.mlp_post_norm = RMSNorm(D), RMSNorm(D)

    def __call__(self, x_BTD: jax.Array, table_TK2: np.ndarray, key: jax.Array | None) -> jax.Array:
        """Attention, then MLP, each added to its input; `key` drives dropout, None is eval."""
        keys = (None, None) if key is None else jax.random.split(key)
        y_BTD = x_BTD if self.config.post_norm == "output" else self.attention_norm(x_BTD)
        y_BTD = self.attend(y_BTD, table_TK2)
        if self.config.post_norm != "none":
            y_BTD = self.attention_post_norm(y_BTD)
        x_BTD = x_BTD + dropout(y_BTD, self.config.dropout, keys[0])
        y_BTD = x_BTD if self.config.post_norm == "output" else self.mlp_norm(x_BTD)
        y_BTD = self.mlp(y_BTD)
        if self.config.post_norm != "none":
            y_BTD = self.mlp_post_norm(y_BTD)
        return x_BTD + dropout(y_BTD, self.config.dropout, keys[1])

    def attend(self, x_BTD: jax.Array, table_TK2: np.ndarray) -> jax.Array:
        """Attention of every token to every token."""
        q_BTHK, k_BTHK, v_BTHK = jnp.einsum("BTD,DCHK->CBTHK", x_BTD, self.cast(self.qkv))
        if self.config.qk_norm != "none":
            q_BTHK, k_BTHK = self.query_norm(q_BTHK), self.key_norm(k_BTHK)
        q_BTHK, k_BTHK = rope.rotate(q_BTHK, table_TK2), rope.rotate(k_BTHK, table_TK2)
        o_BTHK = jax.nn.dot_product_attention(q_BTHK, k_BTHK, v_BTHK)
        return jnp.einsum("BTHK,HKD->BTD", o_BTHK, self.cast(self.out))

    def mlp(self, x_BTD: jax.Array) -> jax.Array:
        """SwiGLU."""
        gate_BTF, up_BTF = jnp.einsum("BTD,DCF->CBTF", x_BTD, self.cast(self.gate_up))
        return (jax.nn.silu(gate_BTF) * up_BTF) @ self.cast(self.down)

    def cast(self, parameter: nnx.Param) -> jax.Array:
        """A parameter in the dtype of the computation."""
        return parameter[...].astype(self.config.dtype)


class Llama(nnx.Module):
    """Logits of hidden image tokens, given the visible ones and a class."""

    def __init__(self, config: LlamaConfig, key: jax.Array):
        keys = jax.random.split(key, 3)
        normal = nnx.initializers.normal(0.02)
        self.config = config
        codes, classes = config.codebook_size + 1, config.num_classes + 1
        if config.joint_embedding:
            self.embedding = nnx.Param(normal(keys[0], (codes + classes, config.dim)))
        else:
            self.code_embedding = nnx.Param(normal(keys[0], (codes, config.dim)))
            self.class_embedding = nnx.Param(normal(keys[1], (classes, config.dim)))
        self.blocks = jax.vmap(lambda k: Block(config, k))(jax.random.split(keys[2], config.layers))
        self.norm = RMSNorm(config.dim)
        # Zero, as in LlamaGen and MaskGIL: training starts from a uniform prediction.
        self.head = nnx.Param(jnp.zeros((config.output_size, config.dim)))

    def __call__(self, codes_Bhw: jax.Array, classes_B: jax.Array) -> jax.Array:
        """Logits in eval mode.

        Args:
          codes_Bhw: int32, 0 .. codebook_size - 1, or mask_id where hidden.
          classes_B: int32, 0 .. num_classes - 1, or num_classes for no condition.

        Returns:
          float32 [B, h * w, V].
        """
        return self.logits(self.hidden(codes_Bhw, classes_B))

    def hidden(
        self, codes_Bhw: jax.Array, classes_B: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Outputs of the last layer at the image tokens, [B, h * w, D]; `key` turns dropout on."""
        B, height, width = codes_Bhw.shape
        x_BTD = self.embed(codes_Bhw.reshape(B, height * width), classes_B)
        table_TK2 = self.rotations(height, width)
        keys = None if key is None else jax.random.split(key, self.config.layers)

        def layer(
            x_BTD: jax.Array, block_key: tuple[Block, jax.Array | None]
        ) -> tuple[jax.Array, None]:
            block, layer_key = block_key
            return block(x_BTD, table_TK2, layer_key), None

        if self.config.remat:
            layer = jax.checkpoint(layer, prevent_cse=False)
        x_BTD, _ = jax.lax.scan(layer, x_BTD, (self.blocks, keys))
        return x_BTD[:, 1:] if self.config.condition_position == "first" else x_BTD[:, :-1]

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """Final norm and head: float32 [B, L, V]."""
        head_VD = self.head[...].astype(self.config.dtype)
        return jnp.einsum(
            "BLD,VD->BLV", self.norm(x_BLD), head_VD, preferred_element_type=jnp.float32
        )

    def embed(self, codes_BL: jax.Array, classes_B: jax.Array) -> jax.Array:
        """Image tokens with the condition token before or after them, [B, T, D]."""
        if self.config.joint_embedding:
            x_BLD = self.embedding[codes_BL]
            c_B1D = self.embedding[self.config.codebook_size + 1 + classes_B][:, None]
        else:
            x_BLD = self.code_embedding[codes_BL]
            c_B1D = self.class_embedding[classes_B][:, None]
        first = self.config.condition_position == "first"
        x_BTD = jnp.concatenate([c_B1D, x_BLD] if first else [x_BLD, c_B1D], axis=1)
        return x_BTD.astype(self.config.dtype)

    def rotations(self, height: int, width: int) -> np.ndarray:
        """The RoPE table of the sequence, float32 [T, K / 2, 2]."""
        if self.config.rope == "1d":
            angles = rope.rope_1d(height * width, self.config.head_dim)
            return rope.rotation_table(angles, 1, self.config.condition_rope)
        angles = rope.rope_2d(height, width, self.config.head_dim)
        table = rope.rotation_table(angles, 1, self.config.condition_rope)
        last = self.config.condition_position == "last"
        return np.roll(table, -1, axis=0) if last else table


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero a share `rate` of x and scale the rest to keep the mean; does nothing without a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0)
