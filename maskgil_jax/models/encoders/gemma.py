"""Gemma as an encoder of text: features of captions.

Generations 1 (Gemma Team 2024, arXiv 2403.08295) and 3, the language model of it (arXiv
2503.19786), with the numbers of transformers' GemmaModel and Gemma3TextModel.

Letters: B batch, T tokens, D width, H heads of queries, G heads of keys and values, K head
dimension, F hidden units of the MLP, N layers, C width of features, which is D.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.token_models import rope
from maskgil_jax.models.token_models.attention import grouped_attention
from maskgil_jax.models.token_models.layers import through_layers, unit_rms
from maskgil_jax.models.token_models.products import product


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
    """Shape and switches of a Gemma.

    Attributes:
      generation: 1; or 3, which norms queries and keys, and what attention and MLP give.
      layers, dim, heads, kv_heads, head_dim, ffn_dim: N, D, H, G, K, F.
      vocab_size: rows of the embedding.
      query_pre_attn_scalar: scores are divided by its square root; the head dimension in most.
      rope_base: of the layers that see all tokens before.
      sliding_layers: indices of the layers that see only the last `sliding_window` tokens, the
        token itself among them, and have `local_rope_base`.
      norm_eps: added to mean squares.
      layer: which states the features are: 0 the embedding, i the output of the i-th layer,
        `layers` that of the last after the final norm; or counted from the end, -1 being the last.
        -2 is what the authors of Lumina, MaskGIL's too, take (Lumina-Next, train.py).
      dtype: of the computation.
      param_dtype: of the parameters, which are released in bfloat16.
    """

    generation: int
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    query_pre_attn_scalar: float
    rope_base: float = 10000.0
    sliding_layers: tuple[int, ...] = ()
    sliding_window: int = 512
    local_rope_base: float = 10000.0
    norm_eps: float = 1e-6
    layer: int = -2
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        object.__setattr__(self, "sliding_layers", tuple(self.sliding_layers))
        positive = ("layers", "dim", "kv_heads", "head_dim", "ffn_dim", "vocab_size")
        for field in (*positive, "sliding_window"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} = {getattr(self, field)}, expected 1 or more")
        allowed = dict(
            generation=(1, 3),
            dtype=("float32", "bfloat16"),
            param_dtype=("float32", "bfloat16"),
        )
        for field, values in allowed.items():
            if getattr(self, field) not in values:
                raise ValueError(f"{field} = {getattr(self, field)!r}, expected one of {values}")
        if self.heads < 1 or self.heads % self.kv_heads:
            raise ValueError(
                f"heads = {self.heads}, expected a multiple of kv_heads = {self.kv_heads}"
            )
        if not -self.layers - 1 <= self.layer <= self.layers:
            raise ValueError(
                f"layer = {self.layer}, expected {-self.layers - 1} to {self.layers}: there are "
                f"the embedding and {self.layers} layers"
            )

    @property
    def layers_run(self) -> int:
        """The layers that the features need."""
        return self.layer % (self.layers + 1)


class Norm(nnx.Module):
    """x / rms(x) times 1 + scale, in float32."""

    def __init__(self, dim: int, config: GemmaConfig):
        self.eps = config.norm_eps
        self.scale = nnx.Param(jnp.zeros(dim, config.param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        x32 = unit_rms(x.astype(jnp.float32), self.eps)
        return (x32 * (1.0 + self.scale[...].astype(jnp.float32))).astype(x.dtype)


class Block(nnx.Module):
    """One layer; a model holds all its layers as one Block with a leading depth axis."""

    def __init__(self, config: GemmaConfig, key: jax.Array):
        D, H, G, K, F = config.dim, config.heads, config.kv_heads, config.head_dim, config.ffn_dim
        keys = jax.random.split(key, 5)
        self.config = config
        self.query = _matrix(keys[0], (D, H, K), config)
        self.key_value = _matrix(keys[1], (D, 2, G, K), config)
        self.out = _matrix(keys[2], (H, K, D), config)
        self.gate_up = _matrix(keys[3], (D, 2, F), config)
        self.down = _matrix(keys[4], (F, D), config)
        self.attention_norm, self.mlp_norm = Norm(D, config), Norm(D, config)
        if config.generation == 3:
            self.query_norm, self.key_norm = Norm(K, config), Norm(K, config)
            self.attention_post_norm, self.mlp_post_norm = Norm(D, config), Norm(D, config)

    def __call__(self, x_BTD: jax.Array, table_TK2: jax.Array, mask_B1TT: jax.Array) -> jax.Array:
        """Attention, then MLP, each added to its input."""
        sandwich = self.config.generation == 3
        y_BTD = self.attention(self.attention_norm(x_BTD), table_TK2, mask_B1TT)
        x_BTD = x_BTD + (self.attention_post_norm(y_BTD) if sandwich else y_BTD)
        y_BTD = self.mlp(self.mlp_norm(x_BTD))
        return x_BTD + (self.mlp_post_norm(y_BTD) if sandwich else y_BTD)

    def attention(self, x_BTD: jax.Array, table_TK2: jax.Array, mask_B1TT: jax.Array) -> jax.Array:
        """Several heads of queries share one of keys and values."""
        K = self.config.head_dim
        q_BTHK = product("BTD,DHK->BTHK", x_BTD, self._cast(self.query))
        kv_BTCGK = product("BTD,DCGK->BTCGK", x_BTD, self._cast(self.key_value))
        k_BTGK, v_BTGK = kv_BTCGK[:, :, 0], kv_BTCGK[:, :, 1]
        if self.config.generation == 3:
            q_BTHK, k_BTGK = self.query_norm(q_BTHK), self.key_norm(k_BTGK)
        q_BHTK, k_BGTK, v_BGTK = (x.transpose(0, 2, 1, 3) for x in (q_BTHK, k_BTGK, v_BTGK))
        q_BHTK, k_BGTK = rope.rotate(q_BHTK, table_TK2), rope.rotate(k_BGTK, table_TK2)
        # The attention divides scores by the square root of K.
        q_BHTK = q_BHTK * (K / self.config.query_pre_attn_scalar) ** 0.5
        o_BHTK = grouped_attention(q_BHTK, k_BGTK, v_BGTK, mask_B1TT)
        return product("BTHK,HKD->BTD", o_BHTK.transpose(0, 2, 1, 3), self._cast(self.out))

    def mlp(self, x_BTD: jax.Array) -> jax.Array:
        """GeGLU, with the approximation of GELU by tanh."""
        gate_up_BTCF = product("BTD,DCF->BTCF", x_BTD, self._cast(self.gate_up), jnp.float32)
        hidden_BTF = jax.nn.gelu(gate_up_BTCF[:, :, 0], approximate=True) * gate_up_BTCF[:, :, 1]
        return product("BTF,FD->BTD", hidden_BTF.astype(x_BTD.dtype), self._cast(self.down))

    def _cast(self, parameter: nnx.Param) -> jax.Array:
        return parameter[...].astype(self.config.dtype)


class Gemma(nnx.Module):
    """Features of text."""

    def __init__(self, config: GemmaConfig, key: jax.Array):
        embedding, blocks = jax.random.split(key)
        self.config = config
        self.embedding = _matrix(embedding, (config.vocab_size, config.dim), config)
        self.blocks = jax.vmap(lambda k: Block(config, k))(jax.random.split(blocks, config.layers))
        self.norm = Norm(config.dim, config)

    def features(self, ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """Hidden states of the tokens, each of which sees itself and those before it.

        Padding, on either side, changes nothing: turns of queries and keys count as differences of
        positions only.

        Args:
          ids_BT: int32 [B, T], 0 .. vocab_size - 1.
          mask_BT: bool [B, T], false at padding.

        Returns:
          [B, T, C] in the dtype of the computation, zero at padding.
        """
        config, n = self.config, self.config.layers_run
        x_BTD = self.embedding[ids_BT].astype(config.dtype)
        x_BTD = x_BTD * jnp.asarray(config.dim**0.5, config.dtype)
        tables, masks = self._by_reach(mask_BT)
        slides_N = np.isin(np.arange(n), config.sliding_layers).astype(np.int32)

        def layer(
            turn: tuple[jax.Array, jax.Array], x: jax.Array, key: jax.Array | None
        ) -> jax.Array:
            index, slides = turn
            block = jax.tree.map(lambda leaf: leaf[index], self.blocks)
            return block(x, tables[slides], masks[slides])

        # Over indices, not blocks: cut to those that are run, all parameters would be copied.
        x_BTD = through_layers(
            (np.arange(n), slides_N), x_BTD, layer, None, layers=n, remat="none", unroll=1
        )
        if n == config.layers:
            x_BTD = self.norm(x_BTD)
        return jnp.where(mask_BT[..., None], x_BTD, 0)

    def _by_reach(self, mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Rotations [2, T, K / 2, 2] and masks [2, B, 1, T, T]: of all tokens, of the last."""
        config, T = self.config, mask_BT.shape[1]
        tables = [
            rope.rotation_table(rope.rope_1d(T, config.head_dim, base), 0, "identity")
            for base in (config.rope_base, config.local_rope_base)
        ]
        distance_TT = np.arange(T)[:, None] - np.arange(T)
        reaches = [
            (distance_TT >= 0) & (distance_TT < window) for window in (T, config.sliding_window)
        ]
        # Padding sees itself: a row without keys has no softmax.
        masks = [(mask_BT[:, None, None] & reach) | (distance_TT == 0) for reach in reaches]
        return jnp.stack(tables), jnp.stack(masks)


def _matrix(key: jax.Array, shape: tuple[int, ...], config: GemmaConfig) -> nnx.Param:
    return nnx.Param(nnx.initializers.normal(0.02)(key, shape, jnp.dtype(config.param_dtype)))
