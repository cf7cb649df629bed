"""Train: python -m maskgil_jax.main --config=configs/b.py --workdir=DIR [--config.x.y=value].

The same command resumes where WORKDIR stands; where the training is done, it draws and measures
again. Every field of a config, with its meaning and default, stands in maskgil_jax/config.py.
"""

import json
import logging
import os
from collections.abc import Callable
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from maskgil_jax import command, paths
from maskgil_jax import config as defaults
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")

Made = dict[str, epath.Path]  # what: where


def main() -> None:
    """Parse the flags and run."""
    workdir = paths.absolute(command.required("workdir"))
    config = read_config()
    command.in_processes(lambda: print_results(run(config, workdir)))


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Made]:
    """Run the stages of a config in order; returns what lies where, for each stage.

    With several processes, the first draws the samples and measures; the others get nothing back.
    """
    stages = stages_of(config)
    for stage in stages.values():
        defaults.check_counts(stage)
    keep_config(config, workdir)
    made = {}
    for name, stage in stages.items():
        # The last stage has the work directory itself, those before it a folder in it.
        directory = workdir if name == list(stages)[-1] else workdir / name
        log.info("stage %s in %s", name, directory)
        directory.mkdir(parents=True, exist_ok=True)
        made[name] = STAGES[name](with_workdir(stage, workdir), directory)
    return made


def stages_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """The stages of a config in the order of STAGES (a ConfigDict sorts its keys)."""
    parts = config.stages.values() if "stages" in config else [config]
    by_name = {part.stage: part for part in parts}
    if set(by_name) - set(STAGES):
        raise InputError(f"--config: stages {sorted(by_name)}, expected some of {list(STAGES)}")
    return {name: by_name[name] for name in STAGES if name in by_name}


def read_config() -> ConfigDict:
    """The value of --config.

    Raises:
      InputError: no config, or not one of this package.
    """
    if flags.FLAGS.config is None:
        raise InputError("--config is missing (a file such as configs/b.py)")
    config, path = flags.FLAGS.config, config_flags.get_config_filename(flags.FLAGS["config"])
    if not os.path.isfile(path.split(":")[0]):
        raise InputError(f"--config={path}: there is no such file")
    if not isinstance(config, ConfigDict) or not ("stage" in config or "stages" in config):
        raise InputError(
            f"--config={path}: expected a file whose get_config() is built on maskgil_jax.config"
        )
    return config


def keep_config(config: ConfigDict, workdir: epath.Path) -> None:
    """Write WORKDIR/config.json, or check that the one there says the same.

    Raises:
      InputError: what was trained in the work directory was trained by another config.
    """
    path = workdir / "config.json"
    content = json.loads(config.to_json_best_effort())
    folders = [workdir / "checkpoints", *(workdir / name / "checkpoints" for name in STAGES)]
    trained = any(folder.exists() and any(folder.iterdir()) for folder in folders)
    from maskgil_jax import processes
    from maskgil_jax.runtime.files import read_json, write_json

    if trained and path.exists():
        lines = defaults.differences(read_json(path, {}), content)
        if lines:
            raise InputError(
                f"--workdir={workdir} holds a run of another config; choose another directory, or "
                "go on with the same values:\n  " + "\n  ".join(lines)
            )
    processes.wait("the config is checked")
    if processes.first():
        try:
            write_json(path, content)
        except OSError as error:
            raise InputError(f"--workdir={workdir} cannot be written: {error}") from None


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
    from maskgil_jax import api, pictures, processes
    from maskgil_jax.data import sources
    from maskgil_jax.decoding import draw
    from maskgil_jax.metrics import reconstruction
    from maskgil_jax.runtime.files import write_json
    from maskgil_jax.training import tokenizer_stage

    settings = config.evaluation
    source = sources.open_source(settings.reference or config.data.source)
    if settings.reference:
        source.census.announce(settings.reference)
    tokenizer_stage.run(config, workdir)
    tokenizer = api.load_tokenizer(workdir / "model")
    if not processes.first():
        return {}
    originals, _ = sources.center_crops(
        source, config.data.image_size, settings.count, config.data.color
    )
    reconstructions, codes = draw.reconstruct(tokenizer, originals)
    shown = config.samples.count
    pictures.save(
        workdir / "samples" / "reconstructions.png",
        pictures.pairs(originals[:shown], reconstructions[:shown]),
    )
    write_json(
        workdir / "metrics.json",
        {
            "reference": {
                "path": settings.reference or config.data.source,
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
    from maskgil_jax.training import codes_stage

    codes_stage.run(config, workdir)
    return {"code shards": workdir}


def run_generator(config: ConfigDict, workdir: epath.Path) -> Made:
    """Train a generator, draw samples, measure them."""
    from maskgil_jax import api, processes
    from maskgil_jax.decoding import draw
    from maskgil_jax.generation import samples
    from maskgil_jax.metrics import evaluation
    from maskgil_jax.runtime.files import write_json
    from maskgil_jax.training import generator_stage

    wanted = evaluation.Settings(
        metrics=config.evaluation.metrics, inception=config.evaluation.inception
    )
    if config.evaluation.reference:
        evaluation.check(config.evaluation.reference, wanted)
    shown = generator_stage.run(config, workdir)
    made = {} if not processes.first() else _common_results(workdir, "generator")
    generator = api.load_generator(workdir / "model")
    if not (config.tokenizer or epath.Path(generator.tokenizer["path"]).exists()):
        return made
    settings = config.samples
    generator, tokenizer = draw.load_pair(workdir / "model", config.tokenizer)
    options = draw.checked_options(settings, generator.network.config)
    if processes.first():
        height, width = generator.grid
        about = dict(seed=config.seed, options=options, data=config.data.to_dict())
        samples.write_samples(
            draw.sampler(generator, config.seed, shown.conditions, **options),
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


STAGES: dict[str, Callable[[ConfigDict, epath.Path], Made]] = {
    "tokenizer": run_tokenizer,
    "codes": run_codes,
    "generator": run_generator,
}


def _common_results(workdir: epath.Path, name: str) -> Made:
    from maskgil_jax import pictures

    pictures.curves({name: workdir}, workdir / "curves.png")
    return {
        "model": workdir / "model",
        "curves": workdir / "curves.png",
        "TensorBoard": workdir / "tensorboard",
        "log": workdir / "training.jsonl",
    }


def print_results(made: dict[str, Made]) -> None:
    """Say where everything is."""
    for name, results in made.items():
        if results:
            print(f"{name}:")
        for what, path in results.items():
            print(f"  {what:16} {path}")


def define_flags() -> None:
    """The command's flags."""
    config_flags.DEFINE_config_file("config", None, "config file, such as configs/b.py")
    flags.DEFINE_string("workdir", None, "directory for checkpoints, model, samples, metrics")
    command.define_process_flags()


if __name__ == "__main__":
    define_flags()
    command.run(main)
