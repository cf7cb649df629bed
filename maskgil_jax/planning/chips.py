"""What the TPUs can do that a plan is made for."""

import dataclasses

from maskgil_jax.runtime import peaks


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, as its maker describes it.

    Attributes:
      flops: of bfloat16 products, per second.
      clock: cycles per second of the compiler's estimates.
      cores: each with matrix and vector units of its own; they share a kernel's grid.
      mxu: rows and columns of a matrix unit.
      hbm_bytes: memory that programs may use.
      hbm_bandwidth: bytes read or written, per second.
      link_bytes: over one link, in one direction, per second.
      dcn_bytes: to other slices, in one direction, per second.
      ring_of: chips along an axis of a slice that are linked around; 0: any number that is a
        multiple of 4, in slices of whole cubes.
      hop_seconds: from one chip to the next, for the first byte.
    """

    flops: float
    clock: float
    cores: int
    mxu: int
    hbm_bytes: float
    hbm_bandwidth: float
    link_bytes: float
    dcn_bytes: float
    ring_of: int
    hop_seconds: float = 1e-6


# cloud.google.com/tpu/docs/v5e, v5p and v6e: HBM capacity and bandwidth of a chip, and the data
# center's network (of 256 chips of v5e 6.4 Tbit/s, of v6e 25.6; of v5p no page was found, and 200
# Gbit/s of a host of 4 chips are assumed).
# jax-ml.github.io/scaling-book/tpus: the links (LINKS). The clock is peak compute over the
# multiply-adds of a cycle; a product of 4096^3 in bfloat16 is then estimated at 97, 96 and 87 % of
# the peak.
LINKS = "jax-ml.github.io/scaling-book/tpus, 'ICI BW/link, one-way', and 1 us a hop"
CHIPS = {
    "v5e": Chip(
        flops=peaks.BF16["v5e"],
        clock=1.5e9,
        cores=1,
        mxu=128,
        hbm_bytes=16e9,
        hbm_bandwidth=819e9,
        link_bytes=45e9,
        dcn_bytes=3.125e9,
        ring_of=16,
    ),
    "v5p": Chip(
        flops=peaks.BF16["v5p"],
        clock=1.75e9,
        cores=2,
        mxu=128,
        hbm_bytes=95e9,
        hbm_bandwidth=2765e9,
        link_bytes=90e9,
        dcn_bytes=6.25e9,
        ring_of=0,
    ),
    "v6e": Chip(
        flops=peaks.BF16["v6e"],
        clock=1.75e9,
        cores=1,
        mxu=256,
        hbm_bytes=32e9,
        hbm_bandwidth=1640e9,
        link_bytes=90e9,
        dcn_bytes=12.5e9,
        ring_of=16,
    ),
}
