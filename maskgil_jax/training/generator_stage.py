"""Stage 2: train a token model to predict masked codes."""

from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.generation import samplers
from maskgil_jax.models.token_models.conditions import TokenModel
from maskgil_jax.pretrained import presets
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import (
    distillation,
    generator_data,
    generator_samples,
    generator_start,
    generator_step,
    loop,
    objectives,
    one_step,
    traced_once,
)
from maskgil_jax.training.common_checks import check_common
from maskgil_jax.training.generator_data import GeneratorData
from maskgil_jax.training.generator_samples import SampleConditions
from maskgil_jax.training.train_state import TrainState


def run(config: ConfigDict, workdir: epath.Path) -> SampleConditions:
    """Train as `config` says; the generator ends up in WORKDIR/model.

    Returns:
      The conditions that samples of it are drawn of.

    Raises:
      InputError: what the config names does not fit together, which is noticed before training
        starts; and as loop.open_run and loop.train.
    """
    data = generator_data.open_data(config)
    mesh, network, options = check(config, data.description(source_name(config)))
    conditions = generator_samples.choose_conditions(data, config.model, config.samples.classes)
    start_from = generator_start.load_start(
        config.start_from.generator, network, data.provenance, data.conditioning.provenance
    )
    teacher = None
    if distillation.is_wanted(config):
        teacher = distillation.teacher_of(config, start_from, options)
    frozen = generator_step.Frozen(data.in_step, data.conditioning.network, teacher)
    settings = traced_once.settings(config)
    of_step = one_step if one_step.is_wanted(config) else generator_step
    init = traced_once.partial(of_step.init, settings, network)
    step = traced_once.partial(of_step.step, config=settings)
    flops = of_step.model_flops(config, network)

    def describe(state: TrainState) -> dict[str, Any]:
        return trained(data, state, config).description

    opened = loop.open_run(init, start_from, data.dataset, config, workdir, mesh, describe)
    with opened as (run, state):
        steps = loop.train(run, state, step, frozen, flops)
        for number, state in steps:
            pictures = generator_samples.sample_pictures(
                data, averaged(state), conditions, config, options
            )
            run.writer.pictures(number, pictures)
    trained(data, state, config).save(workdir / "model")
    return conditions


def trained(data: GeneratorData, state: TrainState, config: ConfigDict) -> Generator:
    """The generator that a state holds."""
    generator = generator_samples.generator_of(data, averaged(state))
    if distillation.is_wanted(config):
        generator.decoding = distillation.DECODING
    if one_step.is_wanted(config):
        generator.decoding = distillation.DECODING | one_step.decoding(config)
    return generator


def averaged(state: TrainState) -> TokenModel:
    """The weights to keep: the averaged ones where there are any."""
    if state.ema is not None:
        return state.ema
    return state.model[one_step.STUDENT] if isinstance(state.model, dict) else state.model


def source_name(config: ConfigDict) -> str:
    """How messages call the data that `config` names."""
    return f"data source {config.data.source or config.data.mixture!r}"


def check(
    config: ConfigDict, data: generator_data.CodesDescription
) -> tuple[jax.sharding.Mesh, Any, dict[str, Any]]:
    """What `config` describes, over these codes, without a look at them.

    Returns:
      The mesh, the network's config, and the options that samples are drawn with.

    Raises:
      InputError: fields that do not fit together, the codes, or this machine.
    """
    mesh = check_common(config)
    by_class, count = presets.of_classes(config.model), len(data.class_names)
    if presets.is_unconditional(config.model):
        _check_unconditional(config, count)
    if by_class and count != config.model.num_classes:
        raise InputError(
            f"{data.source} has {count} classes, but config.model.num_classes = "
            f"{config.model.num_classes}; if the data is right, set "
            f"--config.model.num_classes={count}"
        )
    network = presets.network_config(config.model, data.codebook_size, data.grid, config.loss)
    if len(data.grids) > 1 and not network.fits_any_grid:
        raise InputError(
            f"config.model.preset = {config.model.preset} has positions of one grid, but the data "
            f"has {len(data.grids)} (buckets): expected a LLaMA with 2D RoPE (paper, llamagen)"
        )
    if not network.causal and config.loss.mask_schedule not in objectives.MASK_RATIOS:
        raise InputError(
            f"config.loss.mask_schedule = {config.loss.mask_schedule!r}, expected one of "
            f"{sorted(objectives.MASK_RATIOS)}"
        )
    if not network.causal and config.loss.split not in objectives.SPLITS:
        raise InputError(
            f"config.loss.split = {config.loss.split!r}, expected one of "
            f"{sorted(objectives.SPLITS)}"
        )
    if not by_class and config.evaluation.reference and "accuracy" in config.evaluation.metrics:
        raise InputError(
            "config.evaluation.metrics has accuracy, which is of classes, but the condition is no "
            "class: expected others"
        )
    options = samplers.checked_options(config.samples, network)
    if distillation.is_wanted(config):
        distillation.check(config, network, options)
    if one_step.is_wanted(config):
        one_step.check(config)
        options |= one_step.decoding(config)
    if not network.has_null_condition and config.loss.condition_dropout:
        raise InputError(
            f"config.loss.condition_dropout = {config.loss.condition_dropout}, but preset "
            f"{config.model.preset} has no null condition: expected 0"
        )
    return mesh, network, options


def _check_unconditional(config: ConfigDict, classes: int) -> None:
    """Raise InputError where a generator without condition would be guided by it, or drop it."""
    no_guidance = 0.0 if config.samples.get("guidance_form") == "weight" else 1.0
    expected = {"samples.guidance": no_guidance, "loss.condition_dropout": 0.0}
    given = {
        "samples.guidance": config.samples.guidance,
        "loss.condition_dropout": config.loss.condition_dropout,
    }
    if wrong := [name for name, value in given.items() if value != expected[name]]:
        raise InputError(
            "config.model.num_classes = 0 trains without a condition, by which nothing is guided, "
            "and of which nothing is dropped: set "
            + " and ".join(f"--config.{name}={expected[name]:g}" for name in wrong)
            + f" (or, for the {classes} classes of the data, --config.model.num_classes={classes})"
        )
