"""Shape and switches of a LLaMA over image tokens, the published sizes and forms of it.

Letters: D width, H heads, G heads of keys and values, K head dimension, F hidden units of the MLP,
V classes of the head, N layers, C width of features.
"""

import dataclasses
from types import ModuleType
from typing import Any

from maskgil_jax.models.token_models import (
    config_checks,
    dimoo_sequence,
    factors,
    lumina_sequence,
    orders,
)
from maskgil_jax.models.token_models.layers import swiglu_width

# Layers, width and heads of the published sizes (LlamaGen, autoregressive/models/gpt.py).
SIZES = {
    "B": dict(layers=12, dim=768, heads=12),
    "L": dict(layers=24, dim=1024, heads=16),
    "XL": dict(layers=36, dim=1280, heads=20),
    "XXL": dict(layers=48, dim=1536, heads=24),
    "XXXL": dict(layers=48, dim=2560, heads=40),
    "1B": dict(layers=22, dim=2048, heads=32),
    "3B": dict(layers=24, dim=3200, heads=32),
    "7B": dict(layers=32, dim=4096, heads=32),
}

# What the paper's model has beside the preset where its condition is text or speech. Hidden states
# of an encoder may be in the thousands (Gemma 3's are), and tokens of a text whose keys were not
# rotated but zeroed, as that of the class is, would all weigh the same.
PAPER_OF_FEATURES = dict(feature_norm=True, condition_rope="identity")

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
    # FoundationVision/LlamaGen, autoregressive/models/gpt.py.
    "llamagen": dict(
        causal=True,
        rope="2d",
        condition_position="first",
        joint_embedding=False,
        mask_logit=False,
        qk_norm="none",
        post_norm="none",
    ),
}
# The paper's, causal: it differs in the task alone.
PRESETS["paper_causal"] = PRESETS["paper"] | dict(causal=True)

# Chameleon, which Lumina-mGPT is: text and image in one sequence (lumina_sequence.py). Of 34B
# `post_norm` is "output".
CHAMELEON: dict[str, Any] = dict(
    causal=True,
    codebook_size=lumina_sequence.CODES,
    num_classes=0,
    rope="sequence",
    order="lines",
    qk_norm="layer",
    post_norm="none",
)
# LLaDA, which Lumina-DiMOO is: text and an image whose tokens all see each other
# (dimoo_sequence.py).
LLADA = CHAMELEON | dict(causal=False, codebook_size=dimoo_sequence.CODES, qk_norm="none")
# What only models with a vocabulary have, as the others have it.
NOT_OF_TEXT: dict[str, Any] = dict(
    kv_heads=0,
    mlp_dim=0,
    rope_base=10000.0,
    qk_norm_rows=(),
    norm_eps=1e-5,
    param_dtype="float32",
)

