"""What the token models do differently on CPUs, GPUs and TPUs: one table, asked through `current`.

Nothing here changes a result beyond its rounding; all of it changes speed or memory.
"""

import dataclasses

from maskgil_jax.runtime import sharding


@dataclasses.dataclass(frozen=True)
class Platform:
    """One row of the table.

    Attributes:
      splits_sequence: image tokens, a power of two, and the few of the condition run through whole
        layers apart (split_layers.py): a token more makes every array of a TPU larger by a tile.
        Elsewhere products of their own for the few cost more than they save, as they do beside
        thousands of tokens or a caption (split_layers.fits_tiles).
      fused_attention: "cudnn" (attention.py), "pallas" (attention_tpu.py) or "": none.
      fused_additions: norms, dropout and sum between products are one kernel (residual_tpu.py).
      materializes_shared: what several products read is stored. Left to itself, XLA joins it with
        each of them on TPUs, and each tile of a product then computes its rows again.
      rounds_in_products: products, whose sums are in float32 all the same, are asked for the dtype
        of the result. XLA fuses nothing that follows into a product of a GPU library.
      saves_bfloat16_as_bits: for the backward pass; XLA would save them as float32 on CPUs.
      transposes_first_operand: of a sum over tokens, the gradient of a matrix: XLA stores a
        transposed copy of it on CPUs, so that the smaller of the two is to be the first.
      cache_dtype: of cached keys and values; "": that of the computation. A CPU multiplies few rows
        of float32 three times as fast as those of bfloat16.
    """

    splits_sequence: bool = False
    fused_attention: str = ""
    fused_additions: bool = False
    materializes_shared: bool = False
    rounds_in_products: bool = False
    saves_bfloat16_as_bits: bool = False
    transposes_first_operand: bool = False
    cache_dtype: str = ""


PLATFORMS = {
    "cpu": Platform(
        saves_bfloat16_as_bits=True, transposes_first_operand=True, cache_dtype="float32"
    ),
    "gpu": Platform(fused_attention="cudnn", rounds_in_products=True),
    "tpu": Platform(
        fused_attention="pallas",
        fused_additions=True,
        splits_sequence=True,
        materializes_shared=True,
    ),
}


def current() -> Platform:
    """The row of the platform that what is traced now will run on."""
    return PLATFORMS[sharding.platform()]
