"""The bidirectional Transformers that MaskGIL is compared with: Besnier's and Google's MaskGIT.

Letters: B batch, h w grid, L = h * w image tokens, T = L + 1 with the class token, n some
positions, D width, H heads, K head dimension, F hidden units of the MLP, V classes of the head, N
layers.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from maskgil_jax.models import parameter_keys
from maskgil_jax.models.shared_parameters import Linear, spread
from maskgil_jax.models.token_models import config_checks
from maskgil_jax.models.token_models.attention import attention
from maskgil_jax.models.token_models.layers import dropout, through_layers
from maskgil_jax.models.token_models.products import product


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Shape of a Bert.

    Attributes:
      layers, dim, heads, mlp_dim: N, D, H, F.
      codebook_size: number of image codes; id `codebook_size` is the mask.
      num_classes: number of condition classes.
      grid: (height, width) in tokens, the only one that its positions are for.
      style: "besnier" (norm before attention and MLP, a null class, the class token last, a bias
        for each position and class of the head, one class for the mask) or "maskgit" (norm after
        them, no null class, the class token first, one bias for each class of the head).
      dropout: rate on hidden units.
      attention_dropout: rate on attention weights.
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
    style: str = "besnier"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    remat: str = "minimal"
    unroll: int = 1
    dtype: str = "float32"

    causal = False
    feature_dim = 0
    fits_any_grid = False  # positions are learned

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        object.__setattr__(self, "grid", tuple(self.grid))
        config_checks.check_run(self)
        positive = ("layers", "dim", "heads", "mlp_dim", "codebook_size", "num_classes")
        config_checks.check_counts(self, positive)
        config_checks.check_choices(self, {"style": ("besnier", "maskgit")})
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} is no multiple of heads = {self.heads}")

    @property
    def mask_id(self) -> int:
        """The code that stands for a masked token."""
        return self.codebook_size

    @property
    def has_null_condition(self) -> bool:
        """Google's model has no null class."""
        return self.style == "besnier"

    @property
    def output_size(self) -> int:
        """V: the released Besnier model predicts the mask too."""
        return self.codebook_size + int(self.style == "besnier")

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """One, of the classes of the head."""
        return (self.output_size,)

    @property
    def rows(self) -> int:
        """Of the table: codes, mask and classes, in an order of its own in each style."""
        return self.codebook_size + 1 + self.num_classes + int(self.has_null_condition)


