"""What a config needs on TPU topologies: options to a list of plans, one for each topology."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from maskgil_jax import config as config_defaults
from maskgil_jax.planning import chips, estimates, plan_files, plan_text, programs
from maskgil_jax.planning.options import PlanOptions
from maskgil_jax.runtime import compiling, device_memory, sharding, slices
from maskgil_jax.runtime.device_memory import TooLarge
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.value_limits import check_values

log = logging.getLogger("maskgil_jax")


def plan(options: PlanOptions) -> None:
    """Print the plans of a config, and write them where a file is named.

    Raises:
      InputError: as `make_plans`.
    """
    plans = make_plans(options)
    for one in plans:
        print("\n".join(plan_text.lines(one)))
    if options.output:
        plan_files.write(options.output, plans)
        log.info("wrote %s, and the table and plot beside it", options.output)


def make_plans(options: PlanOptions) -> list[dict[str, Any]]:
    """The plan of a tokenizer or a generator on each topology, all numbers of it, for JSON.

    Nothing but a TPU's compiler runs. Before JAX is imported the environment has to say that no TPU
    is to be looked for (see maskgil_jax/plan.py).

    Raises:
      InputError: a config or a topology that cannot be planned.
    """
    for topology in options.topology:
        if generation_of(topology) not in chips.CHIPS:
            raise InputError(
                f"topology={topology}: expected a TPU of {', '.join(chips.CHIPS)} and its shape, "
                "as v5p:4x4x4, or 2xv5p:4x4x4 for two slices"
            )
    grid = parse_grid(options.grid)
    stages = config_defaults.stages_of(options.config.values)
    if len(stages) != 1 or "codes" in stages:
        raise InputError(f"config: has stages {list(stages)}, expected one tokenizer or generator")
    (config,) = stages.values()
    check_values(config)
    with compiling.announced():
        return [_plan(config, topology, grid, options) for topology in options.topology]


def generation_of(topology: str) -> str:
    """The TPU of a topology, "v5p" of "v5p:4x4x4" and of "2xv5p:4x4x4"."""
    return programs.topology_of(topology).generation


def _plan(
    config: ConfigDict, topology: str, grid: tuple[int, int], options: PlanOptions
) -> dict[str, Any]:
    devices = programs.devices_of(topology)
    if options.batch_per_chip:
        config = _with_batch(config, options.batch_per_chip * len(devices))
    shape = sharding.with_fsdp(config.mesh, config.model.get("dim", 0), devices)
    mesh = sharding.make_mesh(shape, devices)
    log.info("compiling the training step for %s, %d chips", topology, len(devices))
    step = programs.training_step(config, mesh, options.codebook_size, grid)
    plan = {
        "config": options.config.name,
        "topology": topology,
        "steps": config.steps,
        **estimates.estimate(step, generation_of(topology)),
    }
    if "step_seconds" in plan:
        seconds = plan["step_seconds"] * config.steps
        plan["training_days"] = seconds / 86400
        plan["chip_hours"] = seconds / 3600 * len(devices)
    if options.sampler and config.stage == "generator":
        plan["sampler"] = _plan_sampler(config, topology, grid, options.codebook_size)
    return plan


def _plan_sampler(
    config: ConfigDict, topology: str, grid: tuple[int, int], codebook_size: int
) -> dict[str, Any]:
    """The plan of the sampler on as few chips as hold one image, of the batch that it draws there.

    The chips share the weights. The batch is that of config.samples, or what there is memory for,
    as generation/samplers.py finds it.
    """
    devices, chips = slices.split(programs.devices_of(topology), 0)[0], 1
    while True:
        plan = _plan_sampler_on(config, topology, devices[:chips], grid, codebook_size)
        if plan["fits"] or 2 * chips > min(len(devices), config.model.heads):
            return plan
        chips *= 2


def _plan_sampler_on(
    config: ConfigDict,
    topology: str,
    devices: list[Any],
    grid: tuple[int, int],
    codebook_size: int,
) -> dict[str, Any]:
    """The plan of the sampler on these chips; `refused`: the bytes of larger batches, by size."""
    log.info("compiling the sampler for %d chips of %s", len(devices), topology)
    generation = generation_of(topology)
    tried: dict[int, dict[str, Any]] = {}

    def attempt(batch: int) -> None:
        sized = config.copy_and_resolve_references()
        sized.samples.batch_size = batch
        program = programs.sampling(sized, devices, codebook_size, grid)
        plan = tried[batch] = estimates.estimate(program, generation)
        if not plan["fits"]:
            given = sum(map(device_memory.of_argument, jax.tree.leaves(program.arguments)))
            needed, available = plan["bytes_total"] - given, plan["bytes_free"]
            raise TooLarge(f"drawing {batch} images", needed, needed + available)

    with contextlib.suppress(TooLarge):  # the plan says then that not one image fits
        device_memory.largest_batch(attempt, config.samples.batch_size)
    *refused, (_, plan) = tried.items()
    return plan | {"refused": {batch: one["bytes_total"] for batch, one in refused}}


def _with_batch(config: ConfigDict, batch_size: int) -> ConfigDict:
    """The config with another batch, and as many steps as see the same number of images."""
    config = config.copy_and_resolve_references()
    images = config.steps * config.batch_size
    config.batch_size = batch_size
    config.steps = -(-images // batch_size)
    return config


def parse_grid(texts: Sequence[str]) -> tuple[int, int]:
    """`["16", "16"]` as (height, width); InputError where it is something else."""
    if len(texts) != 2 or not all(text.isdecimal() and int(text) for text in texts):
        raise InputError(f"grid={','.join(texts)}: expected HEIGHT,WIDTH in codes, as 16,16")
    return int(texts[0]), int(texts[1])
