"""What users may ask of a plan: options of its command."""

import dataclasses

from maskgil_jax.runtime.config_files import Config
from maskgil_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What maskgil_jax.plan compiles."""

    config: Config = option(
        "config file of one stage, as configs/xxl.py, or the name of one, as xxl"
    )
    topology: tuple[str, ...] = option(
        "TPUs and their shapes, as v5p:4x4x4,v5e:16x16; 2xv5e:16x16 are two slices"
    )
    output: str = option("F.json; table and plot are written beside it", "")
    batch_per_chip: int = option(
        "images a step on each chip, for as many steps as see the config's images; 0: as it says",
        0,
        least=0,
    )
    recipe: bool = option(
        "beside the step of batch_per_chip, plan that of the config's own batch too", True
    )
    calibrate: bool = option(
        "compile plain products and the step's own by themselves too: what they reach is a bound",
        True,
    )
    search: bool = option(
        "look for the fastest batch per chip (unless it is given), remat, fsdp and compiler "
        "options that fit, and plan that",
        False,
    )
    search_compiles: int = option("programs that a search compiles at most", 20, least=1)
    cache: str = option(
        "folder of what was compiled, so that no program is compiled twice; empty: none is kept",
        "~/.cache/maskgil_jax/plans",
    )
    codebook_size: int = option("of the codes that a generator is trained on", 16384, least=1)
    grid: tuple[str, ...] = option("height and width of an image in codes", ("16", "16"))
    sampler: bool = option("plan the sampler of a generator too", True)
