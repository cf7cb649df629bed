"""A config on TPUs that are not here: python -m maskgil_jax.plan --config=F --topology=v5p:4x4x4.

Compiles the training step (and the sampler of a generator) for each topology and reads off what the
compiler says: memory, cycles, collectives. Needs '.[tpu]', the TPU's compiler.
"""

import logging
import os
from typing import Any

from absl import flags
from ml_collections import config_flags

from maskgil_jax.runtime import command, config_files
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, compile, print what was found."""
    values = flags.FLAGS
    if not values.topology:
        raise InputError("--topology is missing (such as --topology=v5p:4x4x4,v5e:16x16)")
    # Before JAX starts: no TPU is looked for, only its compiler is used.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no chip is used, so none is locked
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # it cannot hold programs for absent devices
    from maskgil_jax.planning import chips, report
    from maskgil_jax.runtime.files import write_json

    for topology in values.topology:
        if topology.split(":")[0] not in chips.CHIPS:
            raise InputError(
                f"--topology={topology}: expected a TPU of {', '.join(chips.CHIPS)} and its shape, "
                "as v5p:4x4x4"
            )
    plans = [planned(topology) for topology in values.topology]
    for plan in plans:
        print("\n".join(lines(plan)))
    if values.output:
        write_json(values.output, {"notes": report.NOTES, "plans": plans})
        report.write(values.output, plans)
        log.info("wrote %s, and the table and plot beside it", values.output)


def planned(topology: str) -> dict[str, Any]:
    """All numbers of one topology, for JSON."""
    from maskgil_jax import config as defaults
    from maskgil_jax.main import read_config, stages_of
    from maskgil_jax.planning import programs, report
    from maskgil_jax.runtime import sharding

    values = flags.FLAGS
    stages = stages_of(read_config())
    if len(stages) != 1 or "codes" in stages:
        raise InputError(f"--config has stages {list(stages)}, expected one tokenizer or generator")
    (config,) = stages.values()
    defaults.check_values(config)
    devices = programs.devices_of(topology)
    if values.batch_per_chip:
        config = config.copy_and_resolve_references()
        images = config.steps * config.batch_size
        config.batch_size = values.batch_per_chip * len(devices)
        config.steps = -(-images // config.batch_size)
    height, width = parse_grid(values.grid)
    mesh = sharding.make_mesh(config.mesh, devices)
    log.info("compiling the training step for %s, %d chips", topology, len(devices))
    generation = topology.split(":")[0]
    step = programs.training_step(config, mesh, values.codebook_size, (height, width))
    plan = {
        "config": config_flags.get_config_filename(flags.FLAGS["config"]),
        "topology": topology,
        "steps": config.steps,
        **report.measured(step, generation),
    }
    if "step_seconds" in plan:
        seconds = plan["step_seconds"] * config.steps
        plan["training_days"] = seconds / 86400
        plan["chip_hours"] = seconds / 3600 * len(devices)
    if values.sampler and config.stage == "generator":
        log.info("compiling the sampler for one chip of %s", topology)
        sampler = programs.sampling(config, devices[0], values.codebook_size, (height, width))
        plan["sampler"] = report.measured(sampler, generation)
    return plan


def parse_grid(texts: list[str]) -> tuple[int, int]:
    """`["16", "16"]` as (height, width); InputError where it is something else."""
    if len(texts) != 2 or not all(text.isdecimal() and int(text) for text in texts):
        raise InputError(f"--grid={','.join(texts)}: expected HEIGHT,WIDTH in codes, as 16,16")
    return int(texts[0]), int(texts[1])


def lines(plan: dict[str, Any]) -> list[str]:
    """What is printed of a plan."""
    gib = 2**30
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan["mesh"].items())
    found = [
        f"{plan['config']} on {plan['topology']}: {plan['chips']} chips ({mesh}), "
        f"{plan['batch_size']:,} images a step",
        f"  parameters            {plan['parameters']:,} (counted)",
        f"  memory of a chip      {plan['bytes_total'] / gib:.2f} GiB reserved, "
        + ("fits, " if plan["fits"] else "DOES NOT FIT, ")
        + f"{abs(plan['bytes_free']) / gib:.2f} GiB {'free' if plan['fits'] else 'too much'}",
    ]
    if "step_seconds" not in plan:
        return found
    found += [f"    {name:19} {size / gib:.2f} GiB" for name, size in plan["bytes"].items()]
    found += [
        f"  model FLOPs           {plan['model_flops_per_step']:.4g} a step (counted)",
        f"  hardware FLOPs        {plan['hardware_flops_per_step']:.4g} a step (counted)",
        f"  compute               {plan['compute_seconds'] * 1e3:.1f} ms (estimated: "
        f"{plan['estimated_cycles']:,} cycles)",
    ]
    if plan["kernel_seconds"]:
        found.append(
            f"    kernels             {plan['kernel_seconds'] * 1e3:.1f} ms of it (our estimate, "
            "there is none of the compiler)"
        )
    for kind, one in plan["collectives"].items():
        found.append(
            f"    {kind:19} {one['bytes_sent'] / 1e9:.3f} GB sent by a chip (counted), "
            f"{one['seconds'] * 1e3:.1f} ms (estimated), {one['times']} times"
        )
    found += [
        f"  a step                {plan['step_seconds'] * 1e3:.1f} ms (estimated, no overlap)",
        f"  MFU                   {plan['mfu']:.3f}; {plan['mfu_of_compute']:.3f} where compute "
        "hides all exchanges (estimated)",
        f"  speed                 {plan['tokens_per_second']:,.0f} image tokens, "
        f"{plan['images_per_second']:,.1f} images a second (estimated)",
    ]
    if "training_days" in plan:
        found.append(
            f"  the config's training {plan['steps']:,} steps: {plan['training_days']:.2f} days, "
            f"{plan['chip_hours']:,.0f} chip hours (estimated)"
        )
    for name, one in plan["unestimated"].items():
        if one["bytes"] > 1e8:  # the rest is scalars
            size = f"{one['times']} times, {one['bytes'] / 1e9:.2f} GB"
            found.append(f"  without an estimate   {name}: {size}")
    found.append("  costliest (estimated):")
    for one in plan["costliest"]:
        found.append(
            f"    {one['seconds'] * 1e3:7.2f} ms {one['share']:6.1%} x{one['times']:<4} "
            f"{one['result'][:44]:44} {one['source'][-70:]}"
            + (" (kernel, our estimate)" if one["is_kernel"] else "")
        )
    found.append(f"  compiled in {plan['compile_seconds']:.1f} s")
    if "sampler" in plan:
        sampler = plan["sampler"]
        found.append(
            f"  sampler, one chip     {sampler['batch_size']} images, "
            f"{sampler['bytes_total'] / gib:.2f} GiB"
            + (f", {sampler['step_seconds'] * 1e3:.1f} ms (estimated)" if sampler["fits"] else "")
        )
    return found


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
