"""What a config needs on TPU topologies: options to a list of plans, one for each topology."""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from maskgil_jax import config as config_defaults
from maskgil_jax.models.token_models import layers
from maskgil_jax.planning import chips, estimates, plan_files, plan_text, programs, search
from maskgil_jax.planning.compilation import Compiler
from maskgil_jax.planning.options import PlanOptions
from maskgil_jax.runtime import compiler_options, compiling, device_memory, sharding, slices
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
    compiler = Compiler(options.cache)
    base = search.Setting(
        config.compiler_options, options.batch_per_chip, config.mesh.fsdp, _remat(config)
    )
    for topology in options.topology:
        compiler_options.check(programs.devices_of(topology)[:1], config.compiler_options)
    with compiling.announced():
        planner = [
            _Planner(config, topology, grid, options, compiler) for topology in options.topology
        ]
        return [one.plan(base) for one in planner]


def generation_of(topology: str) -> str:
    """The TPU of a topology, "v5p" of "v5p:4x4x4" and of "2xv5p:4x4x4"."""
    return programs.topology_of(topology).generation


def _remat(config: ConfigDict) -> str:
    """What is recomputed; "" where the config's network knows no such thing."""
    return str(config.model.get("remat", ""))


@dataclasses.dataclass(frozen=True)
class _Planner:
    """The plans of a config on one topology."""

    config: ConfigDict
    topology: str
    grid: tuple[int, int]
    options: PlanOptions
    compiler: Compiler

    def plan(self, setting: search.Setting) -> dict[str, Any]:
        """The plan of the training step, with what else the options ask for."""
        found: list[tuple[search.Setting, search.Plan]] = []
        if self.options.search:
            found = self._search(setting)
            setting = found[0][0]
        plan = self.training(setting, self.options.calibrate)
        if found:
            plan["search"] = [_summary(one, tried) for one, tried in found]
        if self.options.recipe and plan["batch_size"] != self.config.batch_size:
            plan["recipe"] = self._recipe(setting)
        if self.options.sampler and self.config.stage == "generator":
            plan["sampler"] = _plan_sampler(self)
        return plan

    def training(self, setting: search.Setting, calibrated: bool = False) -> dict[str, Any]:
        """The plan of the training step in a setting."""
        devices = programs.devices_of(self.topology)
        config = _with(self.config, setting, len(devices))
        shape = sharding.with_fsdp(config.mesh, config.model.get("dim", 0), devices)
        mesh = sharding.make_mesh(shape, devices)
        log.info("the training step for %s, %d chips: %s", self.topology, len(devices), setting)
        step = programs.training_step(config, mesh, self.options.codebook_size, self.grid)
        plan = {
            "config": self.options.config.name,
            "topology": self.topology,
            "steps": config.steps,
            "remat": setting.remat,
            **estimates.estimate(step, generation_of(self.topology), self.compiler, calibrated),
        }
        if "step_seconds" in plan:
            seconds = plan["step_seconds"] * config.steps
            plan["training_days"] = seconds / 86400
            plan["chip_hours"] = seconds / 3600 * len(devices)
        return plan

    def _recipe(self, setting: search.Setting) -> dict[str, Any]:
        """The plan of the config's own batch, or why there is none."""
        try:
            return self.training(dataclasses.replace(setting, batch_per_chip=0))
        except InputError as error:
            return {"refused": str(error)}

    def _search(self, start: search.Setting) -> list[tuple[search.Setting, search.Plan]]:
        """What was tried from a setting on."""
        devices = len(slices.split(programs.devices_of(self.topology), 0)[0])
        given = start.compiler_options
        choices: dict[str, Sequence[Any]] = {
            "compiler_options": [
                ",".join(filter(None, (given, more))) for more in search.COMPILER_OPTIONS
            ],
            "fsdp": [size for size in (1, 4, 16, 64, 256) if devices % size == 0],
            "remat": list(layers.REMAT) if start.remat else [],
        }
        if not start.batch_per_chip:
            start = dataclasses.replace(start, batch_per_chip=8)
            choices["batch_per_chip"] = [1, 2, 4, 16, 32, 64, 128]
        goes_on = lambda: self.compiler.compiled < self.options.search_compiles  # noqa: E731
        return search.search(start, choices, self.training, goes_on)


def _summary(setting: search.Setting, plan: search.Plan) -> dict[str, Any]:
    """A setting and what became of it, for JSON."""
    numbers = ("fits", "bytes_total", "step_seconds", "mfu", "images_per_second")
    return dataclasses.asdict(setting) | {name: plan[name] for name in numbers if name in plan}


def _plan_sampler(planner: _Planner) -> dict[str, Any]:
    """The plan of the sampler on as few chips as hold one image, of the batch that it draws there.

    The chips share the weights. The batch is that of config.samples, or what there is memory for,
    as generation/samplers.py finds it.
    """
    devices, chips = slices.split(programs.devices_of(planner.topology), 0)[0], 1
    while True:
        plan = _plan_sampler_on(planner, devices[:chips])
        if plan["fits"] or 2 * chips > min(len(devices), planner.config.model.heads):
            return plan
        chips *= 2


def _plan_sampler_on(planner: _Planner, devices: list[Any]) -> dict[str, Any]:
    """The plan of the sampler on these chips; `refused`: the bytes of larger batches, by size."""
    log.info("compiling the sampler for %d chips of %s", len(devices), planner.topology)
    config, generation = planner.config, generation_of(planner.topology)
    tried: dict[int, dict[str, Any]] = {}

    def attempt(batch: int) -> None:
        sized = config.copy_and_resolve_references()
        sized.samples.batch_size = batch
        program = programs.sampling(sized, devices, planner.options.codebook_size, planner.grid)
        plan = tried[batch] = estimates.estimate(program, generation, planner.compiler)
        if not plan["fits"]:
            given = sum(map(device_memory.of_argument, jax.tree.leaves(program.arguments)))
            needed, available = plan["bytes_total"] - given, plan["bytes_free"]
            raise TooLarge(f"drawing {batch} images", needed, needed + available)

    with contextlib.suppress(TooLarge):  # the plan says then that not one image fits
        device_memory.largest_batch(attempt, config.samples.batch_size)
    *refused, (_, plan) = tried.items()
    return plan | {"refused": {batch: one["bytes_total"] for batch, one in refused}}


def _with(config: ConfigDict, setting: search.Setting, devices: int) -> ConfigDict:
    """The config in a setting; of another batch as many steps as see the same number of images."""
    config = config.copy_and_resolve_references()
    if setting.batch_per_chip:
        images = config.steps * config.batch_size
        config.batch_size = setting.batch_per_chip * devices
        config.steps = -(-images // config.batch_size)
    config.compiler_options = setting.compiler_options
    if setting.fsdp != config.mesh.fsdp:
        config.mesh.update(data=-1, fsdp=setting.fsdp)
    if setting.remat:
        config.model.remat = setting.remat
    return config


def parse_grid(texts: Sequence[str]) -> tuple[int, int]:
    """`["16", "16"]` as (height, width); InputError where it is something else."""
    if len(texts) != 2 or not all(text.isdecimal() and int(text) for text in texts):
        raise InputError(f"grid={','.join(texts)}: expected HEIGHT,WIDTH in codes, as 16,16")
    return int(texts[0]), int(texts[1])
