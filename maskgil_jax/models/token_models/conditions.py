"""What a token model is conditioned on, and what samplers and training ask of one."""

from typing import Any, NamedTuple, Protocol

import jax


class Features(NamedTuple):
    """Features of text or speech, padded on either side.

    Attributes:
      features_BTC: float [B, T, C].
      mask_BT: bool [B, T], false at padding.
    """

    features_BTC: jax.Array
    mask_BT: jax.Array


class Text(NamedTuple):
    """Token ids of text and of what begins an image, of any lengths, padded on the left.

    Attributes:
      ids_BT: int32 [B, T]; the last ones begin the image (lumina_sequence.opening).
      mask_BT: bool [B, T], false at padding.
    """

    ids_BT: jax.Array
    mask_BT: jax.Array


Condition = jax.Array | Features | Text  # int32 [B] class ids, or features, or token ids


class TokenModel(Protocol):
    """A network over image tokens, whatever is inside.

    Letters: B batch, h w grid, L = h * w, n some of the positions, D width, V classes of the head.

    Attributes:
      config: has codebook_size, mask_id, num_classes, grid, fits_any_grid (whether codes may have
        other grids), dtype, and `vocabularies`: sizes of those that the head predicts, one, or one
        for each digit of a code (factors.py).
      of_head: names of the parameters that `normed` and `classify` read.
    """

    config: Any
    of_head: tuple[str, ...]

    def backbone(
        self, codes_Bhw: jax.Array, condition: Condition, key: jax.Array | None = None
    ) -> jax.Array:
        """Outputs of the last layer at the image tokens, [B, L, D]; `key` turns dropout on."""

    def normed(self, x_BnD: jax.Array) -> jax.Array:
        """Position by position, what `classify` is affine in: [B, n, D]."""

    def classify(self, x_BnD: jax.Array, positions_Bn: jax.Array | None = None) -> jax.Array:
        """Logits, float32 [B, n, V], at these raster positions (None: at all of them)."""

    def drop_condition(self, condition: Condition, drop_B: jax.Array) -> Condition:
        """The null condition where `drop_B`."""
