"""All of a study is checked before any of it is trained."""

import json
from collections.abc import Mapping
from typing import Any

from maskgil_jax.data import sources
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.evaluation import evaluation
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.generation import samplers
from maskgil_jax.pretrained import companions, networks
from maskgil_jax.pretrained.generators import make_generator
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json
from maskgil_jax.training.config_changes import differences
from maskgil_jax.workflows import preview
from maskgil_jax.workflows.scaling_study import check_codes
from maskgil_jax.workflows.study_plan import Cell, Plan
from maskgil_jax.workflows.trained_runs import Run

CONFIG = "study_config.json"  # of a study, in its work directory
Networks = Mapping[str, Any]  # the config of the network of each run that trains one


def check(plan: Plan, only: str = "") -> Networks:
    """Check all runs and cells of a study; returns the networks of its runs.

    Args:
      plan: of the study.
      only: name of the one cell that is to be done, or "".

    Raises:
      InputError: what a run or a cell names does not fit together, is not there, or was not kept;
        or the work directory holds another study.
    """
    check_workdir(plan)
    if only and only not in plan.cells:
        some = ", ".join([*plan.cells][:6])
        raise InputError(f"only={only}: there is no such cell, expected one of {some}, ...")
    known: dict[str, Any] = {}
    check_measuring(plan)
    for cell in plan.cells.values():
        try:
            _check_cell(plan, cell, known)
        except InputError as error:
            raise InputError(f"cell {cell.name}: {error}") from None
    return known


def check_measuring(plan: Plan) -> None:
    """Raise InputError unless what cells are compared with is there."""
    measure = plan.config.measure
    if not measure.reference:
        raise InputError("config.measure.reference: expected images to compare with")
    if any(run.config.stage == "generator" for run in plan.runs.values()):
        evaluation.check(measure.reference, settings_of(plan))
    else:
        sources.open_source(measure.reference)
    for run in plan.runs.values():
        if run.config.stage == "codes":
            sources.open_source(run.config.source)


def check_workdir(plan: Plan) -> None:
    """Raise InputError where the work directory holds another study."""
    if (plan.workdir / "config.json").exists():
        raise InputError(f"workdir={plan.workdir} holds a run: expected a directory for a study")
    path = plan.workdir / CONFIG
    if not path.exists():
        return
    theirs, ours = read_json(path, {}), as_json(plan)
    if lines := differences(theirs, ours):
        raise InputError(
            f"workdir={plan.workdir} holds another study; choose another one (runs=DIR shares the "
            "runs), or the same values:\n  " + "\n  ".join(lines)
        )


def as_json(plan: Plan) -> dict[str, Any]:
    """The config of a study, as its work directory keeps it."""
    content: dict[str, Any] = json.loads(plan.config.to_json_best_effort())
    return content


def _check_cell(plan: Plan, cell: Cell, known: dict[str, Any]) -> None:
    """Check the runs of a cell, as far as they were not yet, and how it is measured."""
    stages = plan.stages_of(cell)
    if any(run.name not in known for run in stages.values()):
        outputs = preview.check(
            {name: run.config for name, run in stages.items()},
            {name: run.directory for name, run in stages.items()},
        )
        for run in stages.values():
            run.check_directory()
            known[run.name] = outputs.get(str(run.directory / "model"))
    last = list(stages.values())[-1]
    check_kept(last, cell.step)
    if last.config.stage == "tokenizer":
        if cell.decoding:
            raise InputError(f"{', '.join(cell.decoding)} of a tokenizer: it is not drawn with")
        return
    check_tokenizer(stages)
    if cell.codes.startswith("arrayrecord:") and "codes" not in stages:
        check_codes(last.config, CodeShards(cell.codes.partition(":")[2]))
    network = networks.shapes_of(known[last.name], "config.model")
    # A model of the prefix that is there has a tokenizer that no run here has yet.
    tokenizer = {} if cell.decoding.get("prefix_model") else {"fingerprint": cell.runs[0]}
    generator = make_generator(network, tokenizer)
    samplers.from_options(generator, cell.decoding, plan.config.measure.seed)


def check_tokenizer(stages: Mapping[str, Run]) -> None:
    """Raise InputError where the codes of a generator cannot become images."""
    if "tokenizer" in stages:
        return
    config = stages["generator"].config
    directory = config.tokenizer
    if "codes" in stages:
        directory = directory or stages["codes"].config.tokenizer
    elif not directory and config.data.source.startswith("arrayrecord:"):
        place = paths.absolute(config.data.source.partition(":")[2])
        directory = companions.located(place, CodeShards(str(place)).index.tokenizer)["path"]
    preview.check_directory("config.tokenizer", directory, "vq")


def settings_of(plan: Plan) -> Settings:
    """How generators are measured."""
    measure = plan.config.measure
    return Settings(
        metrics=tuple(measure.metrics),
        protocol=measure.protocol,
        inception=measure.inception,
        lpips=measure.lpips,
        clip=measure.clip,
        network=measure.features,
    )


def model_of(run: Run, step: int) -> str:
    """What `load` takes for the model of a run after a step."""
    return f"{run.directory}/model" if step == run.config.steps else f"{run.directory}@{step}"


def check_kept(run: Run, step: int) -> None:
    """Raise InputError where a run is past a step, and has no checkpoint of it."""
    if step == run.config.steps or run.steps_done < step:
        return
    if not (run.directory / "checkpoints" / str(step)).exists():
        raise InputError(
            f"{run.directory} is at step {run.steps_done} and has kept no checkpoint of step "
            f"{step}: measure other steps, remove the run, or choose another directory of runs"
        )
