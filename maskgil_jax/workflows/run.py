"""A run: the stages of a config, one after another, in a work directory."""

import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax.data import sources
from maskgil_jax.evaluation import evaluation
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.generation import images, pictures, placing, samplers, samples
from maskgil_jax.metrics import reconstruction
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime import (
    compilation_cache,
    config_files,
    leftovers,
    paths,
    processes,
    work_lock,
)
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json, write_json
from maskgil_jax.training import curves, generator_stage, tokenizer_stage
from maskgil_jax.training.config_changes import differences
from maskgil_jax.training.generator_samples import SampleConditions
from maskgil_jax.training.value_limits import check_values
from maskgil_jax.workflows import code_shards, preview
from maskgil_jax.workflows.options import RunOptions

log = logging.getLogger("maskgil_jax")

Results = dict[str, epath.Path]  # what a stage leaves, and where


def run_and_print(options: RunOptions) -> None:
    """Run what the options name, and say where everything is; or print the config."""
    if options.print_config:
        print(described(options.config.values, options.workdir))
        return
    for name, results in run_stages(options.config.values, paths.absolute(options.workdir)).items():
        if results:
            print(f"{name}:")
        for what, path in results.items():
            print(f"  {what:16} {path}")


def described(config: ConfigDict, workdir: str) -> str:
    """Every field of the stages of a config in their order, a line each, as a run would have them.

    Args:
      config: with one stage or several.
      workdir: that is filled in; "": `{workdir}` stays.
    """
    lines: list[str] = []
    keys = {stage.stage: key for key, stage in config.get("stages", {}).items()}
    for name, stage in defaults.stages_of(config).items():
        filled = with_workdir(stage, paths.absolute(workdir)) if workdir else stage
        prefix = f"config.stages.{keys[name]}." if keys else "config."
        lines += config_files.fields(filled, prefix)
    return "\n".join(lines)


def run_stages(config: ConfigDict, workdir: epath.Path) -> dict[str, Results]:
    """Run the stages of a config in order; returns the results of each stage.

    With several processes, the first generates the samples and measures; the others get no results.
    """
    stages = defaults.stages_of(config)
    # The last stage has the work directory itself, those before it a folder in it.
    last = list(stages)[-1]
    directories = {name: workdir if name == last else workdir / name for name in stages}
    stages = {name: with_workdir(stage, workdir) for name, stage in stages.items()}
    if len(stages) > 1:
        preview.check(stages, directories)
    else:  # which looks at the rest itself before it trains
        check_values(stages[last])

    results = {}
    with work_lock.held(workdir, "workdir"):
        keep_config(config, workdir)
        for name, stage in stages.items():
            log.info("stage %s in %s", name, directories[name])
            directories[name].mkdir(parents=True, exist_ok=True)
            leftovers.clear(directories[name])
            with compilation_cache.kept(stage.compilation_cache):
                results[name] = RUNS[name](stage, directories[name])
    return results


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
        lines = differences(read_json(path, {}), content)
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
    return with_texts(config, lambda text: text.replace("{workdir}", str(workdir)))


def with_texts(config: ConfigDict, changed: Callable[[str], str]) -> ConfigDict:
    """A copy of the config in which each text, in tuples too, is what `changed` makes of it."""

    def filled(value: Any) -> Any:
        if isinstance(value, ConfigDict):
            return with_texts(value, changed)
        if isinstance(value, tuple):
            return tuple(map(filled, value))
        return changed(value) if isinstance(value, str) else value

    copy = config.copy_and_resolve_references()
    for key, value in copy.items():
        copy[key] = filled(value)
    return copy


def run_tokenizer(config: ConfigDict, workdir: epath.Path) -> Results:
    """Train a tokenizer, picture and measure its reconstructions."""
    reference = config.evaluation.reference or config.data.source
    source = sources.open_source(reference)
    if config.evaluation.reference:
        source.census.announce(reference)
    tokenizer_stage.run(config, workdir)
    tokenizer = loading.load_tokenizer(workdir / "model")
    if not processes.first():
        return {}
    originals, _ = sources.center_crops(
        source, config.data.image_size, config.evaluation.count, config.data.color, reference
    )
    return training_results(workdir, "tokenizer") | reconstruct(
        tokenizer, originals, reference, config.samples.count, workdir
    )


