"""A run: the stages of a config, one after another, in a work directory."""

import json
import logging
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax.data import sources
from maskgil_jax.evaluation import evaluation
from maskgil_jax.generation import images, pictures, samplers, samples
from maskgil_jax.metrics import reconstruction
from maskgil_jax.pretrained import loading, model_directory, pairs
from maskgil_jax.runtime import leftovers, paths, processes, work_lock
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json, write_json
from maskgil_jax.training import curves, generator_stage, tokenizer_stage
from maskgil_jax.workflows import code_shards, preview
from maskgil_jax.workflows.options import RunOptions

log = logging.getLogger("maskgil_jax")

Made = dict[str, epath.Path]  # what: where


def run_and_print(options: RunOptions) -> None:
    """Run what the options name, and say where everything is."""
    for name, results in run_stages(options.config.values, paths.absolute(options.workdir)).items():
        if results:
            print(f"{name}:")
        for what, path in results.items():
            print(f"  {what:16} {path}")


def run_stages(config: ConfigDict, workdir: epath.Path) -> dict[str, Made]:
    """Run the stages of a config in order; returns what lies where, for each stage.

    With several processes, the first draws the samples and measures; the others get nothing back.
    """
    stages = defaults.stages_of(config)
    # The last stage has the work directory itself, those before it a folder in it.
    last = list(stages)[-1]
    directories = {name: workdir if name == last else workdir / name for name in stages}
    stages = {name: with_workdir(stage, workdir) for name, stage in stages.items()}
    if len(stages) > 1:
        preview.check(stages, directories)
    else:  # which looks at the rest itself before it trains
        defaults.check_values(stages[last])

    made = {}
    with work_lock.held(workdir, "workdir"):
        keep_config(config, workdir)
        for name, stage in stages.items():
            log.info("stage %s in %s", name, directories[name])
            directories[name].mkdir(parents=True, exist_ok=True)
            leftovers.clear(directories[name])
            made[name] = RUNS[name](stage, directories[name])
    return made


def keep_config(config: ConfigDict, workdir: epath.Path) -> None:
    """Write WORKDIR/config.json, or check that the one there says the same.

    Raises:
      InputError: what was trained in the work directory was trained by another config.
    """
    path = workdir / "config.json"
    content = json.loads(config.to_json_best_effort())
    folders = [
        workdir / "checkpoints",
        *(workdir / name / "checkpoints" for name in defaults.STAGES),
    ]
    trained = any(folder.exists() and any(folder.iterdir()) for folder in folders)

    if trained and path.exists():
        lines = defaults.differences(read_json(path, {}), content)
        if lines:
            raise InputError(
                f"workdir={workdir} holds a run of another config; choose another directory, or "
                "go on with the same values:\n  " + "\n  ".join(lines)
            )
    processes.wait("the config is checked")
    if processes.first():
        try:
            write_json(path, content)
        except OSError as error:
            raise InputError(f"workdir={workdir} cannot be written: {error}") from None


def with_workdir(config: ConfigDict, workdir: epath.Path) -> ConfigDict:
    """The config with `{workdir}` filled in."""

    def filled(value: Any) -> Any:
        if isinstance(value, ConfigDict):
            return with_workdir(value, workdir)
        if isinstance(value, tuple):
            return tuple(map(filled, value))
        return value.replace("{workdir}", str(workdir)) if isinstance(value, str) else value

    copy = config.copy_and_resolve_references()
    for key, value in copy.items():
        copy[key] = filled(value)
    return copy


def run_tokenizer(config: ConfigDict, workdir: epath.Path) -> Made:
    """Train a tokenizer, show and measure its reconstructions."""

    settings = config.evaluation
    reference = settings.reference or config.data.source
    source = sources.open_source(reference)
    if settings.reference:
        source.census.announce(reference)
    tokenizer_stage.run(config, workdir)
    tokenizer = loading.load_tokenizer(workdir / "model")
    if not processes.first():
        return {}
    originals, _ = sources.center_crops(
        source, config.data.image_size, settings.count, config.data.color, reference
    )
    reconstructions, codes = images.reconstruct(tokenizer, originals)
    shown = config.samples.count
    pictures.save(
        workdir / "samples" / "reconstructions.png",
        pictures.pairs(originals[:shown], reconstructions[:shown]),
    )
    write_json(
        workdir / "metrics.json",
        {
            "reference": {
                "path": reference,
                "count": len(originals),
            },
            "protocol": "ADM centre crop, uint8 rounded half up, data range 255, mean over images",
            **reconstruction.summary(originals, reconstructions, codes, tokenizer.codebook_size),
        },
    )
    return _common_results(workdir, "tokenizer") | {
        "reconstructions": workdir / "samples" / "reconstructions.png",
        "metrics": workdir / "metrics.json",
    }


def run_codes(config: ConfigDict, workdir: epath.Path) -> Made:
    """Encode images to code shards."""

    code_shards.run(config, workdir)
    return {"code shards": workdir}


def run_generator(config: ConfigDict, workdir: epath.Path) -> Made:
    """Train a generator, draw samples, measure them."""

    wanted = preview.check_evaluation(config)
    shown = generator_stage.run(config, workdir)
    made = {} if not processes.first() else _common_results(workdir, "generator")
    trained_with = model_directory.read_description(workdir / "model")["tokenizer"]
    if not (config.tokenizer or epath.Path(trained_with["path"]).exists()):
        return made
    settings = config.samples
    generator, tokenizer = pairs.load_pair(workdir / "model", config.tokenizer)
    options = samplers.checked_options(settings, generator.network.config)
    if processes.first():
        height, width = generator.grid
        about = dict(seed=config.seed, options=options, data=config.data.to_dict())
        samples.write_samples(
            samplers.sampler(generator, config.seed, shown.conditions, **options),
            tokenizer,
            workdir / "samples",
            settings=samples.settings_of(generator, tokenizer, **about),
            size=(height * tokenizer.downsample, width * tokenizer.downsample),
            labels=shown.labels,
            names=shown.names,
            per_label=config.evaluation.per_class,
            batch_size=settings.batch_size,
        )
        made["samples"] = workdir / "samples"
        made["grid of samples"] = workdir / "samples" / "grid.png"
    processes.wait("samples are drawn")
    if config.evaluation.reference:
        unfinished = workdir / "metrics.unfinished"
        metrics = evaluation.evaluate(
            str(workdir / "samples"), config.evaluation.reference, wanted, unfinished
        )
        if processes.first():
            write_json(workdir / "metrics.json", metrics)
            unfinished.rmtree(missing_ok=True)
            made["metrics"] = workdir / "metrics.json"
    return made


RUNS: dict[str, Callable[[ConfigDict, epath.Path], Made]] = {
    "tokenizer": run_tokenizer,
    "codes": run_codes,
    "generator": run_generator,
}


def _common_results(workdir: epath.Path, name: str) -> Made:

    curves.write({name: workdir}, workdir / "curves.png")
    return {
        "model": workdir / "model",
        "curves": workdir / "curves.png",
        "TensorBoard": workdir / "tensorboard",
        "log": workdir / "training.jsonl",
    }
