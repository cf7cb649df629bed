"""A config on TPUs that are not here: python -m maskgil_jax.plan --config=F --topology=v5p:4x4x4.

Compiles the training step (and the sampler of a generator) for each topology and reads off what the
compiler says: memory, cycles, collectives. Needs '.[tpu]', the TPU's compiler.
"""

import os
from collections.abc import Sequence

from maskgil_jax.planning.options import PlanOptions as Options
from maskgil_jax.runtime import command


def main(argv: Sequence[str]) -> int:
    """Plan; returns the exit code."""
    return command.run(argv, Options, plan, __doc__, compiles=False)


def plan(options: Options) -> None:
    """Compile for the topologies that the options name."""
    # Before JAX starts: no TPU is looked for, only its compiler is used.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no chip is used, so none is locked
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # it cannot hold programs for absent devices
    from maskgil_jax.planning import plans

    plans.plan(options)


if __name__ == "__main__":
    command.start(main)
