"""What the TPUs can do that a plan is made for."""

import dataclasses

from maskgil_jax.runtime import peaks


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, as its maker describes it.

    Attributes:
      flops: of bfloat16 products, per second.
      clock: cycles per second of the compiler's estimates.
      vectors: operations of its vector units, per second.
      hbm_bytes: memory that programs may use.
      hbm_bandwidth: bytes read or written, per second.
      link_bytes: to and from other chips, per second, all links together.
    """

    flops: float
    clock: float
    vectors: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bytes: float


# cloud.google.com/tpu/docs/v5e, v5p and v6e: HBM capacity and bandwidth, and
# interconnect (1,600, 4,800 and 3,584 Gbit/s) of a chip. The clock is peak compute over the
# multiply-adds of a cycle; a product of 4096^3 in bfloat16 is then estimated at 97, 96 and 87 % of
# the peak. The vector units of a core (one, two, one) do 4 x 8 x 128 operations in a cycle.
CHIPS = {
    "v5e": Chip(
        flops=peaks.BF16["v5e"],
        clock=1.5e9,
        vectors=6.1e12,
        hbm_bytes=16e9,
        hbm_bandwidth=819e9,
        link_bytes=200e9,
    ),
    "v5p": Chip(
        flops=peaks.BF16["v5p"],
        clock=1.75e9,
        vectors=14.3e12,
        hbm_bytes=95e9,
        hbm_bandwidth=2765e9,
        link_bytes=600e9,
    ),
    "v6e": Chip(
        flops=peaks.BF16["v6e"],
        clock=1.75e9,
        vectors=7.2e12,
        hbm_bytes=32e9,
        hbm_bandwidth=1640e9,
        link_bytes=448e9,
    ),
}
