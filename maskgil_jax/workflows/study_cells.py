"""A cell of a study: its model is measured once, and becomes a row of the table."""

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.evaluation import evaluation, requests
from maskgil_jax.evaluation.likelihood import spread_records, validation
from maskgil_jax.evaluation.options import Generating
from maskgil_jax.generation.options import Companions, Decoding
from maskgil_jax.pretrained import networks
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.files import read_json
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import measured_images, sweep_panel, tokenizer_comparison
from maskgil_jax.workflows.options import ReconstructOptions
from maskgil_jax.workflows.study_checks import Networks, model_of, settings_of
from maskgil_jax.workflows.study_costs import flops_of, seconds_per_step
from maskgil_jax.workflows.study_plan import Cell, Plan
from maskgil_jax.workflows.trained_runs import Run


def is_measured(plan: Plan, cell: Cell) -> bool:
    """Whether all that is measured of a cell is there."""
    if of_tokenizer(plan, cell):
        return (_folder(plan, cell) / "tokenizers.json").exists()
    return all(
        path.exists() for path in measured_images.files_of(plan.workdir / "cells", cell.name)
    )


def measure(plan: Plan, cell: Cell) -> None:
    """Measure the model of a cell; with several processes all of them call this.

    Raises:
      InputError: what cannot be measured, or not in this way.
    """
    if of_tokenizer(plan, cell):
        _measure_tokenizer(plan, cell)
    else:
        _measure_generator(plan, cell)


def of_tokenizer(plan: Plan, cell: Cell) -> bool:
    """Whether the last run of a cell trains a tokenizer, whose reconstructions are measured."""
    return bool(plan.runs[cell.runs[-1]].config.stage == "tokenizer")


def _folder(plan: Plan, cell: Cell) -> epath.Path:
    return measured_images.files_of(plan.workdir / "cells", cell.name)[0].with_suffix("")


def _measure_tokenizer(plan: Plan, cell: Cell) -> None:
    run, measure_ = plan.runs[cell.runs[-1]], plan.config.measure
    tokenizer_comparison.compare(
        ReconstructOptions(
            tokenizers=(model_of(run, cell.step),),
            data=measure_.reference,
            output=str(_folder(plan, cell)),
            image_size=run.config.data.image_size,
            count=measure_.num,
            batch_size=measure_.batch_size,
            lpips=measure_.lpips,
            inception=measure_.inception,
            processes=Processes(),
        )
    )


def _measure_generator(plan: Plan, cell: Cell) -> None:
    stages, measure_ = plan.stages_of(cell), plan.config.measure
    run = stages["generator"]
    tokenizer = run.config.tokenizer
    if "tokenizer" in stages:
        tokenizer = f"{stages['tokenizer'].directory}/model"
    generating = Generating(
        batch_size=measure_.batch_size,
        seed=measure_.seed,
        companions=Companions(tokenizer=tokenizer),
        decoding=Decoding(**cell.decoding),
    )
    path = model_of(run, cell.step)
    models = requests.load_models(path, generating)
    request, about = requests.read_request(models.generator, generating)
    images = requests.generated_images(models, request, about, measure_.num, generating, path)
    evaluator, reference = evaluation.evaluator_against(
        measure_.reference, images, settings_of(plan), plan.workdir / "unfinished"
    )
    measured_images.measured(
        cell.name,
        plan.workdir / "cells",
        images,
        sweep_panel.ROWS,
        evaluator,
        reference,
        lambda: _likelihood(plan, cell, models.generator),
    )


def _likelihood(plan: Plan, cell: Cell, generator: Generator) -> dict[str, float]:
    """Of codes that nothing is trained on; nothing where there are none, or of a hybrid."""
    measure_ = plan.config.measure
    if not cell.codes or cell.decoding.get("method") == "hybrid":
        return {}
    if cell.decoding.get("method") == "autoregressive" and generator.kind == "masked":
        generator = generator.as_causal()
    place = cell.codes.partition(":")[2]
    shards = CodeShards(place or str(plan.runs[cell.codes].directory))
    records = spread_records(shards, measure_.num)
    values = validation(generator, records, measure_.batch_size, measure_.seed)
    return dict(zip(("validation_loss", "validation_accuracy"), values, strict=True))


def row_of(plan: Plan, cell: Cell, known: Networks) -> tuple[dict[str, Any], dict[str, Any]]:
    """A measured cell's row of the table, and what its file says.

    Raises:
      InputError: its file is damaged.
    """
    run = plan.runs[cell.runs[-1]]
    row = {**cell.values, **_facts(plan, cell, run, known)}
    if of_tokenizer(plan, cell):
        content = read_json(_folder(plan, cell) / "tokenizers.json", {"tokenizers": list})
        row |= {k: v for k, v in content["tokenizers"][0].items() if k != "tokenizer"}
        return row, content
    path, _ = measured_images.files_of(plan.workdir / "cells", cell.name)
    content = measured_images.read_measured(path)
    beside = ("validation_loss", "validation_accuracy", "seconds_per_image")
    row |= content["metrics"] | {name: content[name] for name in beside if name in content}
    return row, content


def _facts(plan: Plan, cell: Cell, run: Run, known: Networks) -> dict[str, Any]:
    """What is known of a cell's model without measuring it."""
    shapes = networks.shapes_of(known[run.name], "config.model")
    flops, seconds = flops_of(run, known[run.name]), seconds_per_step(run)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    facts: dict[str, Any] = {"step": cell.step, "parameters": parameters}
    if flops:
        facts["training_flops"] = flops * cell.step / run.config.steps
    if seconds:
        facts["training_seconds"] = seconds * cell.step
    before = [line for line in read_log(run.directory) if line["step"] <= cell.step]
    last: Mapping[str, Any] = before[-1] if before else {}
    return facts | {name: last[name] for name in plan.config.measure.logged if name in last}