# Values of the fields that choose.
CHOICES = {
    "rope": ("1d", "2d", "sequence"),
    "rope_positions": ("extended", "interpolated"),
    "order": tuple(orders.ORDERS),
    "condition_rope": ("zero", "identity"),
    "condition_position": ("first", "last"),
    "qk_norm": ("layer", "rms", "none"),
    "post_norm": ("sandwich", "output", "none"),
}


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Shape and switches of a Llama; the defaults are the paper's choices.

    Attributes:
      layers, dim, heads: N, D, H.
      kv_heads: G, each shared by H / G heads of queries; 0: H.
      codebook_size: number of image codes; id `codebook_size` is the mask.
      num_classes: number of condition classes, id `num_classes` is the null class; 0 where the
        condition is features, or where there is none, which the null class 0 alone stands for.
      grid: (height, width) in tokens that the model is trained on.
      vocabulary: ids of text, codes and signs that the table and the head have; the condition is
        such ids then. 0: they have codes only.
      context: of those ids, tokens that a sequence may have.
      ffn_multiple: hidden units are int(8 D / 3) rounded up to a multiple of this.
      mlp_dim: F, where it is another number.
      causal: each token sees the condition and the tokens before it, and is predicted from them;
        there is no mask then.
      causal_prefix: the first tokens of an image, as many as a caller says, may be read and
        predicted as by a causal model (causal_prefix.py): one network for both ways of drawing.
      order: of causal tokens: "raster"; "halton", which spreads the first ones over the image; or
        "lines", which is raster with a sign at the end of each row.
      feature_dim: C of a condition of text or speech features; 0 where it is a class.
      feature_norm: features are divided by their root mean square.
      condition_tokens: of the sequence; 1 for a class.
      dropout: rate on the outputs of attention and MLP.
      embedding_dropout: rate on the embedded tokens; 0.1 in LlamaGen's recipe (its token dropout).
      rope: "2d", or "1d": raster order as released, where the row of the condition stands first
        in the table even if the condition token stands last in the sequence, so that the first
        image token gets it; or "sequence": by the place in the sequence, the condition's too.
      rope_base: of the angles.
      rope_positions: on grids of more tokens than `rope_grid`: "extended", rows and columns are
        counted on; "interpolated", they are counted in smaller steps (rope.interpolation_step).
      rope_grid: grid whose positions stay as they are where others are interpolated: that of the
        model whose weights training started from. () where positions are extended.
      condition_rope: rotation of the condition: "zero" (released) or "identity".
      condition_position: "first" or "last" in the sequence.
      joint_embedding: one table for codes, mask and classes.
      mask_logit: the head has a column for the mask id.
      factors: vocabularies of a code's digits (factors.py), as (64, 4096); (): one of all codes.
      qk_norm: "layer" (per head, with scale and bias), "rms" or "none".
      qk_norm_rows: scales and biases of queries and of keys, each for as many consecutive heads;
        (): one for all heads.
      norm_eps: added to mean squares, but for the norms of queries and keys.
      post_norm: "sandwich" (x + norm(f(norm(x)))), "output" (x + norm(f(x))) or "none".
      remat: what is recomputed in the backward pass: "none", "minimal" (what is cheap: norms,
        activations) or "full" (each layer).
      unroll: layers in one iteration of the compiled loop.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    layers: int
    dim: int
    heads: int
    codebook_size: int
    num_classes: int
    grid: tuple[int, int]
    kv_heads: int = 0
    vocabulary: int = 0
    context: int = 4096
    ffn_multiple: int = 256
    mlp_dim: int = 0
    causal: bool = False
    causal_prefix: bool = False
    order: str = "raster"
    feature_dim: int = 0
    feature_norm: bool = False
    condition_tokens: int = 1
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    rope: str = "2d"
    rope_base: float = 10000.0
    rope_positions: str = "extended"
    rope_grid: tuple[int, ...] = ()
    condition_rope: str = "zero"
    condition_position: str = "first"
    joint_embedding: bool = False
    mask_logit: bool = False
    factors: tuple[int, ...] = ()
    qk_norm: str = "layer"
    qk_norm_rows: tuple[int, ...] = ()
    norm_eps: float = 1e-5
    post_norm: str = "sandwich"
    remat: str = "minimal"
    unroll: int = 1
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "factors", tuple(self.factors))
        object.__setattr__(self, "qk_norm_rows", tuple(self.qk_norm_rows))
        object.__setattr__(self, "rope_grid", tuple(self.rope_grid))
        config_checks.check_run(self)
        positive = ("layers", "dim", "heads", "codebook_size", "ffn_multiple", "condition_tokens")
        config_checks.check_counts(self, positive)
        config_checks.check_choices(self, CHOICES)
        config_checks.check_choices(self, {"param_dtype": config_checks.DTYPES})
        factors.check(self.factors, self.codebook_size)
        if self.vocabulary:
            self._check_vocabulary()
        else:
            config_checks.check_same(self, NOT_OF_TEXT)
            self._check_condition()
        self._check_positions()
        self._check_switches()

    def _check_condition(self) -> None:
        if not self.feature_dim:
            if self.num_classes < 0:
                raise ValueError(f"num_classes = {self.num_classes}, expected 0 or more")
            if self.condition_tokens != 1:
                raise ValueError(
                    f"condition_tokens = {self.condition_tokens}, expected 1 for a class"
                )
        elif self.num_classes or self.joint_embedding:
            raise ValueError(
                f"feature_dim = {self.feature_dim} with num_classes = {self.num_classes} and "
                f"joint_embedding = {self.joint_embedding}, expected 0 and False"
            )

    def _check_positions(self) -> None:
        if self.rope_positions == "extended":
            if self.rope_grid:
                raise ValueError(
                    f"rope_grid = {self.rope_grid} with rope_positions = 'extended': expected () "
                    "(it is the grid that positions are interpolated from)"
                )
        elif self.rope != "2d":
            raise ValueError("rope_positions = 'interpolated' needs rope = '2d'")
        elif len(self.rope_grid) != 2 or min(self.rope_grid) < 1:
            raise ValueError(
                f"rope_grid = {self.rope_grid} with rope_positions = 'interpolated': expected the "
                "(height, width) in tokens of the grid that they are interpolated from"
            )

    def _check_vocabulary(self) -> None:
        no_others = dict(feature_dim=0, joint_embedding=False, factors=(), causal_prefix=False)
        config_checks.check_same(self, no_others)
        if self.heads % self.key_heads:
            raise ValueError(f"kv_heads = {self.kv_heads}, expected a divisor of {self.heads}")
        if self.causal:
            self._check_chameleon()
            return
        config_checks.check_same(self, LLADA | dict(qk_norm_rows=()))
        if self.vocabulary != dimoo_sequence.VOCABULARY:
            raise ValueError(
                f"vocabulary = {self.vocabulary}, expected {dimoo_sequence.VOCABULARY} in a "
                "masked model: the last of its ids are those of codes"
            )

    def _check_chameleon(self) -> None:
        post_norm = "output" if self.post_norm == "output" else "none"
        config_checks.check_same(self, CHAMELEON | dict(post_norm=post_norm))
        if self.vocabulary < lumina_sequence.SMALLEST_VOCABULARY:
            raise ValueError(
                f"vocabulary = {self.vocabulary}, expected {lumina_sequence.SMALLEST_VOCABULARY} "
                "or more: ids of codes and of sizes"
            )
        heads = (self.heads, self.key_heads)
        if len(self.qk_norm_rows) != 2 or any(
            n < 1 or h % n for n, h in zip(self.qk_norm_rows, heads, strict=True)
        ):
            raise ValueError(f"qk_norm_rows = {self.qk_norm_rows}, expected divisors of {heads}")

    def _check_switches(self) -> None:
        ordered = self.causal or self.causal_prefix
        if ordered and (self.mask_logit or self.condition_position == "last"):
            raise ValueError(
                f"a {'causal model' if self.causal else 'model with a causal prefix'} has its "
                "condition first and predicts no mask, but condition_position = "
                f"{self.condition_position!r}, mask_logit = {self.mask_logit}"
            )
        if self.factors and (self.mask_logit or self.joint_embedding):
            raise ValueError(
                f"factors = {self.factors} with mask_logit = {self.mask_logit} and joint_embedding "
                f"= {self.joint_embedding}, expected False and False"
            )
        if not self.vocabulary and (self.rope == "sequence" or self.order == "lines"):
            raise ValueError(
                f"rope = {self.rope!r} and order = {self.order!r} are of models with a vocabulary"
            )
        ordered = ordered or bool(self.vocabulary)
        if self.order != "raster" and (not ordered or self.rope == "1d"):
            raise ValueError(
                f"order = {self.order!r} is of causal models, or a causal prefix, with 2D RoPE"
            )
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
        return self.mlp_dim or swiglu_width(self.dim, self.ffn_multiple)

    @property
    def key_heads(self) -> int:
        """G."""
        return self.kv_heads or self.heads

    @property
    def mask_id(self) -> int:
        """The code that stands for a masked token."""
        return self.codebook_size

    @property
    def sequence(self) -> ModuleType:
        """How text and images stand in the sequence of a model with a vocabulary."""
        return lumina_sequence if self.causal else dimoo_sequence

    @property
    def fits_any_grid(self) -> bool:
        """Whether codes may have other grids than `grid`."""
        return self.rope != "1d"

    @property
    def has_null_condition(self) -> bool:
        """Whether there is a null condition beside others, which guidance needs."""
        return bool(self.num_classes or self.feature_dim or self.vocabulary)

    @property
    def table_size(self) -> int:
        """Rows for codes: the mask has one too, where there is a mask; or for the vocabulary."""
        masked = not self.causal or self.causal_prefix
        return self.vocabulary or (sum(self.factors) or self.codebook_size) + int(masked)

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """Sizes of the vocabularies that codes are drawn from, one from each."""
        return self.factors or (self.codebook_size + int(self.mask_logit),)

    @property
    def output_size(self) -> int:
        """Columns of the head."""
        return self.vocabulary or sum(self.vocabularies)
