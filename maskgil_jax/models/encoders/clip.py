"""CLIP: images and texts as vectors of one space, in which what belongs together is near.

Letters: B batch, S side of an image, P side of a patch, T tokens, C width of a tower, H heads, K
head dimension, U hidden units of the MLP, E width of the embeddings.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from maskgil_jax.models.token_models.attention import attention_heads_first
from maskgil_jax.models.token_models.layers import through_layers
from maskgil_jax.models.token_models.products import product

# Of the data that OpenAI's models were trained on, by channel, of values in 0 .. 1.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ACTIVATIONS = ("quick_gelu", "gelu")  # the first is OpenAI's, the second of some open models


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Shape of both towers of a CLIP.

    Attributes:
      width: E.
      image_size, patch_size: S and P.
      image_dim, image_layers, image_heads, image_mlp_dim: of the tower of images.
      text_dim, text_layers, text_heads, text_mlp_dim: of the tower of texts.
      vocabulary: token ids of texts.
      text_positions: most tokens of a text, its beginning and its end included.
      text_end: the id that ends a text, at whose first place the text is read.
      activation: of ACTIVATIONS, in both towers.
      norm_eps: added to variances.
      mean, deviation: of each channel of images, in 0 .. 1, that are taken off.
      dtype: of the computation; parameters are float32.
    """

    width: int
    image_size: int
    patch_size: int
    image_dim: int
    image_layers: int
    image_heads: int
    image_mlp_dim: int
    text_dim: int
    text_layers: int
    text_heads: int
    text_mlp_dim: int
    vocabulary: int
    text_positions: int
    text_end: int
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and field.name != "text_end" and value < 1:
                raise ValueError(f"{field.name} = {value}, expected 1 or more")
        for name in ("mean", "deviation"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 3 numbers")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size = {self.image_size} is no multiple of patch_size = {self.patch_size}"
            )
        for dim, heads in (("image_dim", "image_heads"), ("text_dim", "text_heads")):
            if getattr(self, dim) % getattr(self, heads):
                raise ValueError(
                    f"{dim} = {getattr(self, dim)} is no multiple of {heads} = "
                    f"{getattr(self, heads)}"
                )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation = {self.activation!r}, expected one of {ACTIVATIONS}")
        if not 0 <= self.text_end < self.vocabulary:
            raise ValueError(f"text_end = {self.text_end}, expected 0 .. {self.vocabulary - 1}")

    @property
    def patches(self) -> int:
        """Of an image."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class _Tower:
    """Shape of one of the two."""

    dim: int
    layers: int
    heads: int
    mlp_dim: int
    config: ClipConfig


class Attention(nnx.Module):
    """Projections around softmax attention of a sequence to itself."""

    def __init__(self, tower: _Tower, key: jax.Array):
        C, H, K = tower.dim, tower.heads, tower.dim // tower.heads
        keys = jax.random.split(key, 3)
        self.dtype = tower.config.dtype
        self.query, self.query_bias = _matrix(keys[0], (C, H, K)), nnx.Param(jnp.zeros((H, K)))
        self.key_value = _matrix(keys[1], (C, 2, H, K))
        self.key_value_bias = nnx.Param(jnp.zeros((2, H, K)))
        self.out, self.out_bias = _matrix(keys[2], (H, K, C)), nnx.Param(jnp.zeros(C))

    def __call__(self, x_BTC: jax.Array, mask_11TT: jax.Array | None) -> jax.Array:
        """[B, T, C]."""
        q_BHTK = product("BTC,CHK->BHTK", x_BTC, _cast(self, self.query))
        q_BHTK += _cast(self, self.query_bias)[:, None]
        kv_BDHTK = product("BTC,CDHK->BDHTK", x_BTC, _cast(self, self.key_value))
        kv_BDHTK += _cast(self, self.key_value_bias)[:, :, None]
        o_BHTK = attention_heads_first(q_BHTK, kv_BDHTK[:, 0], kv_BDHTK[:, 1], mask_11TT)
        y_BTC = product("BHTK,HKC->BTC", o_BHTK, _cast(self, self.out))
        return y_BTC + _cast(self, self.out_bias)


class MLP(nnx.Module):
    """Two layers and an activation between them."""

    def __init__(self, tower: _Tower, key: jax.Array):
        C, U = tower.dim, tower.mlp_dim
        keys = jax.random.split(key)
        self.dtype, self.activation = tower.config.dtype, tower.config.activation
        self.up, self.up_bias = _matrix(keys[0], (C, U)), nnx.Param(jnp.zeros(U))
        self.down, self.down_bias = _matrix(keys[1], (U, C)), nnx.Param(jnp.zeros(C))

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C]."""
        x_BTU = product("BTC,CU->BTU", x_BTC, _cast(self, self.up)) + _cast(self, self.up_bias)
        if self.activation == "quick_gelu":
            x_BTU = x_BTU * jax.nn.sigmoid(1.702 * x_BTU)
        else:
            x_BTU = jax.nn.gelu(x_BTU, approximate=False)
        y_BTC = product("BTU,UC->BTC", x_BTU, _cast(self, self.down))
        return y_BTC + _cast(self, self.down_bias)


class Block(nnx.Module):
    """One layer; a tower is all its layers as one block with a leading depth axis."""

    def __init__(self, tower: _Tower, key: jax.Array):
        keys = jax.random.split(key)
        self.norm, self.attention = _norm(tower), Attention(tower, keys[0])
        self.mlp_norm, self.mlp = _norm(tower), MLP(tower, keys[1])

    def __call__(self, x_BTC: jax.Array, mask_11TT: jax.Array | None) -> jax.Array:
        """Attention, then MLP, each added to its input."""
        x_BTC = x_BTC + self.attention(self.norm(x_BTC), mask_11TT)
        return x_BTC + self.mlp(self.mlp_norm(x_BTC))


