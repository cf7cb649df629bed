"""LLaMA over image tokens: bidirectional, the token model of MaskGIL, or causal, as LlamaGen.

Letters: B batch, h w grid, L = h * w image tokens, c condition tokens, T tokens of the sequence, S
of them that are run, D width, H heads, K head dimension, F hidden units of the MLP, V classes of
the head (the sum of several, where codes have digits), N layers, C width of features.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.token_models import attention_tpu, factors, orders, rope
from maskgil_jax.models.token_models.conditions import Condition, Features
from maskgil_jax.models.token_models.layers import RMSNorm, dropout, through_layers, unit_rms
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.models.token_models.llama_layers import Attend, Block, FusedLayer, Layer
from maskgil_jax.models.token_models.products import (
    Parts,
    attention_cut,
    attention_of_parts,
    cache_dtype,
    parts_pay,
    product,
    product_of_turned,
    turning_pays,
)
from maskgil_jax.runtime import sharding


class Cache(NamedTuple):
    """Keys and values of the tokens that a causal model has seen, [B, H, T, K] of each layer."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    def with_room(self, tokens: int) -> "Cache":
        """The same with room for this many tokens, the condition's included."""
        more = tokens - self.keys[0].shape[2]
        return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))), self)


class Llama(nnx.Module):
    """Logits of image tokens: hidden ones, given the visible; or the next, given those before."""

    def __init__(self, config: LlamaConfig, key: jax.Array):
        keys = jax.random.split(key, 5)
        normal = nnx.initializers.normal(0.02)
        self.config = config
        classes = config.num_classes + 1
        if config.joint_embedding:
            self.embedding = nnx.Param(normal(keys[0], (config.table_size + classes, config.dim)))
        else:
            self.code_embedding = nnx.Param(normal(keys[0], (config.table_size, config.dim)))
        if config.feature_dim:
            C, D = config.feature_dim, config.dim
            self.feature_in = nnx.Param(normal(keys[1], (C, D)))
            self.feature_out = nnx.Param(normal(keys[3], (D, D)))
            null = jax.random.normal(keys[4], (config.condition_tokens, C)) * C**-0.5
            self.null_features = nnx.Param(null)
        elif not config.joint_embedding:
            self.class_embedding = nnx.Param(normal(keys[1], (classes, config.dim)))
        self.blocks = jax.vmap(lambda k: Block(config, k))(jax.random.split(keys[2], config.layers))
        self.norm = RMSNorm(config.dim)
        # Zero, as in LlamaGen and MaskGIL: training starts from a uniform prediction.
        self.head = nnx.Param(jnp.zeros((config.dim, config.output_size)))

    def __call__(self, codes_Bhw: jax.Array, condition: Condition) -> jax.Array:
        """Logits in eval mode.

        Args:
          codes_Bhw: int32, 0 .. codebook_size - 1, or mask_id where hidden.
          condition: int32 [B], 0 .. num_classes - 1, or num_classes for none; or Features.

        Returns:
          float32 [B, h * w, classes], in raster order. Those of a causal model are predictions from
          the condition and the tokens that come before in `order`.
        """
        logits_BLV = self.classify(self.normed(self.hidden(codes_Bhw, condition)))
        return factors.joint(logits_BLV, self.config.vocabularies)

    def hidden(
        self, codes_Bhw: jax.Array, condition: Condition, key: jax.Array | None = None
    ) -> jax.Array:
        """Outputs of the last layer that predict the image tokens, [B, h * w, D].

        `key` turns dropout on.
        """
        B, height, width = codes_Bhw.shape
        codes_BL, config = codes_Bhw.reshape(B, height * width), self.config
        if config.causal:
            order = self.order(height, width)
            codes_BL = codes_BL[:, order][:, :-1]
        parts = self.embed(codes_BL, condition)
        if key is not None:
            key, *keys = jax.random.split(key, 1 + len(parts))
            parts = tuple(
                dropout(x, config.embedding_dropout, k) for x, k in zip(parts, keys, strict=True)
            )
        boundary, T = parts[0].shape[1], sum(x.shape[1] for x in parts)
        mask = self.allowed(condition, jnp.arange(T), T)
        attend: Attend = functools.partial(attention_of_parts, mask=mask)
        if config.causal or not parts_pay():
            # A causal model's image tokens lack the last: the condition makes them whole again.
            cut = functools.partial(
                attention_cut, mask=mask, boundary=0 if config.causal else boundary
            )
            attend = lambda *qkv: (cut(*(part for (part,) in qkv)),)  # noqa: E731
            parts = (jnp.concatenate(parts, axis=1),)
        fused = (
            sharding.platform() == "tpu"
            and mask is None
            and attention_tpu.fits(
                config.head_dim, config.heads, height * width, config.condition_tokens
            )
        )
        made = FusedLayer if fused else Layer
        ends = np.cumsum([x.shape[1] for x in parts])
        tables = tuple(np.split(self.rotations(height, width)[:T], ends[:-1]))
        parts = through_layers(
            self.blocks,
            parts,
            lambda block, parts, key: made(block)(parts, tables, attend, key),
            key,
            layers=config.layers,
            remat=config.remat,
            unroll=config.unroll,
        )
        first, c = config.condition_position == "first", config.condition_tokens
        if len(parts) == 2:
            return parts[1 if first else 0]
        (x_BTD,) = parts
        if config.causal:
            return x_BTD[:, c - 1 :][:, np.argsort(order)]
        return x_BTD[:, c:] if first else x_BTD[:, :-c]

    def normed(self, x_BLD: jax.Array) -> jax.Array:
        """The final norm: what `classify` is affine in."""
        return self.norm(x_BLD)

    def classify(self, x_BnD: jax.Array, positions_Bn: jax.Array | None = None) -> jax.Array:
        """The head, the same at all positions: float32 [B, n, V]; of all digits side by side."""
        head_DV = self.head[...].astype(self.config.dtype)
        return product("BnD,DV->BnV", x_BnD, head_DV, jnp.float32)

    def start(self, condition: Condition) -> tuple[list[Layer], Cache, jax.Array]:
        """Begin to decode token by token.

        Returns:
          The layers one by one, a cache of the condition, and the output that predicts the first
          token, [B, D].
        """
        config = self.config
        x_BcD = self.embed_condition(condition).astype(config.dtype)
        B, c = x_BcD.shape[:2]
        shape = (B, config.heads, c, config.head_dim)
        empty = jnp.zeros(shape, cache_dtype(config.dtype))
        cache = Cache((empty,) * config.layers, (empty,) * config.layers)
        stacked = Layer(self.blocks)
        layers = [jax.tree.map(lambda p, i=i: p[i], stacked) for i in range(config.layers)]
        if turning_pays(config.dtype):
            layers = [layer.turned() for layer in layers]
        # The condition is turned alike on all grids.
        cache, x_BcD = self.extend(layers, cache, x_BcD, 0, condition, config.grid)
        return layers, cache, x_BcD[:, -1]

    def step(
        self,
        layers: list[Layer],
        cache: Cache,
        codes_B: jax.Array,
        index: jax.Array,
        condition: Condition,
        grid: tuple[int, int],
    ) -> tuple[Cache, jax.Array]:
        """Take in the token at `index` of the grid's order; what predicts the next, [B, D].

        The cache needs room for it.
        """
        x_B1D = self.embed_codes(codes_B[:, None]).astype(self.config.dtype)
        start = self.config.condition_tokens + index
        cache, x_B1D = self.extend(layers, cache, x_B1D, start, condition, grid)
        return cache, x_B1D[:, 0]

    def extend(
        self,
        layers: list[Layer],
        cache: Cache,
        x_BSD: jax.Array,
        start: jax.Array | int,
        condition: Condition,
        grid: tuple[int, int],
    ) -> tuple[Cache, jax.Array]:
        """Run tokens `start` .. `start` + S - 1 of a grid, given the cache of those before."""
        S, T = x_BSD.shape[1], cache.keys[0].shape[2]
        table = jnp.asarray(self.rotations(*grid))
        table_SK2 = jax.lax.dynamic_slice_in_dim(table, start, S)
        mask = self.allowed(condition, start + jnp.arange(S), T)
        keys: list[jax.Array] = []
        values: list[jax.Array] = []

        def attend(past: Cache, queries: Parts, *new: Parts) -> Parts:
            index = len(keys)
            for store, old, (x_BHSK,) in zip((keys, values), past, new, strict=True):
                x_BHSK = x_BHSK.astype(old[index].dtype)
                store.append(jax.lax.dynamic_update_slice_in_dim(old[index], x_BHSK, start, axis=2))
            q_BHSK = queries[0].astype(keys[-1].dtype)
            (o_BHSK,) = attention_of_parts((q_BHSK,), (keys[-1],), (values[-1],), mask)
            return (o_BHSK.astype(queries[0].dtype),)

        multiply = product_of_turned if turning_pays(self.config.dtype) else product
        tables = (table_SK2,)
        for layer in layers:
            (x_BSD,) = layer((x_BSD,), tables, functools.partial(attend, cache), multiply=multiply)
        return Cache(tuple(keys), tuple(values)), x_BSD

    def allowed(self, condition: Condition, queries_S: jax.Array, T: int) -> jax.Array | None:
        """Bool [B or 1, 1, S, T], true where a query may see a key; None where all may."""
        keys_T = jnp.arange(T)
        mask = None
        if self.config.causal:
            mask = (keys_T <= queries_S[:, None])[None, None]
        if isinstance(condition, Features):
            c = self.config.condition_tokens
            images_BL = jnp.ones((len(condition.mask_BT), T - c), bool)
            parts = (condition.mask_BT.astype(bool), images_BL)
            last = self.config.condition_position == "last"
            shown = jnp.concatenate(parts[::-1] if last else parts, axis=1)[:, None, None]
            # Padding sees itself, as in LlamaGen: a row without keys has no softmax.
            itself = keys_T == queries_S[:, None]
            mask = (shown if mask is None else mask & shown) | itself
        return mask

    def embed(self, codes_BL: jax.Array, condition: Condition) -> Parts:
        """Image tokens and the condition's, [B, L, D] and [B, c, D], in their order."""
        parts = self.embed_condition(condition), self.embed_codes(codes_BL)
        if self.config.condition_position == "last":
            parts = parts[::-1]
        return tuple(x.astype(self.config.dtype) for x in parts)

    def embed_codes(self, codes_BL: jax.Array) -> jax.Array:
        """Rows of the table of codes, the sum of one for each digit: [B, L, D]."""
        table = self.embedding if self.config.joint_embedding else self.code_embedding
        sizes = self.config.factors
        if not sizes:
            return table[codes_BL]
        starts = jnp.array([0, *itertools.accumulate(sizes[:-1])])
        digits_BLF = jnp.stack(factors.digits(codes_BL, sizes), axis=-1)
        x_BLD = table[starts + digits_BLF].sum(axis=2)
        if self.config.causal:
            return x_BLD
        return jnp.where((codes_BL == self.config.mask_id)[..., None], table[-1], x_BLD)

    def embed_condition(self, condition: Condition) -> jax.Array:
        """The condition's tokens, [B, c, D]."""
        if isinstance(condition, Features):
            return self.project(condition.features_BTC)
        if self.config.joint_embedding:
            return self.embedding[self.config.table_size + condition][:, None]
        return self.class_embedding[condition][:, None]

    def project(self, features_BTC: jax.Array) -> jax.Array:
        """Features to the width of the model, as LlamaGen's CaptionEmbedder: [B, T, D]."""
        dtype = self.config.dtype
        if self.config.feature_norm:
            features_BTC = unit_rms(features_BTC)
        hidden_BTD = features_BTC.astype(dtype) @ self.feature_in[...].astype(dtype)
        return jax.nn.gelu(hidden_BTD, approximate=True) @ self.feature_out[...].astype(dtype)

    def drop_condition(self, condition: Condition, drop_B: jax.Array) -> Condition:
        """The condition that says nothing where `drop_B`, with the mask that it had."""
        if isinstance(condition, Features):
            null_TC = self.null_features[...].astype(condition.features_BTC.dtype)
            features = jnp.where(drop_B[:, None, None], null_TC, condition.features_BTC)
            return Features(features, condition.mask_BT)
        return jnp.where(drop_B, self.config.num_classes, condition)

    def order(self, height: int, width: int) -> np.ndarray:
        """Raster positions in the order of a causal model's tokens, [L]."""
        return orders.ORDERS[self.config.order](height, width)

    def rotations(self, height: int, width: int) -> np.ndarray:
        """The RoPE table of the sequence, float32 [c + L, K / 2, 2]."""
        config = self.config
        if config.rope == "1d":
            angles = rope.rope_1d(height * width, config.head_dim)
            return rope.rotation_table(angles, config.condition_tokens, config.condition_rope)
        angles = rope.rope_2d(height, width, config.head_dim)[self.order(height, width)]
        table = rope.rotation_table(angles, config.condition_tokens, config.condition_rope)
        last = config.condition_position == "last"
        return np.roll(table, -config.condition_tokens, axis=0) if last else table
