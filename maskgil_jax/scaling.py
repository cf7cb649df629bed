"""How the loss falls with size, data and compute.

python -m maskgil_jax.scaling --config=configs/small_generators.py:llama --workdir=RUNS
    --sizes=1x16,1x32,2x48,3x64 --steps=400,800,1600 --codes=VALIDATION_CODES --output=DIR
    [--plans=b.json,xxl.json] [--config.x.y=value]

Trains each size for each number of steps, in RUNS/SIZE-STEPS, with a learning rate schedule of its
own; runs that are there already are read.
"""

import json
import logging
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax import main as training
from maskgil_jax.runtime import command, config_files, paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json

if TYPE_CHECKING:
    from maskgil_jax.data.shards.shard_index import Index
    from maskgil_jax.data.shards.shard_reader import CodeShards

log = logging.getLogger("maskgil_jax")


class Run(NamedTuple):
    """A size, and how long it is trained.

    Attributes:
      name: SIZE-STEPS.
      config: of a generator.
      directory: its work directory.
    """

    name: str
    config: ConfigDict
    directory: epath.Path

    @property
    def finished(self) -> bool:
        """Whether its model is there, trained for all its steps."""
        from maskgil_jax.training.writer import read_log

        lines = read_log(self.directory)
        trained = bool(lines) and lines[-1]["step"] == self.config.steps
        return trained and (self.directory / "model" / "model.json").exists()


def main() -> None:
    """Parse the flags, check everything, train what is missing, measure, fit, print."""
    values = flags.FLAGS
    workdir = paths.absolute(command.required("workdir"))
    codes, output = command.required("codes"), command.required("output")
    config = read_config()
    runs = [
        planned_run(config, size, steps, workdir)
        for steps in parse_steps(values.steps)
        for size in parse_sizes(values.sizes)
    ]
    from maskgil_jax.data.shards.shard_reader import CodeShards
    from maskgil_jax.workflows import generator_comparison, scaling_laws, scaling_study

    validation = CodeShards(codes)
    check_codes(config, validation)
    rows = [known(run, validation.index) for run in runs]
    scaling_laws.check_points(scaling_study.columns(rows, ("parameters", "tokens")))
    plans = [plan for path in values.plans for plan in scaling_study.read_plans(path)]
    for run in runs:
        check_directory(run)
    records = generator_comparison.spread_records(validation, values.num)
    for run, row in zip(runs, rows, strict=True):
        row["validation_loss"], row["validation_accuracy"] = generator_comparison.validation(
            trained(run), records, values.batch_size, values.seed
        )
        log.info("%s: validation loss %.4f", run.name, row["validation_loss"])
    scaling_study.write_study(
        rows,
        plans,
        output,
        validation=f"{len(records)} images of {codes}, spread evenly, first view",
        seed=values.seed,
    )
    print((epath.Path(output) / "scaling.md").read_text(), end="")
    log.info("wrote tables and plot to %s", output)


def read_config() -> ConfigDict:
    """The generator that --config describes, to be trained on code shards."""
    stages = training.stages_of(training.read_config())
    if list(stages) != ["generator"]:
        raise InputError(f"--config has stages {list(stages)}, expected one generator")
    config = stages["generator"]
    defaults.check_values(config)
    if not config.data.source.startswith("arrayrecord:") or config.model.feature_dim:
        raise InputError(
            f"config.data.source = {config.data.source!r} and config.model.feature_dim = "
            f"{config.model.feature_dim}, expected arrayrecord:DIR (maskgil_jax.tokenize makes "
            "one) and 0 (conditioned on the class)"
        )
    return config


def parse_steps(texts: list[str]) -> list[int]:
    """`["200", "400"]` as numbers, each once, in order."""
    if not texts or not all(text.isdecimal() and int(text) for text in texts):
        raise InputError(f"--steps={','.join(texts)}: expected numbers, as 200,400,800")
    return sorted({int(text) for text in texts})


