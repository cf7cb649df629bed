"""Whisper: features of speech, and its words.

Letters: B batch, F frames of the log-mel, M its bins, T = F / 2 tokens of speech, S tokens of text,
R those that there is room for, C width, H heads, K head dimension, U hidden units of the MLP, V
vocabulary, N layers.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models import parameter_keys
from maskgil_jax.models.token_models.attention import attention_heads_first, attention_of_parts
from maskgil_jax.models.token_models.layers import through_layers
from maskgil_jax.models.token_models.products import product

# OpenAI's code too tells multilingual models by it (whisper/model.py, `is_multilingual`).
ENGLISH_VOCABULARY = 51864


@dataclasses.dataclass(frozen=True)
class WhisperConfig:
    """Shape of a Whisper, and what its greedy decoder does not say.

    Attributes:
      dim, heads, mlp_dim: C, H, U.
      encoder_layers, decoder_layers: N of each.
      mel_bins: M, 80 or 128.
      vocabulary: V.
      speech_positions: largest T; 1,500 is 30 s.
      text_positions: R, the prompt included.
      suppressed: token ids that are never chosen.
      suppressed_first: more ids that are not chosen right after the prompt.
      dtype: of the computation; parameters are float32.
    """

    dim: int
    heads: int
    mlp_dim: int
    encoder_layers: int
    decoder_layers: int
    mel_bins: int
    vocabulary: int
    speech_positions: int = 1500
    text_positions: int = 448
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ValueError(f"{field.name} = {value}, expected 1 or more")
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim = {self.dim} is no multiple of 2 heads = {2 * self.heads}")
        for name in ("suppressed", "suppressed_first"):
            ids = tuple(getattr(self, name))
            object.__setattr__(self, name, ids)
            if ids and not 0 <= min(ids) <= max(ids) < self.vocabulary:
                raise ValueError(f"{name} = {ids}, expected 0 .. {self.vocabulary - 1}")

    @property
    def head_dim(self) -> int:
        """K."""
        return self.dim // self.heads

    @property
    def multilingual(self) -> bool:
        """Whether the prompt names the language."""
        return self.vocabulary > ENGLISH_VOCABULARY


KeysValues = tuple[jax.Array, ...]  # two, [..., B, H, T or R, K] each


class Cache(NamedTuple):
    """What the decoder's layers look at, with a leading axis of N or in one layer without.

    Attributes:
      text: of the text so far, and room.
      speech: of the speech.
    """

    text: KeysValues
    speech: KeysValues


class Attention(nnx.Module):
    """Projections around softmax attention, of a sequence to itself or to another."""

    def __init__(self, config: WhisperConfig, key: jax.Array):
        C, H, K = config.dim, config.heads, config.head_dim
        keys = jax.random.split(key, 3)
        normal = nnx.initializers.normal(0.02)
        self.config = config
        self.query = nnx.Param(normal(keys[0], (C, H, K)))
        self.query_bias = nnx.Param(jnp.zeros((H, K)))
        self.key_value = nnx.Param(normal(keys[1], (C, 2, H, K)))
        self.value_bias = nnx.Param(jnp.zeros((H, K)))
        self.out = nnx.Param(normal(keys[2], (H, K, C)))
        self.out_bias = nnx.Param(jnp.zeros(C))

    def queries(self, x_BSC: jax.Array) -> jax.Array:
        """[B, H, S, K]."""
        q_BHSK = product("BSC,CHK->BHSK", x_BSC, _cast(self, self.query))
        return q_BHSK + _cast(self, self.query_bias)[:, None]

    def keys_values(self, x_BTC: jax.Array) -> KeysValues:
        """Of keys there is no bias."""
        kv_BDHTK = product("BTC,CDHK->BDHTK", x_BTC, _cast(self, self.key_value))
        return kv_BDHTK[:, 0], kv_BDHTK[:, 1] + _cast(self, self.value_bias)[:, None]

    def output(self, o_BHSK: jax.Array) -> jax.Array:
        """[B, S, C]."""
        return product("BHSK,HKC->BSC", o_BHSK, _cast(self, self.out)) + _cast(self, self.out_bias)


class MLP(nnx.Module):
    """Two layers and GELU, after a norm."""

    def __init__(self, config: WhisperConfig, key: jax.Array):
        keys = jax.random.split(key)
        normal = nnx.initializers.normal(0.02)
        self.config = config
        self.norm = _norm(config)
        self.up = nnx.Param(normal(keys[0], (config.dim, config.mlp_dim)))
        self.up_bias = nnx.Param(jnp.zeros(config.mlp_dim))
        self.down = nnx.Param(normal(keys[1], (config.mlp_dim, config.dim)))
        self.down_bias = nnx.Param(jnp.zeros(config.dim))

    def __call__(self, x_BSC: jax.Array) -> jax.Array:
        """What is added to x."""
        hidden_BSU = product("BSC,CU->BSU", self.norm(x_BSC), _cast(self, self.up))
        hidden_BSU = jax.nn.gelu(hidden_BSU + _cast(self, self.up_bias), approximate=False)
        y_BSC = product("BSU,UC->BSC", hidden_BSU, _cast(self, self.down))
        return y_BSC + _cast(self, self.down_bias)


class EncoderBlock(nnx.Module):
    """One layer; a model holds all its layers as one block with a leading depth axis."""

    def __init__(self, config: WhisperConfig, key: jax.Array):
        keys = jax.random.split(key)
        self.norm, self.attention = _norm(config), Attention(config, keys[0])
        self.mlp = MLP(config, keys[1])

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """Attention of every token to every token, then MLP."""
        y_BTC = self.norm(x_BTC)
        k_BHTK, v_BHTK = self.attention.keys_values(y_BTC)
        o_BHTK = attention_heads_first(self.attention.queries(y_BTC), k_BHTK, v_BHTK)
        x_BTC = x_BTC + self.attention.output(o_BHTK)
        return x_BTC + self.mlp(x_BTC)


class DecoderBlock(nnx.Module):
    """One layer, as above, of tokens that look at the text before them and at the speech."""

    def __init__(self, config: WhisperConfig, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.norm, self.attention = _norm(config), Attention(config, keys[0])
        self.speech_norm, self.speech_attention = _norm(config), Attention(config, keys[1])
        self.mlp = MLP(config, keys[2])

    def __call__(
        self, x_BSC: jax.Array, cache: Cache, start: jax.Array | int
    ) -> tuple[jax.Array, KeysValues]:
        """Tokens `start` .. `start` + S - 1 of the text; the cache of text with them, too."""
        y_BSC = self.norm(x_BSC)
        text = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=2)
            for old, new in zip(cache.text, self.attention.keys_values(y_BSC), strict=True)
        )
        S, R = x_BSC.shape[1], text[0].shape[2]
        before_SR = jnp.arange(R) <= start + jnp.arange(S)[:, None]
        o_BHSK = _attend(self.attention.queries(y_BSC), text, before_SR[None, None])
        x_BSC = x_BSC + self.attention.output(o_BHSK)
        o_BHSK = _attend(self.speech_attention.queries(self.speech_norm(x_BSC)), cache.speech)
        x_BSC = x_BSC + self.speech_attention.output(o_BHSK)
        return x_BSC + self.mlp(x_BSC), text


class Whisper(nnx.Module):
    """The encoder of speech and the decoder of text.

    Source: openai/whisper, whisper/model.py (Radford et al. 2022).
    """

    def __init__(self, config: WhisperConfig, key: jax.Array):
        keys = jax.random.split(key, 5)
        normal = nnx.initializers.normal(0.02)
        C, rngs = config.dim, parameter_keys.rngs(keys[0])
        self.config = config
        M, dtype = config.mel_bins, config.dtype
        self.conv1 = nnx.Conv(M, C, 3, padding=1, dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(C, C, 3, strides=2, padding=1, dtype=dtype, rngs=rngs)
        self.speech_position_embedding = nnx.Param(_sinusoids(config.speech_positions, C))
        self.encoder_blocks = jax.vmap(lambda k: EncoderBlock(config, k))(
            jax.random.split(keys[1], config.encoder_layers)
        )
        self.encoder_norm = _norm(config)
        self.embedding = nnx.Param(normal(keys[2], (config.vocabulary, C)))
        self.text_position_embedding = nnx.Param(normal(keys[3], (config.text_positions, C)))
        self.decoder_blocks = jax.vmap(lambda k: DecoderBlock(config, k))(
            jax.random.split(keys[4], config.decoder_layers)
        )
        self.decoder_norm = _norm(config)

    def encode(self, mel_BFM: jax.Array) -> jax.Array:
        """Features of speech.

        Args:
          mel_BFM: log-mel (data/sound/audio.py), of any even number of frames that there are
            positions for.

        Returns:
          [B, F / 2, C].

        Raises:
          ValueError: another number of frames or bins.
        """
        F, M = mel_BFM.shape[1:]
        most = 2 * self.config.speech_positions
        if F % 2 or not 2 <= F <= most or M != self.config.mel_bins:
            raise ValueError(
                f"a log-mel of {F} frames and {M} bins, expected an even number up to {most} and "
                f"{self.config.mel_bins}"
            )
        x_BFC = jax.nn.gelu(self.conv1(mel_BFM.astype(self.config.dtype)), approximate=False)
        x_BTC = jax.nn.gelu(self.conv2(x_BFC), approximate=False)
        x_BTC = x_BTC + _cast(self, self.speech_position_embedding)[: F // 2]
        x_BTC = through_layers(
            self.encoder_blocks,
            x_BTC,
            lambda block, x_BTC, _: block(x_BTC),
            None,
            layers=self.config.encoder_layers,
            remat="none",
            unroll=1,
        )
        return self.encoder_norm(x_BTC)

    def logits(self, tokens_BS: jax.Array, speech_BTC: jax.Array) -> jax.Array:
        """Of the token after each, float32 [B, S, V], given the output of `encode`."""
        cache = self.listen(speech_BTC, tokens_BS.shape[1])
        return self.head(self.extend(cache, tokens_BS, 0)[1])

    def greedy(self, speech_BTC: jax.Array, prompt_P: jax.Array, end: int) -> jax.Array:
        """The likeliest token, one after another.

        Args:
          speech_BTC: output of `encode`.
          prompt_P: int32, what the text starts with.
          end: the token that ends it.

        Returns:
          int32 [B, R]: the prompt, the text, and `end` up to the last place.
        """
        (P,), R, V = prompt_P.shape, self.config.text_positions, self.config.vocabulary
        later_V = np.zeros(V, np.float32)
        later_V[list(self.config.suppressed)] = -np.inf
        first_V = later_V.copy()
        first_V[list(self.config.suppressed_first)] = -np.inf

        def unfinished(state: tuple[jax.Array, jax.Array, Cache]) -> jax.Array:
            index, tokens_BR, _ = state
            return (index < R) & (tokens_BR[:, index - 1] != end).any()

        def append(state: tuple[jax.Array, jax.Array, Cache]) -> tuple:
            index, tokens_BR, cache = state
            newest_B1 = jax.lax.dynamic_slice_in_dim(tokens_BR, index - 1, 1, axis=1)
            cache, x_B1C = self.extend(cache, newest_B1, index - 1)
            next_B1 = jnp.argmax(self.head(x_B1C) + later_V, axis=-1)
            next_B1 = jnp.where(newest_B1 == end, end, next_B1)
            return index + 1, tokens_BR.at[:, index].set(next_B1[:, 0]), cache

        tokens_BR = jnp.full((len(speech_BTC), R), end, jnp.int32).at[:, :P].set(prompt_P)
        cache, x_BPC = self.extend(self.listen(speech_BTC, R), tokens_BR[:, :P], 0)
        first_B = jnp.argmax(self.head(x_BPC[:, -1:]) + first_V, axis=-1)[:, 0]
        state = jnp.int32(P + 1), tokens_BR.at[:, P].set(first_B), cache
        return jax.lax.while_loop(unfinished, append, state)[1]

    def listen(self, speech_BTC: jax.Array, room: int) -> Cache:
        """A cache of speech, and of no text but with room for it."""
        config, B = self.config, len(speech_BTC)
        speech = jax.vmap(lambda block: block.speech_attention.keys_values(speech_BTC))(
            self.decoder_blocks
        )
        shape = (config.decoder_layers, B, config.heads, room, config.head_dim)
        empty = jnp.zeros(shape, config.dtype)
        return Cache((empty, empty), speech)

    def extend(
        self, cache: Cache, tokens_BS: jax.Array, start: jax.Array | int
    ) -> tuple[Cache, jax.Array]:
        """Run tokens `start` .. `start` + S - 1 of the text, given those before in the cache.

        Returns:
          The cache with them, and the normalised outputs, [B, S, C].
        """
        positions_RC = self.text_position_embedding[...]
        positions_SC = jax.lax.dynamic_slice_in_dim(positions_RC, start, tokens_BS.shape[1])
        x_BSC = (self.embedding[tokens_BS] + positions_SC).astype(self.config.dtype)
        x_BSC, text = jax.lax.scan(
            lambda x_BSC, layer: layer[0](x_BSC, layer[1], start),
            x_BSC,
            (self.decoder_blocks, cache),
        )
        return Cache(text, cache.speech), self.decoder_norm(x_BSC)

    def head(self, x_BSC: jax.Array) -> jax.Array:
        """Logits by the table of the embedding: float32 [B, S, V]."""
        return product("BSC,VC->BSV", x_BSC, _cast(self, self.embedding), jnp.float32)


def _attend(q_BHSK: jax.Array, keys_values: KeysValues, mask: jax.Array | None = None) -> jax.Array:
    k_BHTK, v_BHTK = keys_values
    return attention_of_parts((q_BHSK,), (k_BHTK,), (v_BHTK,), mask)[0]


def _cast(module: Attention | MLP | Whisper, parameter: nnx.Param) -> jax.Array:
    return parameter[...].astype(module.config.dtype)


def _norm(config: WhisperConfig) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.dim,
        epsilon=1e-5,
        use_fast_variance=False,
        dtype=config.dtype,
        rngs=nnx.Rngs(0),  # scale 1 and bias 0 draw nothing
    )


def _sinusoids(positions: int, channels: int) -> np.ndarray:
    """Sines, then cosines, of wavelengths from 2 pi to 20,000 pi: float32 [positions, channels]."""
    frequencies = np.exp(-np.log(10_000) * np.linspace(0, 1, channels // 2))
    angles = np.outer(np.arange(positions), frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