class Clip(nnx.Module):
    """A tower of images, one of texts, and the projections of both into one space.

    Source: openai/CLIP, clip/model.py (Radford et al. 2021, arXiv 2103.00020), with the numbers of
    transformers' CLIPModel.
    """

    def __init__(self, config: ClipConfig, key: jax.Array):
        c, keys = config, jax.random.split(key, 8)
        image = _Tower(c.image_dim, c.image_layers, c.image_heads, c.image_mlp_dim, c)
        text = _Tower(c.text_dim, c.text_layers, c.text_heads, c.text_mlp_dim, c)
        self.config = config
        self.patch_kernel = _matrix(keys[0], (c.patch_size, c.patch_size, 3, image.dim))
        self.class_token = _matrix(keys[1], (image.dim,))
        self.image_position_embedding = _matrix(keys[2], (c.patches + 1, image.dim))
        self.image_in_norm, self.image_out_norm = _norm(image), _norm(image)
        self.image_blocks = _blocks(image, keys[3])
        self.image_head = _matrix(keys[4], (image.dim, c.width))
        self.text_embedding = _matrix(keys[5], (c.vocabulary, text.dim))
        self.text_position_embedding = _matrix(keys[6], (c.text_positions, text.dim))
        self.text_out_norm = _norm(text)
        text_blocks, text_head = jax.random.split(keys[7])
        self.text_blocks = _blocks(text, text_blocks)
        self.text_head = _matrix(text_head, (text.dim, c.width))
        # Of training, which multiplies cosines by its exponential; kept for exports.
        self.logit_scale = nnx.Param(jnp.asarray(np.log(1 / 0.07), jnp.float32))

    @property
    def dtype(self) -> str:
        """Of the computation."""
        return self.config.dtype

    def image_embeddings(self, images_BSS3: jax.Array) -> jax.Array:
        """What images show.

        Args:
          images_BSS3: uint8 [B, S, S, 3], cropped to the size of the network.

        Returns:
          float32 [B, E], not normalised.
        """
        c, B = self.config, len(images_BSS3)
        side, P = c.image_size // c.patch_size, c.patch_size
        x = images_BSS3.astype(jnp.float32) / 255
        x = (x - jnp.array(c.mean)) / jnp.array(c.deviation)
        x = x.reshape(B, side, P, side, P, 3).transpose(0, 1, 3, 2, 4, 5)
        patches_BTF = x.reshape(B, c.patches, P * P * 3).astype(c.dtype)
        kernel_FC = _cast(self, self.patch_kernel).reshape(P * P * 3, c.image_dim)
        x_BTC = product("BTF,FC->BTC", patches_BTF, kernel_FC)
        first_B1C = jnp.broadcast_to(_cast(self, self.class_token), (B, 1, c.image_dim))
        x_BTC = jnp.concatenate([first_B1C, x_BTC], axis=1)
        x_BTC = self.image_in_norm(x_BTC + _cast(self, self.image_position_embedding))
        x_BTC = _through(self.image_blocks, x_BTC, None, c.image_layers)
        return self._projected(self.image_out_norm(x_BTC[:, 0]), self.image_head)

    def text_embeddings(self, ids_BT: jax.Array) -> jax.Array:
        """What texts say.

        Args:
          ids_BT: int32 [B, T], T up to the config's `text_positions`; each row holds `text_end`,
            behind whose first place nothing counts.

        Returns:
          float32 [B, E], not normalised.
        """
        c, T = self.config, ids_BT.shape[1]
        x_BTC = self.text_embedding[ids_BT] + self.text_position_embedding[...][:T]
        before_TT = np.tri(T, dtype=bool)
        x_BTC = _through(
            self.text_blocks, x_BTC.astype(c.dtype), before_TT[None, None], c.text_layers
        )
        end_B = jnp.argmax(ids_BT == c.text_end, axis=1)
        x_BC = jnp.take_along_axis(x_BTC, end_B[:, None, None], axis=1)[:, 0]
        return self._projected(self.text_out_norm(x_BC), self.text_head)

    def _projected(self, x_BC: jax.Array, head: nnx.Param) -> jax.Array:
        return product("BC,CE->BE", x_BC, _cast(self, head), jnp.float32)


def _blocks(tower: _Tower, key: jax.Array) -> Block:
    return jax.vmap(lambda k: Block(tower, k))(jax.random.split(key, tower.layers))


def _through(
    blocks: Block, x_BTC: jax.Array, mask_11TT: np.ndarray | None, layers: int
) -> jax.Array:
    mask = None if mask_11TT is None else jnp.asarray(mask_11TT)
    return through_layers(
        blocks,
        x_BTC,
        lambda block, x_BTC, _: block(x_BTC, mask),
        None,
        layers=layers,
        remat="none",
        unroll=1,
    )


def _matrix(key: jax.Array, shape: tuple[int, ...]) -> nnx.Param:
    return nnx.Param(nnx.initializers.normal(0.02)(key, shape))


def _cast(module: Attention | MLP | Clip, parameter: nnx.Param) -> jax.Array:
    return parameter[...].astype(module.dtype)


def _norm(tower: _Tower) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        tower.dim,
        epsilon=tower.config.norm_eps,
        use_fast_variance=False,
        dtype=tower.config.dtype,
        rngs=nnx.Rngs(0),  # scale 1 and bias 0 draw nothing
    )
