"""LLaMA over image tokens: bidirectional, the token model of MaskGIL, causal, as LlamaGen, or both.

With a vocabulary of text and image tokens it is Chameleon, which Lumina-mGPT is, or where all
tokens see each other LLaDA, which Lumina-DiMOO is.

Letters: B batch, h w grid, L = h * w image tokens, c condition tokens, T tokens of the sequence, S
of them that are run, D width, H heads, G heads of keys and values, K head dimension, F hidden units
of the MLP, V classes of the head (the sum of several, where codes have digits), N layers, C width
of features.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.token_models import (
    causal_prefix,
    dimoo_sequence,
    factors,
    orders,
    platforms,
    rope,
)
from maskgil_jax.models.token_models.attention import (
    Parts,
    attention_heads_first,
    grouped_attention,
)
from maskgil_jax.models.token_models.conditions import Condition, Features, Text
from maskgil_jax.models.token_models.layers import RMSNorm, dropout, through_layers, unit_rms
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.models.token_models.llama_layers import Block, Layer, Table
from maskgil_jax.models.token_models.products import product
from maskgil_jax.models.token_models.split_layers import (
    FusedLayer,
    fits_tiles,
    split_layer_for,
)


class Cache(NamedTuple):
    """Keys and values of the tokens that a causal model has seen, [B, G, T, K] of each layer."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    def with_room(self, tokens: int) -> "Cache":
        """The same with room for this many tokens, the condition's included."""
        more = tokens - self.keys[0].shape[2]
        return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))), self)