class Bert(nnx.Module):
    """Logits of masked image tokens, given the visible ones and a class.

    Sources: synbol/MaskGIL, Network/transformer.py (Besnier's MaskTransformer); google-research/
    maskgit, maskgit/nets/maskgit_transformer.py.
    """

    # Parameters that `normed` and `classify` read: the head is the table of the embedding.
    of_head: tuple[str, ...] = ("final_norm", "last", "last_norm", "embedding", "head_bias")

    def __init__(self, config: BertConfig, key: jax.Array):
        keys = jax.random.split(key, 5)
        normal = nnx.initializers.truncated_normal(0.02)
        rngs = parameter_keys.rngs(keys[4])
        D, T = config.dim, config.grid[0] * config.grid[1] + 1
        self.config = config
        self.embedding = nnx.Param(normal(keys[0], (config.rows, D)))
        self.position_embedding = nnx.Param(normal(keys[1], (T, D)))
        self.blocks = jax.vmap(lambda k: BertBlock(config, k))(
            jax.random.split(keys[2], config.layers)
        )
        self.embedding_norm = _norm(config)
        self.last = Linear(D, D, kernel_init=normal, dtype=config.dtype, rngs=rngs)
        self.last_norm = _norm(config)
        if config.style == "besnier":
            self.first = nnx.List(
                [Linear(D, D, kernel_init=normal, dtype=config.dtype, rngs=rngs) for _ in range(2)]
            )
            self.first_norm, self.final_norm = _norm(config), _norm(config)
            self.head_bias = nnx.Param(jnp.zeros((T, config.rows)))
        else:
            self.head_bias = nnx.Param(jnp.zeros(config.rows))

    def backbone(
        self, codes_Bhw: jax.Array, classes_B: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Outputs of the last layer at the image tokens, [B, h * w, D]; `key` turns dropout on.

        Raises:
          ValueError: a grid other than the config's.
        """
        config, B = self.config, len(codes_Bhw)
        if codes_Bhw.shape[1:] != config.grid:
            raise ValueError(f"codes of {codes_Bhw.shape[1:]} tokens, expected {config.grid}")
        keys = [None, None] if key is None else list(jax.random.split(key))
        x_BTD = self.embed(codes_Bhw.reshape(B, -1), classes_B, keys[0])
        x_BTD = through_layers(
            self.blocks,
            x_BTD,
            lambda block, x_BTD, key: block(x_BTD, key),
            keys[1],
            layers=config.layers,
            remat=config.remat,
            unroll=config.unroll,
        )
        return x_BTD[:, :-1] if config.style == "besnier" else x_BTD[:, 1:]

    def embed(self, codes_BL: jax.Array, classes_B: jax.Array, key: jax.Array | None) -> jax.Array:
        """Image tokens and the class token with their positions, normalised: [B, T, D]."""
        config, mask = self.config, self.config.mask_id
        if config.style == "besnier":
            rows_BT = jnp.concatenate([codes_BL, (mask + 1 + classes_B)[:, None]], axis=1)
        else:  # classes come after the codes, and the mask is the last row
            rows_BL = jnp.where(codes_BL == mask, config.rows - 1, codes_BL)
            rows_BT = jnp.concatenate([(mask + classes_B)[:, None], rows_BL], axis=1)
        x_BTD = self.embedding[rows_BT] + self.position_embedding[...]
        x_BTD = self.embedding_norm(x_BTD.astype(config.dtype))
        keys = (None, None) if key is None else jax.random.split(key)
        x_BTD = dropout(x_BTD, config.dropout, keys[0])
        if config.style == "besnier":
            x_BTD = self.first_norm(jax.nn.gelu(self.first[0](x_BTD), approximate=False))
            x_BTD = self.first[1](dropout(x_BTD, config.dropout, keys[1]))
        return x_BTD

    def normed(self, x_BnD: jax.Array) -> jax.Array:
        """The layers between the last block and the head, [B, n, D]."""
        if self.config.style == "besnier":
            x_BnD = self.final_norm(x_BnD)
        x_BnD = jax.nn.gelu(self.last(x_BnD), approximate=self.config.style == "maskgit")
        return self.last_norm(x_BnD)

    def classify(self, x_BnD: jax.Array, positions_Bn: jax.Array | None = None) -> jax.Array:
        """The head, which is the table of the embedding: float32 [B, n, V]."""
        V = self.config.output_size
        table_VD = self.embedding[:V].astype(self.config.dtype)
        logits_BnV = product("BnD,VD->BnV", x_BnD, table_VD, jnp.float32)
        if self.config.style == "maskgit":
            return logits_BnV + self.head_bias[:V]
        bias_LV = self.head_bias[:-1, :V]
        return logits_BnV + (bias_LV if positions_Bn is None else bias_LV[positions_Bn])

    def drop_condition(self, classes_B: jax.Array, drop_B: jax.Array) -> jax.Array:
        """The null class where `drop_B`."""
        return jnp.where(drop_B, self.config.num_classes, classes_B)


class BertBlock(nnx.Module):
    """One layer; a model holds all its layers as one block with a leading depth axis."""

    def __init__(self, config: BertConfig, key: jax.Array):
        D, F = config.dim, config.mlp_dim
        keys = jax.random.split(key, 4)
        normal = nnx.initializers.truncated_normal(0.02)
        self.config = config
        H, K = config.heads, D // config.heads
        self.qkv = nnx.Param(normal(keys[0], (D, 3, H, K)))
        self.qkv_bias = nnx.Param(jnp.zeros((3, H, K)))
        self.out = nnx.Param(normal(keys[1], (H, K, D)))
        self.out_bias = nnx.Param(jnp.zeros(D))
        self.up = nnx.Param(normal(keys[2], (D, F)))
        self.up_bias = nnx.Param(jnp.zeros(F))
        self.down = nnx.Param(normal(keys[3], (F, D)))
        self.down_bias = nnx.Param(jnp.zeros(D))
        epsilon = 1e-5 if config.style == "besnier" else 1e-12
        self.attention_norm, self.mlp_norm = _norm(config, epsilon), _norm(config, epsilon)

    def __call__(self, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
        """Attention, then MLP, each added to its input; `key` drives dropout, None is eval."""
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        rate = self.config.dropout
        if self.config.style == "besnier":
            x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), keys[0])
            return x_BTD + dropout(self.mlp(self.mlp_norm(x_BTD), keys[1]), rate, keys[2])
        y_BTD = dropout(self.attention(x_BTD, keys[0]), rate, keys[1])
        x_BTD = self.attention_norm(x_BTD + y_BTD)
        return self.mlp_norm(x_BTD + dropout(self.mlp(x_BTD, None), rate, keys[2]))

    def attention(self, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
        """Attention of every token to every token."""
        qkv_BTCHK = product("BTD,DCHK->BTCHK", x_BTD, self.cast(self.qkv))
        qkv_BTCHK = qkv_BTCHK + spread(self.qkv_bias[...], qkv_BTCHK)
        q_BTHK, k_BTHK, v_BTHK = (part[:, :, 0] for part in jnp.split(qkv_BTCHK, 3, axis=2))
        if key is None or not self.config.attention_dropout:
            boundary = x_BTD.shape[1] - 1 if self.config.style == "besnier" else 1
            o_BTHK = attention(q_BTHK, k_BTHK, v_BTHK, boundary=boundary)
        else:
            scores = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BTHK) * q_BTHK.shape[-1] ** -0.5
            weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(v_BTHK.dtype)
            weights = dropout(weights, self.config.attention_dropout, key)
            o_BTHK = jnp.einsum("BHTS,BSHK->BTHK", weights, v_BTHK)
        y_BTD = product("BTHK,HKD->BTD", o_BTHK, self.cast(self.out))
        return y_BTD + spread(self.out_bias[...], y_BTD)

    def mlp(self, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
        """Two layers and GELU."""
        hidden_BTF = product("BTD,DF->BTF", x_BTD, self.cast(self.up))
        hidden_BTF = hidden_BTF + spread(self.up_bias[...], hidden_BTF)
        hidden_BTF = jax.nn.gelu(hidden_BTF, approximate=self.config.style == "maskgit")
        hidden_BTF = dropout(hidden_BTF, self.config.dropout, key)
        y_BTD = product("BTF,FD->BTD", hidden_BTF, self.cast(self.down))
        return y_BTD + spread(self.down_bias[...], y_BTD)

    def cast(self, parameter: nnx.Param) -> jax.Array:
        """A parameter in the dtype of the computation."""
        return parameter[...].astype(self.config.dtype)


def _norm(config: BertConfig, epsilon: float = 1e-12) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.dim,
        epsilon=epsilon,
        use_fast_variance=False,
        dtype=config.dtype,
        rngs=nnx.Rngs(0),  # scale 1 and bias 0 draw nothing
    )
