"""The layers of a LLaMA: as they are trained and stored, and as they run.

Letters: B batch, S tokens, s tokens of a part of the sequence, L image tokens, c condition tokens,
D width, H heads, K head dimension, N = H * K in a FusedLayer, F hidden units of the MLP.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.token_models import attention_tpu, rope
from maskgil_jax.models.token_models.layers import RMSNorm, swiglu, two_dropouts
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.models.token_models.products import Parts, product, read_often, turned


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


def scale_and_bias(norm: Any) -> jax.Array:
    """Of a `qk_norm`, [2, K]; RMSNorm has no bias."""
    scale_K = norm.scale[...]
    return jnp.stack([scale_K, norm.bias[...] if hasattr(norm, "bias") else 0 * scale_K])


# Of queries, keys and values, [B, H, s, K] each, to [B, H, s, K] each.
Attend = Callable[[Parts, Parts, Parts], Parts]
Tables = tuple[np.ndarray | jax.Array, ...]  # of rotations, [s, K / 2, 2] each
# (equation, x, a matrix) -> their product, as products.product.
Multiply = Callable[[str, jax.Array, jax.Array], jax.Array]

# What each matrix of a Layer is multiplied by, and what it gives.
EQUATIONS = {
    "qkv": "BSD,DCHK->BSCHK",
    "out": "BSHK,HKD->BSD",
    "gate": "BSD,DF->BSF",
    "up": "BSD,DF->BSF",
    "down": "BSF,FD->BSD",
}


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


class Layer(nnx.Module):
    """A Block as it runs; made once for all that its weights are used for.

    Its matrices are in the dtype of the computation, those of gate and up apart, and the channels
    of queries and keys in the order of `rope.rotate`.
    """

    def __init__(self, block: Block):
        self.config = block.config

        def cast(parameter: nnx.Param) -> jax.Array:
            return parameter[...].astype(block.config.dtype)

        of_qk, of_v = jnp.split(cast(block.qkv), [2], axis=-3)
        self.qkv = nnx.Param(jnp.concatenate([rope.halved(of_qk), of_v], axis=-3))
        self.out, self.down = nnx.Param(cast(block.out)), nnx.Param(cast(block.down))
        gate_up = jnp.split(cast(block.gate_up), 2, axis=-2)
        self.gate, self.up = (nnx.Param(x.squeeze(-2)) for x in gate_up)
        if block.config.qk_norm != "none":
            norms = (block.query_norm, block.key_norm)
            self.query_norm, self.key_norm = jax.tree.map(rope.halved, norms)
        if block.config.post_norm != "output":
            self.attention_norm, self.mlp_norm = block.attention_norm, block.mlp_norm
        if block.config.post_norm != "none":
            self.attention_post_norm = block.attention_post_norm
            self.mlp_post_norm = block.mlp_post_norm

    def __call__(
        self,
        x: Parts,
        tables: Tables,
        attend: Attend,
        key: jax.Array | None = None,
        multiply: Multiply = product,
    ) -> Parts:
        """Attention, then MLP, each added to its input; `key` drives dropout, None is eval.

        The sequence comes in parts, [B, s, D] each (see `attention_of_parts`): joined, a token more
        than a power of two would make every array of it larger by a tile.
        """
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(len(x))]
        drops = [
            two_dropouts(part.shape, self.config.dropout, key)
            for part, key in zip(x, keys, strict=True)
        ]
        before = self.config.post_norm != "output"
        after = self.config.post_norm != "none"
        y = [self.attention_norm(part) if before else part for part in x]
        y = self.attention(y, tables, attend, multiply)
        y = [self.attention_post_norm(part) if after else part for part in y]
        x = tuple(part + drop(more) for part, (drop, _), more in zip(x, drops, y, strict=True))
        y = [read_often(self.mlp_norm(part)) if before else part for part in x]
        y = [self.mlp(part, multiply) for part in y]
        y = [self.mlp_post_norm(part) if after else part for part in y]
        return tuple(part + drop(more) for part, (_, drop), more in zip(x, drops, y, strict=True))

    def attention(
        self, x: list[jax.Array], tables: Tables, attend: Attend, multiply: Multiply
    ) -> list[jax.Array]:
        """Projections, norms and rotations around `attend`."""
        qkv = [multiply(EQUATIONS["qkv"], part, self.qkv[...]) for part in x]
        # Split, not indexed: its derivative is one concatenation.
        heads_first = (
            [x[:, :, 0].transpose(0, 2, 1, 3) for x in jnp.split(part, 3, axis=2)] for part in qkv
        )
        queries, keys, values = zip(*heads_first, strict=True)
        if self.config.qk_norm != "none":
            queries = tuple(self.query_norm(part) for part in queries)
            keys = tuple(self.key_norm(part) for part in keys)
        queries, keys = (
            tuple(rope.rotate(*part) for part in zip(parts, tables, strict=True))
            for parts in (queries, keys)
        )
        outputs = [o.transpose(0, 2, 1, 3) for o in attend(queries, keys, values)]
        return [multiply(EQUATIONS["out"], o, self.out[...]) for o in outputs]

    def mlp(self, x_BSD: jax.Array, multiply: Multiply) -> jax.Array:
        """SwiGLU."""
        gate_BSF = multiply(EQUATIONS["gate"], x_BSD, self.gate[...])
        up_BSF = multiply(EQUATIONS["up"], x_BSD, self.up[...])
        return multiply(EQUATIONS["down"], swiglu(gate_BSF, up_BSF), self.down[...])

    def turned(self) -> "Layer":
        """The same with its matrices as product_of_turned takes them."""
        layer = jax.tree.map(lambda leaf: leaf, self)
        for name, equation in EQUATIONS.items():
            setattr(layer, name, nnx.Param(turned(equation, getattr(self, name)[...])))
        return layer


class FusedLayer(Layer):
    """A Layer on TPUs: norms, rotations and attention of its heads are one kernel."""

    def __init__(self, block: Block):
        super().__init__(block)
        D, _, H, K = block.qkv.shape
        self.qkv = nnx.Param(block.qkv[...].astype(self.config.dtype).reshape(D, 3, H * K))
        self.norms = nnx.Param(jnp.ones((4, K)))
        if self.config.qk_norm != "none":
            norms = (block.query_norm, block.key_norm)  # their channels in the published order
            self.norms = nnx.Param(jnp.concatenate([scale_and_bias(norm) for norm in norms]))

    def attention(
        self, x: list[jax.Array], tables: Tables, attend: Attend, multiply: Multiply
    ) -> list[jax.Array]:
        """The same; `attend` is not asked."""
        order = slice(None, None, -1 if self.config.condition_position == "first" else 1)
        image_BLD, few_BcD = x[order]
        shape = attention_tpu.Shape(
            self.config.head_dim, self.config.qk_norm, self.config.condition_tokens
        )
        image_BNL, few_BcN = attention_tpu.attention(
            multiply("BLD,DCN->BCNL", image_BLD, self.qkv[...]),
            multiply("BcD,DCN->BCcN", few_BcD, self.qkv[...]),
            self.norms[...],
            tables[order],
            shape,
        )
        out_ND = self.out[...].reshape(-1, self.config.dim)
        return [
            multiply("BNL,ND->BLD", image_BNL, out_ND),
            multiply("BcN,ND->BcD", few_BcN, out_ND),
        ][order]
