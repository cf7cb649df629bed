"""What the TPUs can do that a plan is made for."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, as its maker describes it.

    Attributes:
      flops: of bfloat16 products, per second.
      clock: cycles per second of the compiler's estimates.
      hbm_bytes: memory that programs may use.
      link_bytes: to and from other chips, per second, all links together.
    """

    flops: float
    clock: float
    hbm_bytes: float
    link_bytes: float


# cloud.google.com/tpu/docs/v5e, v5p and v6e: peak compute, HBM capacity and interconnect (1,600,
# 4,800 and 3,584 Gbit/s) of a chip. The clock is peak compute over the multiply-adds of a cycle; a
# product of 4096^3 in bfloat16 is then estimated at 97, 96 and 87 % of the peak.
CHIPS = {
    "v5e": Chip(flops=197e12, clock=1.5e9, hbm_bytes=16e9, link_bytes=200e9),
    "v5p": Chip(flops=459e12, clock=1.75e9, hbm_bytes=95e9, link_bytes=600e9),
    "v6e": Chip(flops=918e12, clock=1.75e9, hbm_bytes=32e9, link_bytes=448e9),
}
