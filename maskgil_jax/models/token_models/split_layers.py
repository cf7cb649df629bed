"""Layers of a LLaMA as TPUs run them: over a sequence in two parts, and with kernels.

Letters: B batch, L image tokens, c tokens of the condition, s tokens of one of these parts, T of
both, D width, H heads, K head dimension, N = H * K.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.token_models import attention_tpu, platforms, products, residual_tpu
from maskgil_jax.models.token_models.attention import Parts, attention_of_parts
from maskgil_jax.models.token_models.attention_heads import Shape
from maskgil_jax.models.token_models.layers import swiglu, two_dropouts
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.models.token_models.llama_layers import Block, Layer, Table
from maskgil_jax.runtime import sharding


class SplitLayer(Layer):
    """A Layer over image tokens and the condition's: only attention sees both."""

    def over_parts(
        self,
        parts: Parts,
        tables: Sequence[Table],
        mask: jax.Array | None,
        key: jax.Array | None = None,
    ) -> Parts:
        """The layer over a whole sequence.

        Args:
          parts: [B, s, D] each, in the order of the sequence.
          tables: of the rotations of each part.
          mask: of `joint_attention`: as in `attention_of_parts`.
          key: drives dropout; None is eval.
        """
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(len(parts))]
        additions = [self.additions(x, k) for x, k in zip(parts, keys, strict=True)]
        attended = self.joint_attention([self.attention_norm(x) for x in parts], tables, mask)
        sums = [add(x, y) for x, y, (add, _) in zip(parts, attended, additions, strict=True)]
        outputs = self.joint_mlp(tuple(normed for _, normed in sums))
        return tuple(
            add(x, y) for (x, _), y, (_, add) in zip(sums, outputs, additions, strict=True)
        )

    def __call__(
        self,
        x_BSD: jax.Array,
        attention: Callable[[jax.Array], jax.Array],
        key: jax.Array | None = None,
    ) -> jax.Array:
        """As that of a Layer."""
        add_attention, add_mlp = self.additions(x_BSD, key)
        x_BSD, normed_BSD = add_attention(x_BSD, attention(self.attention_norm(x_BSD)))
        return add_mlp(x_BSD, self.mlp(normed_BSD))

    def additions(
        self, x_BsD: jax.Array, key: jax.Array | None
    ) -> tuple[Callable[..., tuple[jax.Array, jax.Array]], Callable[..., jax.Array]]:
        """What adds attention's output to x_BsD, and norms the sum; and what adds the MLP's."""
        config = self.config
        if (
            platforms.current().fused_additions
            and config.post_norm == "sandwich"
            and residual_tpu.fits(config.dim, x_BsD.shape[1])
        ):
            return self._fused_additions(key)
        drop_attention, drop_mlp = two_dropouts(x_BsD.shape, config.dropout, key)

        def add_attention(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = x + drop_attention(self.attention_post_norm(y))
            return x, self.mlp_norm(x)

        return add_attention, lambda x, y: x + drop_mlp(self.mlp_post_norm(y))

    def _fused_additions(
        self, key: jax.Array | None
    ) -> tuple[Callable[..., tuple[jax.Array, jax.Array]], Callable[..., jax.Array]]:
        keys = (None, None) if key is None else jax.random.split(key)
        shape = residual_tpu.Shape(
            rate=0.0 if key is None else self.config.dropout,
            eps=self.config.norm_eps,
            interpreted=sharding.platform() != "tpu",
        )

        def add(norms: tuple[Any, ...], key: jax.Array | None, x: jax.Array, y: jax.Array) -> Any:
            scales_nD = jnp.stack([norm.scale[...].astype(jnp.float32) for norm in norms])
            return residual_tpu.added(x, y, scales_nD, residual_tpu.seed_of(key), shape)

        add_attention = functools.partial(add, (self.attention_post_norm, self.mlp_norm), keys[0])
        add_mlp = functools.partial(add, (self.mlp_post_norm,), keys[1])
        return add_attention, lambda x, y: add_mlp(x, y)[0]

    def joint_mlp(self, parts: Parts) -> Parts:
        """`mlp` of each part, whose matrices have one gradient."""
        parts = tuple(map(products.read_often, parts))
        gates, ups = (
            products.product_of_parts(("BSD,DF->BSF",) * len(parts), parts, matrix[...])
            for matrix in (self.gate, self.up)
        )
        hidden = tuple(map(swiglu, gates, ups))
        return products.product_of_parts(("BSF,FD->BSD",) * len(parts), hidden, self.down[...])

    def joint_attention(
        self, parts: Sequence[jax.Array], tables: Sequence[Table], mask: jax.Array | None
    ) -> list[jax.Array]:
        """What attention gives each part of normed tokens: `attention` of all of them."""
        heads = [self.heads(x, table) for x, table in zip(parts, tables, strict=True)]
        queries, keys, values = zip(*heads, strict=True)
        return [self.output(o) for o in attention_of_parts(queries, keys, values, mask)]


class FusedLayer(SplitLayer):
    """A SplitLayer whose norms, rotations and attention of heads are one kernel."""

    def __init__(self, block: Block):
        super().__init__(block)
        D, _, H, K = block.qkv.shape
        self.qkv = nnx.Param(block.qkv[...].astype(self.config.dtype).reshape(D, 3, H * K))
        self.norms = nnx.Param(jnp.ones((4, K)))
        if self.config.qk_norm != "none":
            norms = (block.query_norm, block.key_norm)  # their channels in the published order
            self.norms = nnx.Param(jnp.concatenate([scale_and_bias(norm) for norm in norms]))
        self.kernel = Shape(self.config.head_dim, self.config.qk_norm)

    def joint_attention(
        self, parts: Sequence[jax.Array], tables: Sequence[Table], mask: jax.Array | None
    ) -> list[jax.Array]:
        """As that of a SplitLayer; or of a whole sequence as one part.

        `mask` is then bool [B, T], false for tokens that no other sees, which get nothing.
        """
        if len(parts) == 1:
            return [self._attention_of_all(parts[0], tables[0], mask)]
        order = slice(None, None, -1 if self.config.condition_position == "first" else 1)
        image_BLD, few_BcD = parts[order]
        image_BNL, few_BcN = attention_tpu.attention(
            *products.product_of_parts(
                ("BLD,DCN->BCNL", "BcD,DCN->BCcN"), (image_BLD, few_BcD), self.qkv[...]
            ),
            jnp.ones((len(image_BLD), image_BLD.shape[1] + few_BcD.shape[1]), bool),
            self.norms[...],
            np.concatenate(tables[order]),
            self.kernel,
        )
        out_ND = self.out[...].reshape(-1, self.config.dim)
        outputs = products.product_of_parts(
            ("BNL,ND->BLD", "BcN,ND->BcD"), (image_BNL, few_BcN), out_ND
        )
        return list(outputs[order])

    def _attention_of_all(
        self, x_BTD: jax.Array, table_TK2: Table, real_BT: jax.Array | None
    ) -> jax.Array:
        if real_BT is None:
            real_BT = jnp.ones(x_BTD.shape[:2], bool)
        qkv_BCNT = products.product("BTD,DCN->BCNT", x_BTD, self.qkv[...])
        o_BNT, _ = attention_tpu.attention(
            qkv_BCNT, None, real_BT, self.norms[...], table_TK2, self.kernel
        )
        return products.product("BNT,ND->BTD", o_BNT, self.out[...].reshape(-1, self.config.dim))


def scale_and_bias(norm: Any) -> jax.Array:
    """Of a `qk_norm`, [2, K]; RMSNorm has no bias."""
    scale_K = norm.scale[...]
    return jnp.stack([scale_K, norm.bias[...] if hasattr(norm, "bias") else 0 * scale_K])


def split_layer_for(
    config: LlamaConfig, image_tokens: int, mask: jax.Array | None
) -> type[SplitLayer]:
    """The layer to run over parts on this platform: the kernel's where there is one that fits."""
    fused = (
        platforms.current().fused_attention == "pallas"
        and mask is None
        and attention_tpu.fits_parts(
            config.head_dim, config.heads, image_tokens, config.condition_tokens
        )
    )
    return FusedLayer if fused else SplitLayer


def fits_tiles(config: LlamaConfig, tokens: int, mask: jax.Array | None) -> bool:
    """Whether the kernel that does attention in tiles is best for a sequence of so many tokens.

    It is where there is a mask of padded keys, and for more tokens than the kernel of parts takes.
    """
    if platforms.current().fused_attention != "pallas" or config.causal:
        return False
    long = mask is not None or tokens - config.condition_tokens > attention_tpu.MOST
    return long and attention_tpu.fits(config.head_dim, config.heads, tokens)