class Llama(nnx.Module):
    """Logits of image tokens: masked ones, given the visible; or the next, given those before."""

    of_head: tuple[str, ...] = ("norm", "head")  # parameters that `normed` and `classify` read

    def __init__(self, config: LlamaConfig, key: jax.Array):
        keys = jax.random.split(key, 5)
        normal = nnx.initializers.normal(0.02, config.param_dtype)
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
        elif not config.joint_embedding and not config.vocabulary:
            self.class_embedding = nnx.Param(normal(keys[1], (classes, config.dim)))
        self.blocks = jax.vmap(lambda k: Block(config, k))(jax.random.split(keys[2], config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps, config.param_dtype)
        # Zero, as in LlamaGen and MaskGIL: training starts from a uniform prediction.
        self.head = nnx.Param(jnp.zeros((config.dim, config.output_size), config.param_dtype))

    def __call__(self, codes_Bhw: jax.Array, condition: Condition) -> jax.Array:
        """Logits in eval mode.

        Args:
          codes_Bhw: int32, 0 .. codebook_size - 1, or mask_id where masked.
          condition: int32 [B], 0 .. num_classes - 1, or num_classes for none (0, in a model without
            conditions); or Features, or Text.

        Returns:
          float32 [B, h * w, classes], in raster order. Those of a causal model are predictions from
          the condition and the tokens that come before in `order`.
        """
        logits_BLV = self.classify(self.normed(self.backbone(codes_Bhw, condition)))
        return factors.joint(logits_BLV, self.config.vocabularies)

    def backbone(
        self,
        codes_Bhw: jax.Array,
        condition: Condition,
        key: jax.Array | None = None,
        prefix_B: jax.Array | None = None,
    ) -> jax.Array:
        """Outputs of the last layer that predict the image tokens, [B, h * w, D].

        Args:
          codes_Bhw: as in `__call__`.
          condition: as in `__call__`.
          key: turns dropout on.
          prefix_B: int32, how many tokens of each image, the first in `order`, are a causal prefix
            (causal_prefix.py); None: of none.
        """
        config, (B, height, width) = self.config, codes_Bhw.shape
        if isinstance(condition, Text) and not config.causal:
            c, answer = self.length_of(condition), self.with_answer(condition, codes_Bhw)
            x_BSD = self.sequence(answer, key)[:, c : -len(dimoo_sequence.CLOSING)]
            return self.in_raster(x_BSD, height, width)
        codes_BL = self.in_order(codes_Bhw.reshape(B, height * width), height, width)
        length = codes_BL.shape[1]
        if config.causal:
            codes_BL = codes_BL[:, :-1]
        parts = self.embed(codes_BL, condition)
        if key is not None:
            key, *keys = jax.random.split(key, 1 + len(parts))
            rate = config.embedding_dropout
            parts = tuple(dropout(x, rate, k) for x, k in zip(parts, keys, strict=True))
        table_TK2 = self.table(condition, (height, width), 0, sum(x.shape[1] for x in parts))
        outputs = self.over_parts(parts, table_TK2, condition, prefix_B, key)
        x_BcD, x_BSD = outputs if config.condition_position == "first" else outputs[::-1]
        before = x_BcD[:, -1:], x_BSD[:, : length - 1]
        before_BSD = jnp.concatenate(before, axis=1)
        if config.causal:
            x_BSD = before_BSD
        elif prefix_B is not None:
            x_BSD = causal_prefix.predicting(prefix_B, before_BSD, x_BSD)
        return self.in_raster(x_BSD, height, width)

    def with_answer(self, text: Text, codes_Bhw: jax.Array) -> Text:
        """A prompt and the image after it, to the end of the answer, of a masked model."""
        B, height, width = codes_Bhw.shape
        signs = dimoo_sequence
        masked_Bhw = codes_Bhw == self.config.mask_id
        codes_Bhw = jnp.where(masked_Bhw, signs.MASK - signs.FIRST_CODE, codes_Bhw)
        codes_BS = self.in_order(codes_Bhw.reshape(B, height * width), height, width)
        closing_BS = jnp.broadcast_to(jnp.array(signs.CLOSING), (B, len(signs.CLOSING)))
        image_BS = jnp.concatenate([signs.FIRST_CODE + codes_BS, closing_BS], axis=1)
        return Text(
            jnp.concatenate([text.ids_BT, image_BS], axis=1),
            jnp.concatenate([text.mask_BT, jnp.ones(image_BS.shape, bool)], axis=1),
        )

    def token_logits(self, ids_BS: jax.Array) -> jax.Array:
        """Logits of the whole vocabulary at each token, in eval mode: float32 [B, S, V].

        Of a model with a vocabulary; ids_BS, int32 [B, S], begin at position 0.
        """
        text = Text(ids_BS, jnp.ones(ids_BS.shape, bool))
        return self.classify_ids(self.normed(self.sequence(text)))

    def sequence(self, text: Text, key: jax.Array | None = None) -> jax.Array:
        """Outputs of the last layer over a sequence of ids alone: [B, T, D].

        Of a model with a vocabulary; `key` turns dropout on.
        """
        T = self.length_of(text)
        x_BTD = self.embed_condition(text).astype(self.config.dtype)
        if key is not None:
            key, of_embedding = jax.random.split(key)
            x_BTD = dropout(x_BTD, self.config.embedding_dropout, of_embedding)
        mask, table = self.allowed(text, jnp.arange(T), T), self.table(text, (0, 0), 0, T)
        return self.in_one((x_BTD,), table, mask, key)

    def over_parts(
        self,
        parts: Parts,
        table_TK2: Table,
        condition: Condition,
        prefix_B: jax.Array | None,
        key: jax.Array | None,
    ) -> Parts:
        """All layers over two parts of a sequence, as the platform does it best: [B, s, D] each."""
        config, T = self.config, sum(x.shape[1] for x in parts)
        mask = self.allowed(condition, jnp.arange(T), T, prefix_B)
        if prefix_B is None and fits_tiles(config, T, mask):
            x_BTD = self.in_tiles(parts, table_TK2, self.real(condition, T), key)
        # A causal model has no last image token as input: with the condition, a power of two.
        elif platforms.current().splits_sequence and not config.causal:
            return self.in_parts(parts, table_TK2, mask, key)
        else:
            x_BTD = self.in_one(parts, table_TK2, mask, key)
        return tuple(jnp.split(x_BTD, [parts[0].shape[1]], axis=1))

    def in_tiles(
        self, parts: Parts, table_TK2: Table, real_BT: jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        """As `in_one`, with the kernel that does attention in tiles: [B, T, D]."""

        def apply(block: Block, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
            return FusedLayer(block).over_parts((x_BTD,), (table_TK2,), real_BT, key)[0]

        return self.through(self.blocks, jnp.concatenate(parts, axis=1), apply, key)

    def in_one(
        self, parts: Parts, table_TK2: Table, mask: jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        """All layers over the tokens joined to one array: [B, T, D]."""
        boundary = parts[0].shape[1] if parts[1:] and not self.config.causal else 0
        attend = functools.partial(attention_heads_first, mask=mask, boundary=boundary)

        def apply(block: Block, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
            layer = Layer(block)
            attention = functools.partial(layer.attention, table_SK2=table_TK2, attend=attend)
            return layer(x_BTD, attention, None if key is None else jax.random.fold_in(key, 0))

        return self.through(self.blocks, jnp.concatenate(parts, axis=1), apply, key)

    def in_parts(
        self, parts: Parts, table_TK2: Table, mask: jax.Array | None, key: jax.Array | None
    ) -> Parts:
        """All layers over image tokens and the condition's apart: [B, s, D] of each part."""
        tables = np.split(np.asarray(table_TK2), [parts[0].shape[1]])
        image = 1 if self.config.condition_position == "first" else 0
        layer_class = split_layer_for(self.config, parts[image].shape[1], mask)

        def apply(block: Block, parts: Parts, key: jax.Array | None) -> Parts:
            return layer_class(block).over_parts(parts, tables, mask, key)

        return self.through(self.blocks, parts, apply, key)

    def through(self, blocks: Any, x: Any, apply: Callable[..., Any], key: jax.Array | None) -> Any:
        """As `through_layers`; `blocks` are this model's, and what else there is of each layer."""
        config = self.config
        return through_layers(
            blocks,
            x,
            apply,
            key,
            layers=config.layers,
            remat=config.remat,
            unroll=config.unroll,
        )

    def normed(self, x_BLD: jax.Array) -> jax.Array:
        """The final norm: what `classify` is affine in."""
        return self.norm(x_BLD)

    def classify(self, x_BnD: jax.Array, positions_Bn: jax.Array | None = None) -> jax.Array:
        """The head, the same at all positions: float32 [B, n, V]; of all digits side by side.

        Of a vocabulary only image codes are classified.
        """
        head_DV = self.head[...].astype(self.config.dtype)
        if self.config.vocabulary:
            first = self.config.sequence.FIRST_CODE
            head_DV = head_DV[:, first : first + self.config.codebook_size]
        return product("BnD,DV->BnV", x_BnD, head_DV, jnp.float32)

    def classify_ids(self, x_BnD: jax.Array) -> jax.Array:
        """The head with all ids of the vocabulary: float32 [B, n, V]."""
        head_DV = self.head[...].astype(self.config.dtype)
        return product("BnD,DV->BnV", x_BnD, head_DV, jnp.float32)

    def as_causal(self) -> "Llama":
        """The same weights as a causal model: all of an image is its causal prefix."""
        model = jax.tree.map(lambda leaf: leaf, self)
        model.config = dataclasses.replace(self.config, causal=True)
        return model

    def start(self, condition: Condition) -> tuple[list[Layer], Cache, jax.Array]:
        """Begin to decode token by token.

        Returns:
          The layers one by one, a cache of the condition, and the output that predicts the first
          token, [B, D].
        """
        config = self.config
        x_BcD = self.embed_condition(condition).astype(config.dtype)
        B, c = x_BcD.shape[:2]
        shape = (B, config.key_heads, c, config.head_dim)
        empty = jnp.zeros(shape, platforms.current().cache_dtype or config.dtype)
        cache = Cache((empty,) * config.layers, (empty,) * config.layers)
        stacked = Layer(self.blocks)
        layers = [jax.tree.map(lambda p, i=i: p[i], stacked) for i in range(config.layers)]
        # The condition is rotated alike on all grids.
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
        start = self.length_of(condition) + index
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
        table_SK2 = self.table(condition, grid, start, S)
        mask = self.allowed(condition, start + jnp.arange(S), T)
        updated: list[tuple[jax.Array, ...]] = []

        def attend(past: list[jax.Array], q_BHSK: jax.Array, *new: jax.Array) -> jax.Array:
            keys, values = (
                jax.lax.dynamic_update_slice_in_dim(old, x.astype(old.dtype), start, axis=2)
                for old, x in zip(past, new, strict=True)
            )
            updated.append((keys, values))
            o_BHSK = grouped_attention(q_BHSK.astype(keys.dtype), keys, values, mask)
            return o_BHSK.astype(q_BHSK.dtype)

        for layer, *past in zip(layers, cache.keys, cache.values, strict=True):
            attention = functools.partial(
                layer.attention, table_SK2=table_SK2, attend=functools.partial(attend, past)
            )
            x_BSD = layer(x_BSD, attention)
        return Cache(*zip(*updated, strict=True)), x_BSD

    def allowed(
        self,
        condition: Condition,
        queries_S: jax.Array,
        T: int,
        prefix_B: jax.Array | None = None,
    ) -> jax.Array | None:
        """Bool [B or 1, 1, S, T], true where a query may see a key; None where all may."""
        keys_T = jnp.arange(T)
        mask = None
        if self.config.causal:
            mask = (keys_T <= queries_S[:, None])[None, None]
        elif prefix_B is not None:
            c = self.config.condition_tokens
            mask = causal_prefix.visible(prefix_B, c, queries_S, keys_T)
        real_BT = self.real(condition, T)
        if real_BT is not None:
            real_B11T = real_BT[:, None, None]
            # Padding sees itself, as in LlamaGen: a row without keys has no softmax.
            itself = keys_T == queries_S[:, None]
            mask = (real_B11T if mask is None else mask & real_B11T) | itself
        return mask

    def real(self, condition: Condition, T: int) -> jax.Array | None:
        """Bool [B, T], false where the condition is padded; None where it never is."""
        if not isinstance(condition, Features | Text):
            return None
        images_BL = jnp.ones((len(condition.mask_BT), T - self.length_of(condition)), bool)
        parts = (condition.mask_BT.astype(bool), images_BL)
        last = self.config.condition_position == "last"
        return jnp.concatenate(parts[::-1] if last else parts, axis=1)

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
        if self.config.vocabulary:
            return table[self.config.sequence.FIRST_CODE + codes_BL]
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
        if isinstance(condition, Text):
            return self.code_embedding[condition.ids_BT]
        if self.config.joint_embedding:
            return self.embedding[self.config.table_size + condition][:, None]
        return self.class_embedding[condition][:, None]

    def project(self, features_BTC: jax.Array) -> jax.Array:
        """Features to the width of the model, as LlamaGen's CaptionEmbedder: [B, T, D]."""
        dtype = self.config.dtype
        if self.config.feature_norm:
            features_BTC = unit_rms(features_BTC)
        x_BTD = features_BTC.astype(dtype) @ self.feature_in[...].astype(dtype)
        return jax.nn.gelu(x_BTD, approximate=True) @ self.feature_out[...].astype(dtype)

    def drop_condition(self, condition: Condition, drop_B: jax.Array) -> Condition:
        """The null condition where `drop_B`, with the mask that the condition had.

        That of Text is what begins an image, without anything before it.
        """
        if isinstance(condition, Text):
            c = self.length_of(condition)
            opening_T = jnp.arange(c) >= c - self.config.sequence.OPENING
            return Text(condition.ids_BT, condition.mask_BT & (opening_T | ~drop_B[:, None]))
        if isinstance(condition, Features):
            null_TC = self.null_features[...].astype(condition.features_BTC.dtype)
            features = jnp.where(drop_B[:, None, None], null_TC, condition.features_BTC)
            return Features(features, condition.mask_BT)
        return jnp.where(drop_B, self.config.num_classes, condition)

    def length_of(self, condition: Condition) -> int:
        """c."""
        if isinstance(condition, Text):
            return condition.ids_BT.shape[1]
        return self.config.condition_tokens

    def order(self, height: int, width: int) -> np.ndarray:
        """Raster positions in the order of the sequence's tokens; -1: the end of a line."""
        return orders.ORDERS[self.config.order](height, width)

    def in_order(self, codes_BL: jax.Array, height: int, width: int) -> jax.Array:
        """Codes in raster order as the sequence has them, with ends of lines: [B, S]."""
        if self.config.order == "raster":
            return codes_BL
        return self.with_line_ends(codes_BL[:, self.order(height, width)], (height, width))

    def in_raster(self, x_BS: jax.Array, height: int, width: int) -> jax.Array:
        """What there is of each token of the sequence, of codes alone and in raster order."""
        if self.config.order == "raster":
            return x_BS
        order = self.order(height, width)
        return x_BS[:, np.argsort(order)[(order < 0).sum() :]]

    def in_prefix(self, shape: tuple[int, ...], prefix_B: jax.Array) -> jax.Array:
        """Bool of `shape` (B, h, w), true at the first `prefix_B` tokens in `order`."""
        B, height, width = shape
        in_prefix_BL = causal_prefix.within(prefix_B, height * width)
        return self.in_raster(in_prefix_BL, height, width).reshape(shape)

    def with_line_ends(
        self, codes: jax.Array, grid: tuple[int, int], index: jax.Array | None = None
    ) -> jax.Array:
        """Codes of the sequence, [B, S], or of its place `index`, [B], with the ends of lines."""
        ends_S = self.order(*grid) < 0
        if not ends_S.any():
            return codes
        end = jnp.asarray(ends_S)[slice(None) if index is None else index]
        signs = self.config.sequence
        return jnp.where(end, signs.END_OF_LINE - signs.FIRST_CODE, codes)

    def table(
        self, condition: Condition, grid: tuple[int, int], start: jax.Array | int, S: int
    ) -> Table:
        """The rotations of tokens `start` .. `start` + S - 1 of the sequence of a grid."""
        if not isinstance(condition, Text):
            table = self.rotations(*grid)
            if isinstance(start, int):
                return table[start : start + S]
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(table), start, S)
        config = self.config
        length = self.length_of(condition) + len(self.order(*grid))
        angles = rope.rope_1d(length, config.head_dim, config.rope_base)
        # Sequences begin at position 0, wherever their padding ends.
        padding_B1 = (~condition.mask_BT).sum(axis=1, keepdims=True)
        positions_BS = jnp.maximum(start + jnp.arange(S)[None] - padding_B1, 0)
        return jnp.asarray(rope.rotation_table(angles, 0, "identity"))[positions_BS][:, None]

    def rotations(self, height: int, width: int) -> np.ndarray:
        """The RoPE table of the sequence, float32 [c + L, K / 2, 2]."""
        config = self.config
        if config.rope == "1d":
            angles = rope.rope_1d(height * width, config.head_dim)
            return rope.rotation_table(angles, config.condition_tokens, config.condition_rope)
        step = rope.interpolation_step((height, width), config.rope_grid or (height, width))
        angles = rope.rope_2d(height, width, config.head_dim, step)[self.order(height, width)]
        table = rope.rotation_table(angles, config.condition_tokens, config.condition_rope)
        last = config.condition_position == "last"
        return np.roll(table, -config.condition_tokens, axis=0) if last else table
