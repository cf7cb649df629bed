"""A config on TPUs that are not here: python -m maskgil_jax.plan --config=F --topology=v5p:4x4x4.

Compiles the training step (and the sampler of a generator) for each topology and reads off what the
compiler says: memory, cycles, collectives. Needs '.[tpu]', the TPU's compiler.
"""

import logging
import os

from absl import flags
from ml_collections import config_flags

from maskgil_jax.runtime import command, config_files
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, compile, print the plans."""
    values = flags.FLAGS
    if not values.topology:
        raise InputError("--topology is missing (such as --topology=v5p:4x4x4,v5e:16x16)")
    # Before JAX starts: no TPU is looked for, only its compiler is used.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no chip is used, so none is locked
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # it cannot hold programs for absent devices
    from maskgil_jax.main import read_config, stages_of
    from maskgil_jax.planning import plan_files, plan_text, plans

    stages = stages_of(read_config())
    if len(stages) != 1:
        raise InputError(f"--config has stages {list(stages)}, expected one tokenizer or generator")
    (config,) = stages.values()
    options = plans.PlanOptions(
        topologies=values.topology,
        batch_per_chip=values.batch_per_chip,
        codebook_size=values.codebook_size,
        grid=plans.parse_grid(values.grid),
        sampler=values.sampler,
    )
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    made = plans.make_plans(config, name, options)
    for plan in made:
        print("\n".join(plan_text.lines(plan)))
    if values.output:
        plan_files.write(values.output, made)
        log.info("wrote %s, and the table and plot beside it", values.output)


def define_flags() -> None:
    """The command's flags."""
    config_files.define("config file of one stage, as configs/xxl.py")
    flags.DEFINE_list("topology", [], "TPUs and their shapes, as v5p:4x4x4,v5e:16x16")
    flags.DEFINE_string("output", None, "F.json; table and plot are written beside it")
    flags.DEFINE_integer(
        "batch_per_chip",
        0,
        "images a step on each chip, for as many steps as see the config's images; 0: as it says",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "codebook_size", 16384, "of the codes that a generator is trained on", lower_bound=1
    )
    flags.DEFINE_list("grid", ["16", "16"], "height and width of an image in codes")
    flags.DEFINE_bool("sampler", True, "plan the sampler of a generator too")


if __name__ == "__main__":
    define_flags()
    command.run(main)