def parse_sizes(texts: list[str]) -> list[tuple[int, int]]:
    """`["2x64", "4x128"]` as layers and widths, each once, in order."""
    found = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text) for text in texts]
    if not texts or not all(found):
        raise InputError(f"--sizes={','.join(texts)}: expected LAYERSxWIDTH, as 2x64,4x128")
    return sorted({(int(size[1]), int(size[2])) for size in found if size})


def planned_run(config: ConfigDict, size: tuple[int, int], steps: int, workdir: epath.Path) -> Run:
    """A run of this size: the config with other layers and width, and heads as wide as its own."""
    layers, width = size
    head_width = config.model.dim // config.model.heads
    if width % head_width:
        raise InputError(
            f"--sizes={layers}x{width}: expected a width that is a multiple of {head_width}, the "
            f"width of a head (config.model.dim = {config.model.dim} over config.model.heads = "
            f"{config.model.heads})"
        )
    if steps <= config.optimizer.warmup_steps:
        raise InputError(
            f"--steps={steps} is all warm-up (config.optimizer.warmup_steps = "
            f"{config.optimizer.warmup_steps}); expected more steps or less warm-up"
        )
    config = config.copy_and_resolve_references()
    config.model.update(layers=layers, dim=width, heads=width // head_width)
    config.steps = steps
    name = f"{layers}x{width}-{steps}"
    return Run(name, config, workdir / name)


def check_codes(config: ConfigDict, validation: "CodeShards") -> None:
    """Raise InputError unless the validation codes are like those of training."""
    from maskgil_jax.data.shards.shard_reader import CodeShards

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
                f"--codes has {what} {theirs}, but {config.data.source} has {ours}: expected codes "
                "made alike"
            )


def known(run: Run, index: "Index") -> dict[str, Any]:
    """What is known of a run before it starts: its row of the table, without the loss."""
    import jax

    from maskgil_jax.models.token_models import flops
    from maskgil_jax.models.token_models.llama_config import LlamaConfig
    from maskgil_jax.pretrained import networks
    from maskgil_jax.training import generator_stage

    network = generator_stage.network_config(
        run.config.model, index.tokenizer["codebook_size"], index.grid
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


def check_directory(run: Run) -> None:
    """Raise InputError where a run of another config, or of other steps, is in its place."""
    path = run.directory / "config.json"
    if not path.exists():
        return
    there = read_json(path, {})
    here = json.loads(run.config.to_json_best_effort())
    lines = defaults.differences(there, here)
    if there.get("steps") != run.config.steps:
        lines.append(f"steps: {there.get('steps')} -> {run.config.steps}")
    if lines:
        raise InputError(
            f"{run.directory} holds a run of another config; choose another --workdir, or the same "
            "values:\n  " + "\n  ".join(lines)
        )


def trained(run: Run) -> Any:
    """The generator of a run, which is trained, or trained to its end, where it is not finished."""
    from maskgil_jax.pretrained import loading

    if run.finished:
        log.info("%s is finished, and read", run.name)
    else:
        training.run(run.config, run.directory)
    return loading.load_generator(run.directory / "model")


def define_flags() -> None:
    """The command's flags."""
    config_files.define("config file of a generator of code shards")
    flags.DEFINE_string("workdir", None, "directory for the runs, one in SIZE-STEPS each")
    flags.DEFINE_list("sizes", [], "LAYERSxWIDTH of each size, as 2x64,4x128")
    flags.DEFINE_list("steps", [], "each size is trained for each of these, as 200,400,800")
    flags.DEFINE_string("codes", None, "code shards that none of them is trained on")
    flags.DEFINE_string("output", None, "directory for tables and plot")
    flags.DEFINE_list("plans", [], "F.json of maskgil_jax.plan, to which the law is extended")
    flags.DEFINE_integer("num", 1000, "images that the loss is of, at most", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "images at once", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of masks and of the intervals")


if __name__ == "__main__":
    define_flags()
    command.run(main, goes_on=True)
