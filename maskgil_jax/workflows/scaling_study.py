"""A scaling study: generators of several sizes, each trained for several numbers of steps."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax.data.shards.shard_index import Index
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.evaluation.likelihood import spread_records, validation
from maskgil_jax.models.token_models import flops
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.pretrained import networks, presets
from maskgil_jax.pretrained.loading import load_generator
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.value_limits import check_values
from maskgil_jax.workflows import scaling_laws, scaling_tables
from maskgil_jax.workflows.options import ScalingOptions
from maskgil_jax.workflows.trained_runs import Run

log = logging.getLogger("maskgil_jax")


def study(options: ScalingOptions) -> None:
    """Check everything, train what is missing, measure, fit the laws, write and print them.

    Raises:
      InputError: sizes, steps, codes or plans that do not fit, or a directory of other runs.
    """
    config = checked_config(options.config.values)
    workdir = paths.absolute(options.workdir)
    runs = [
        planned_run(config, size, steps, workdir)
        for steps in parse_steps(options.steps)
        for size in parse_sizes(options.sizes)
    ]
    shards = CodeShards(options.codes)
    check_codes(config, shards)
    rows = [facts_of(run, shards.index) for run in runs]
    scaling_laws.check_points(scaling_tables.columns(rows, ("parameters", "tokens")))
    plans = [plan for path in options.plans for plan in scaling_tables.read_plans(path)]
    for run in runs:
        run.check_directory()
    records = spread_records(shards, options.num)
    for run, row in zip(runs, rows, strict=True):
        run.train()
        row["validation_loss"], row["validation_accuracy"] = validation(
            load_generator(run.directory / "model"), records, options.batch_size, options.seed
        )
        log.info("%s: validation loss %.4f", run.name, row["validation_loss"])
    scaling_tables.write_study(
        rows,
        plans,
        options.output,
        validation=f"{len(records)} images of {options.codes}, spread evenly, first view",
        seed=options.seed,
    )
    print((epath.Path(options.output) / "scaling.md").read_text(), end="")
    log.info("wrote tables and plot to %s", options.output)


def checked_config(config: ConfigDict) -> ConfigDict:
    """The config of the one generator that is to be trained on code shards.

    Raises:
      InputError: it describes something else.
    """
    stages = defaults.stages_of(config)
    if list(stages) != ["generator"]:
        raise InputError(f"config: has stages {list(stages)}, expected one generator")
    config = stages["generator"]
    check_values(config)
    if not config.data.source.startswith("arrayrecord:") or config.model.feature_dim:
        raise InputError(
            f"config.data.source = {config.data.source!r} and config.model.feature_dim = "
            f"{config.model.feature_dim}, expected arrayrecord:DIR (maskgil_jax.tokenize makes "
            "one) and 0 (conditioned on the class)"
        )
    return config


def parse_steps(texts: Sequence[str]) -> list[int]:
    """`["200", "400"]` as numbers, each once, in order."""
    if not texts or not all(text.isdecimal() and int(text) for text in texts):
        raise InputError(f"steps={','.join(texts)}: expected numbers, as 200,400,800")
    return sorted({int(text) for text in texts})


def parse_sizes(texts: Sequence[str]) -> list[tuple[int, int]]:
    """`["2x64", "4x128"]` as layers and widths, each once, in order."""
    sizes = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text) for text in texts]
    if not texts or not all(sizes):
        raise InputError(f"sizes={','.join(texts)}: expected LAYERSxWIDTH, as 2x64,4x128")
    return sorted({(int(size[1]), int(size[2])) for size in sizes if size})


def planned_run(config: ConfigDict, size: tuple[int, int], steps: int, workdir: epath.Path) -> Run:
    """A run of this size: the config with other layers and width, and heads as wide as its own."""
    layers, width = size
    head_width = config.model.dim // config.model.heads
    if width % head_width:
        raise InputError(
            f"sizes={layers}x{width}: expected a width that is a multiple of {head_width}, the "
            f"width of a head (config.model.dim = {config.model.dim} over config.model.heads = "
            f"{config.model.heads})"
        )
    if steps <= config.optimizer.warmup_steps:
        raise InputError(
            f"steps={steps} is all warm-up (config.optimizer.warmup_steps = "
            f"{config.optimizer.warmup_steps}); expected more steps or less warm-up"
        )
    config = config.copy_and_resolve_references()
    config.model.update(layers=layers, dim=width, heads=width // head_width)
    config.steps = steps
    name = f"{layers}x{width}-{steps}"
    return Run(name, config, workdir / name)


def check_codes(config: ConfigDict, validation: CodeShards) -> None:
    """Raise InputError unless the validation codes are like those of training."""

    trained_on = CodeShards(config.data.source.partition(":")[2]).index
    for what, ours, theirs in (
        (
            "tokenizer",
            trained_on.tokenizer["fingerprint"],
            validation.index.tokenizer["fingerprint"],
        ),
        ("grid", trained_on.grid, validation.index.grid),
        ("classes", trained_on.class_names, validation.index.class_names),
    ):
        if ours != theirs:
            raise InputError(
                f"codes: has {what} {theirs}, but {config.data.source} has {ours}: expected codes "
                "made in the same way"
            )


def facts_of(run: Run, index: Index) -> dict[str, Any]:
    """What is known of a run before it starts: its row of the table, without the loss."""

    network = presets.network_config(
        run.config.model, index.tokenizer["codebook_size"], index.grid, run.config.loss
    )
    if not isinstance(network, LlamaConfig):
        raise InputError(
            f"config.model.preset = {run.config.model.preset}: expected a LLaMA, whose FLOPs are "
            "counted (models/token_models/flops.py)"
        )
    model = jax.eval_shape(lambda: networks.init_network(network, jax.random.key(0)))
    images = run.config.steps * run.config.batch_size
    return {
        "run": run.name,
        "size": f"{network.layers}x{network.dim}",
        "steps": run.config.steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model)),
        "tokens": images * network.grid[0] * network.grid[1],
        "training_flops": flops.training_flops(network, images),
    }
