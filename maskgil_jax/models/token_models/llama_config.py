"""Shape and switches of a LLaMA over image tokens, the published sizes and forms of it.

Letters: D width, H heads, K head dimension, F hidden units of the MLP, V classes of the head, N
layers, C width of features.
"""

import dataclasses
from typing import Any

from maskgil_jax.models.token_models import config_checks, factors, orders
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


# Values of the fields that choose.
CHOICES = {
    "rope": ("1d", "2d"),
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
      codebook_size: number of image codes; id `codebook_size` is the mask.
      num_classes: number of condition classes, id `num_classes` is the null class; 0 where the
        condition is features.
      grid: (height, width) in tokens that the model is trained on.
      ffn_multiple: hidden units are int(8 D / 3) rounded up to a multiple of this.
      causal: each token sees the condition and the tokens before it, and is predicted from them;
        there is no mask then.
      order: of a causal model's tokens: "raster", or "halton", which spreads the first ones over
        the image.
      feature_dim: C of a condition of text or speech features; 0 where it is a class.
      feature_norm: features are divided by their root mean square.
      condition_tokens: of the sequence; 1 for a class.
      dropout: rate on the outputs of attention and MLP.
      embedding_dropout: rate on the embedded tokens; 0.1 in LlamaGen's recipe (its token dropout).
      rope: "2d", or "1d": raster order as released, where the row of the condition stands first
        in the table even if the condition token stands last in the sequence, so that the first
        image token gets it.
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
      post_norm: "sandwich" (x + norm(f(norm(x)))), "output" (x + norm(f(x))) or "none".
      remat: what is recomputed in the backward pass: "none", "minimal" (what is cheap: norms,
        activations) or "full" (each layer).
      unroll: layers in one iteration of the compiled loop.
      dtype: of the computation; parameters are float32.
    """

    layers: int
    dim: int
    heads: int
    codebook_size: int
    num_classes: int
    grid: tuple[int, int]
    ffn_multiple: int = 256
    causal: bool = False
    order: str = "raster"
    feature_dim: int = 0
    feature_norm: bool = False
    condition_tokens: int = 1
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    rope: str = "2d"
    rope_positions: str = "extended"
    rope_grid: tuple[int, ...] = ()
    condition_rope: str = "zero"
    condition_position: str = "first"
    joint_embedding: bool = False
    mask_logit: bool = False
    factors: tuple[int, ...] = ()
    qk_norm: str = "layer"
    post_norm: str = "sandwich"
    remat: str = "minimal"
    unroll: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "factors", tuple(self.factors))
        object.__setattr__(self, "rope_grid", tuple(self.rope_grid))
        config_checks.check_run(self)
        positive = ("layers", "dim", "heads", "codebook_size", "ffn_multiple", "condition_tokens")
        config_checks.check_counts(self, positive)
        config_checks.check_choices(self, CHOICES)
        factors.check(self.factors, self.codebook_size)
        self._check_condition()
        self._check_positions()
        self._check_switches()

    def _check_condition(self) -> None:
        if not self.feature_dim:
            config_checks.check_counts(self, ["num_classes"])
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

    def _check_switches(self) -> None:
        if self.causal and (self.mask_logit or self.condition_position == "last"):
            raise ValueError(
                "a causal model has its condition first and no mask, but condition_position = "
                f"{self.condition_position!r}, mask_logit = {self.mask_logit}"
            )
        if self.factors and (self.mask_logit or self.joint_embedding):
            raise ValueError(
                f"factors = {self.factors} with mask_logit = {self.mask_logit} and joint_embedding "
                f"= {self.joint_embedding}, expected False and False"
            )
        if self.order != "raster" and (not self.causal or self.rope == "1d"):
            raise ValueError(f"order = {self.order!r} is of causal models with 2D RoPE")
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
        return swiglu_width(self.dim, self.ffn_multiple)

    @property
    def mask_id(self) -> int:
        """The code that stands for a masked token."""
        return self.codebook_size

    @property
    def fits_any_grid(self) -> bool:
        """Whether codes may have other grids than `grid`."""
        return self.rope == "2d"

    @property
    def has_null_condition(self) -> bool:
        """Whether there is a null condition, which guidance needs."""
        return True

    @property
    def table_size(self) -> int:
        """Rows for codes: the mask has one too, where there is a mask."""
        return (sum(self.factors) or self.codebook_size) + int(not self.causal)

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """Sizes of the vocabularies that the head predicts one from each of."""
        return self.factors or (self.codebook_size + int(self.mask_logit),)

    @property
    def output_size(self) -> int:
        """Columns of the head."""
        return sum(self.vocabularies)
