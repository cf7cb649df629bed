"""The layers of a LLaMA: as they are trained and stored, and as they run.

Letters: B batch, S tokens, D width, H heads, G heads of keys and values, K head dimension, F hidden
units of the MLP.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.shared_parameters import spread
from maskgil_jax.models.token_models import rope
from maskgil_jax.models.token_models.layers import RMSNorm, swiglu, two_dropouts, unit_rms
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.models.token_models.products import product, read_often

# Queries [B, H, S, K], keys and values [B, G, S, K], to what the queries gather of the values.
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Table = np.ndarray | jax.Array  # of rotations, [S, K / 2, 2], or [B, 1, S, K / 2, 2]


class HeadNorm(nnx.Module):
    """LayerNorm of each head, then scales and biases that consecutive heads share, as Chameleon's.

    Statistics are of float32; the rest is in the dtype of the input.
    """

    def __init__(self, rows: int, config: LlamaConfig):
        self.scale = nnx.Param(jnp.ones((rows, config.head_dim), config.param_dtype))
        self.bias = nnx.Param(jnp.zeros((rows, config.head_dim), config.param_dtype))

    def __call__(self, x_BHSK: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        centred = x_BHSK.astype(jnp.float32)
        centred = centred - centred.mean(axis=-1, keepdims=True)
        normed_BHSK = unit_rms(centred).astype(x_BHSK.dtype)
        repeats = x_BHSK.shape[1] // self.scale.shape[0]
        scale_BHSK, bias_BHSK = (
            spread(jnp.repeat(parameter[...], repeats, axis=0)[:, None], x_BHSK)
            for parameter in (self.scale, self.bias)
        )
        return normed_BHSK * scale_BHSK + bias_BHSK


def qk_norms(config: LlamaConfig) -> tuple[nnx.Module, nnx.Module]:
    """The norms of queries and of keys, over the head dimension."""
    if config.qk_norm_rows:
        query_rows, key_rows = config.qk_norm_rows
        return HeadNorm(query_rows, config), HeadNorm(key_rows, config)
    return _qk_norm(config), _qk_norm(config)


def _qk_norm(config: LlamaConfig) -> nnx.Module:
    if config.qk_norm == "rms":
        return RMSNorm(config.head_dim)
    return nnx.LayerNorm(
        config.head_dim,
        epsilon=1e-5,
        use_fast_variance=False,
        dtype=config.dtype,
        rngs=nnx.Rngs(0),  # scale 1 and bias 0 draw nothing
    )


def identity(x: jax.Array) -> jax.Array:
    """In the place of a norm that a network has not."""
    return x


class Block(nnx.Module):
    """One layer as it is stored; a model holds all as one Block with a leading depth axis."""

    def __init__(self, config: LlamaConfig, key: jax.Array):
        D, H, K, F = config.dim, config.heads, config.head_dim, config.ffn_dim
        keys = jax.random.split(key, 4)
        normal = nnx.initializers.normal(0.02, config.param_dtype)
        self.config = config
        if config.key_heads == H:
            self.qkv = nnx.Param(normal(keys[0], (D, 3, H, K)))
        else:
            of_query, of_keys = jax.random.split(keys[0])
            self.query = nnx.Param(normal(of_query, (D, H, K)))
            self.key_value = nnx.Param(normal(of_keys, (D, 2, config.key_heads, K)))
        self.out = nnx.Param(normal(keys[1], (H, K, D)))
        self.gate_up = nnx.Param(normal(keys[2], (D, 2, F)))
        self.down = nnx.Param(normal(keys[3], (F, D)))
        if config.qk_norm != "none":
            self.query_norm, self.key_norm = qk_norms(config)
        norm = functools.partial(RMSNorm, D, config.norm_eps, config.param_dtype)
        if config.post_norm != "output":
            self.attention_norm, self.mlp_norm = norm(), norm()
        if config.post_norm != "none":
            self.attention_post_norm, self.mlp_post_norm = norm(), norm()


class Layer(nnx.Module):
    """A Block as it runs; made once for all that its weights are used for.

    Its matrices are in the dtype of the computation, those of gate and up apart, and the channels
    of queries and keys in the order of `rope.rotate`. Norms that the network lacks do nothing.
    """

    def __init__(self, block: Block):
        self.config = block.config

        def cast(parameter: nnx.Param) -> jax.Array:
            return parameter[...].astype(block.config.dtype)

        self.grouped = block.config.key_heads != block.config.heads
        if self.grouped:
            self.query = nnx.Param(rope.halved(cast(block.query)))
            k, v = jnp.split(cast(block.key_value), 2, axis=-3)
            self.key_value = nnx.Param(jnp.concatenate([rope.halved(k), v], axis=-3))
        else:
            qk, v = jnp.split(cast(block.qkv), [2], axis=-3)
            self.qkv = nnx.Param(jnp.concatenate([rope.halved(qk), v], axis=-3))
        self.out, self.down = nnx.Param(cast(block.out)), nnx.Param(cast(block.down))
        gate_up = jnp.split(cast(block.gate_up), 2, axis=-2)
        self.gate, self.up = (nnx.Param(x.squeeze(-2)) for x in gate_up)
        if block.config.qk_norm == "none":
            self.query_norm = self.key_norm = identity
        else:
            norms = (block.query_norm, block.key_norm)
            self.query_norm, self.key_norm = jax.tree.map(rope.halved, norms)
        self.attention_norm = getattr(block, "attention_norm", identity)
        self.attention_post_norm = getattr(block, "attention_post_norm", identity)
        self.mlp_norm = getattr(block, "mlp_norm", identity)
        self.mlp_post_norm = getattr(block, "mlp_post_norm", identity)

    def __call__(
        self,
        x_BSD: jax.Array,
        attention: Callable[[jax.Array], jax.Array],
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Norm, attention, add; norm, MLP, add.

        Args:
          x_BSD: a sequence, or a part of one.
          attention: of the normed tokens: `self.attention` with the rest of its arguments.
          key: drives dropout; None is eval.
        """
        drop_attention, drop_mlp = two_dropouts(x_BSD.shape, self.config.dropout, key)
        y_BSD = attention(self.attention_norm(x_BSD))
        x_BSD = x_BSD + drop_attention(self.attention_post_norm(y_BSD))
        y_BSD = self.mlp(self.mlp_norm(x_BSD))
        return x_BSD + drop_mlp(self.mlp_post_norm(y_BSD))

    def attention(self, x_BSD: jax.Array, table_SK2: Table, attend: Attend) -> jax.Array:
        """Projections, norms and rotations around `attend`."""
        return self.output(attend(*self.heads(x_BSD, table_SK2)))

    def heads(self, x_BSD: jax.Array, table_SK2: Table) -> list[jax.Array]:
        """Queries, keys and values: [B, H, S, K], and [B, G, S, K] twice."""
        # Split, not indexed: its derivative is one concatenation.
        if self.grouped:
            q_BSHK = product("BSD,DHK->BSHK", x_BSD, self.query[...])
            kv_BSCGK = product("BSD,DCGK->BSCGK", x_BSD, self.key_value[...])
            qkv = [q_BSHK[:, :, None], *jnp.split(kv_BSCGK, 2, axis=2)]
        else:
            qkv = jnp.split(product("BSD,DCHK->BSCHK", x_BSD, self.qkv[...]), 3, axis=2)
        q_BHSK, k_BGSK, v_BGSK = (x[:, :, 0].transpose(0, 2, 1, 3) for x in qkv)
        q_BHSK = rope.rotate(self.query_norm(q_BHSK), table_SK2)
        k_BGSK = rope.rotate(self.key_norm(k_BGSK), table_SK2)
        return [q_BHSK, k_BGSK, v_BGSK]

    def output(self, o_BHSK: jax.Array) -> jax.Array:
        """Of all heads, mixed: [B, S, D]."""
        return product("BSHK,HKD->BSD", o_BHSK.transpose(0, 2, 1, 3), self.out[...])

    def mlp(self, x_BSD: jax.Array) -> jax.Array:
        """SwiGLU."""
        x_BSD = read_often(x_BSD)
        gate_BSF = product("BSD,DF->BSF", x_BSD, self.gate[...])
        up_BSF = product("BSD,DF->BSF", x_BSD, self.up[...])
        return product("BSF,FD->BSD", swiglu(gate_BSF, up_BSF), self.down[...])