def reconstruct(
    tokenizer: loading.Tokenizer,
    originals: np.ndarray,
    reference: str,
    pictured: int,
    workdir: epath.Path,
) -> Results:
    """Write a picture of the first reconstructions, and the metrics of all of them.

    Args:
      tokenizer: reconstructs.
      originals: uint8 [N, H, W, 3].
      reference: where they come from.
      pictured: images in the picture.
      workdir: of the tokenizer.
    """
    reconstructions, codes = images.reconstruct(tokenizer, originals)
    picture, metrics = workdir / "samples" / "reconstructions.png", workdir / "metrics.json"
    pictures.save(picture, pictures.pairs(originals[:pictured], reconstructions[:pictured]))
    content = {
        "reference": {"path": reference, "count": len(originals)},
        "protocol": "ADM centre crop, uint8 rounded half up, data range 255, mean over images",
        **reconstruction.summary(originals, reconstructions, codes, tokenizer.codebook_size),
    }
    write_json(metrics, content)
    return {"reconstructions": picture, "metrics": metrics}


def run_codes(config: ConfigDict, workdir: epath.Path) -> Results:
    """Encode images to code shards."""
    code_shards.run(config, workdir)
    return {"code shards": workdir}


def run_generator(config: ConfigDict, workdir: epath.Path) -> Results:
    """Train a generator, generate samples, measure them; without a tokenizer only train."""
    settings = preview.check_evaluation(config)
    conditions = generator_stage.run(config, workdir)
    results = training_results(workdir, "generator") if processes.first() else {}
    if not has_tokenizer(config, workdir):
        return results
    results |= generate_samples(config, conditions, workdir)
    if config.evaluation.reference:
        results |= measure_samples(config.evaluation.reference, settings, workdir)
    return results


def has_tokenizer(config: ConfigDict, workdir: epath.Path) -> bool:
    """Whether the trained generator's codes can become images."""
    trained_with = loading.generator_without_weights(workdir / "model").tokenizer
    return bool(config.tokenizer) or epath.Path(trained_with["path"]).exists()


def generate_samples(
    config: ConfigDict, conditions: SampleConditions, workdir: epath.Path
) -> Results:
    """Write WORKDIR/samples; with several processes all of them draw, and call this.

    Args:
      config: of the generator.
      conditions: that samples are of.
      workdir: with the trained model.

    Raises:
      InputError: a tokenizer or options that do not fit the generator.
    """
    generator, tokenizer = loading.load_pair(workdir / "model", config.tokenizer)
    options = samplers.checked_options(config.samples, generator.network.config)
    count, per_label = len(conditions.labels), config.evaluation.per_class
    devices = placing.devices_for(count * per_label, config.samples.batch_size)
    sampler = samplers.sampler(
        devices.placed(generator),
        config.seed,
        devices.split(conditions.conditions),
        devices=devices.count,
        **options,
    )
    height, width = generator.grid
    about = dict(seed=config.seed, options=options, data=config.data.to_dict())
    samples.write_samples(
        sampler,
        devices.placed(tokenizer),
        workdir / "samples",
        settings=samples.settings_of(generator, tokenizer, **about),
        size=(height * tokenizer.downsample, width * tokenizer.downsample),
        labels=conditions.labels,
        names=conditions.names,
        per_label=per_label,
        devices=devices,
    )
    if not processes.first():
        return {}
    return {"samples": workdir / "samples", "grid of samples": workdir / "samples" / "grid.png"}


def measure_samples(reference: str, settings: Settings, workdir: epath.Path) -> Results:
    """Write WORKDIR/metrics.json; with several processes all of them call this."""
    metrics, unfinished = workdir / "metrics.json", workdir / "metrics.unfinished"
    content = evaluation.evaluate(str(workdir / "samples"), reference, settings, unfinished)
    if not processes.first():
        return {}
    write_json(metrics, content)
    unfinished.rmtree(missing_ok=True)
    return {"metrics": metrics}


RUNS: dict[str, Callable[[ConfigDict, epath.Path], Results]] = {
    "tokenizer": run_tokenizer,
    "codes": run_codes,
    "generator": run_generator,
}


def training_results(workdir: epath.Path, name: str) -> Results:
    """What training leaves, and its curves, which are plotted here."""
    curves.write({name: workdir}, workdir / "curves.png")
    return {
        "model": workdir / "model",
        "curves": workdir / "curves.png",
        "TensorBoard": workdir / "tensorboard",
        "log": workdir / "training.jsonl",
    }
