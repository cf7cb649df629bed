"""Several generators on the same codes and images: likelihood, accuracy, quality, speed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.data.shards.shard_reader import CodeShards, readable
from maskgil_jax.evaluation import evaluation, generated_images
from maskgil_jax.generation import pictures, samplers
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import write_json
from maskgil_jax.training import generator_stage, objectives
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import decoding_sweep, plots, tables
from maskgil_jax.workflows.tokenizer_comparison import name_of

SHOWN = 10  # images in a row of the picture


def write_comparison(
    directories: Sequence[str],
    codes: str,
    reference: str,
    output: epath.PathLike,
    *,
    count: int,
    batch_size: int,
    seed: int,
    settings: evaluation.Settings,
) -> None:
    """Measure generators of one tokenizer and write what came out.

    Writes OUTPUT/generators.{json,csv,md}, OUTPUT/generators.png (each metric against seconds per
    image), OUTPUT/samples.png and, for work directories of training, OUTPUT/curves.png.

    Args:
      directories: generators; one is named after its directory, or after the one above a `model`.
      codes: directory of code shards that none was trained on.
      reference: what samples are compared with, as evaluation.open_side takes it.
      output: directory, made if needed.
      count: images drawn, over all classes; and codes that the likelihood is of, at most.
      batch_size: images at once.
      seed: of draws and masks.
      settings: what is measured.

    Raises:
      InputError: directories, codes or metrics that do not fit together.
    """
    names = [name_of(directory) for directory in directories]
    if len(set(names)) < len(names):
        raise InputError(f"--models are called {', '.join(names)}: expected names that differ")
    shards = CodeShards(codes)
    shards.census.announce(codes)
    loaded = [samplers.load_pair(directory, "") for directory in directories]
    for name, (generator, _) in zip(names, loaded, strict=True):
        made_by = shards.index.tokenizer["fingerprint"]
        if generator.tokenizer["fingerprint"] != made_by:
            raise InputError(
                f"{name} was trained on codes of {generator.tokenizer['fingerprint']}, but the "
                f"shards in {codes} are of {made_by}"
            )
        if not generator.num_classes:
            raise InputError(f"{name} is conditioned on features, expected models of classes")
        if generator.num_classes != len(shards.class_names):
            raise InputError(
                f"{name} has {generator.num_classes} classes, but the shards in {codes} have "
                f"{len(shards.class_names)}: expected the same"
            )
        if generator.grid != shards.index.grid:
            raise InputError(
                f"{name} draws {generator.grid} tokens, but the shards in {codes} hold "
                f"{shards.index.grid}: tokenize at the size that it was trained at"
            )
    output = epath.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    sets = []
    for directory, pair in zip(directories, loaded, strict=True):
        models = generated_images.Models(*pair)
        sample = samplers.sampler(
            models.generator, seed, samplers.split_over_devices(samplers.by_class)
        )
        labels = generated_images.balanced(count, models.generator.num_classes)
        about = {"seed": seed}
        sets.append(
            generated_images.Drawn(
                sample,
                models,
                labels,
                names=models.generator.names_of_classes,
                batch_size=batch_size,
                path=directory,
                about=about,
            )
        )
    records = spread_records(shards, count)
    work = output / "unfinished"
    measure, real = evaluation.against(reference, sets[0], settings, work)
    rows, pictures_of, content = [], [], {}
    for name, directory, samples, (generator, _) in zip(
        names, directories, sets, loaded, strict=True
    ):
        seconds = samples.seconds_per_image()
        content = measure.result(measure.features_of(samples, name), real)
        loss, accuracy = validation(generator, records, batch_size, seed)
        log = read_log(epath.Path(directory).parent)
        rows.append(
            {
                "generator": name,
                "kind": generator.kind,
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(generator.network)),
                **({"steps": log[-1]["step"]} if log else {}),
                "validation_loss": loss,
                "validation_accuracy": accuracy,
                **content["metrics"],
                "seconds_per_image": seconds,
            }
        )
        pictures_of.append(samples.read(0, min(SHOWN, count)).images)
    protocol = content["protocol"] | {
        "validation": f"{len(records)} images of {codes}, spread evenly, first view: "
        "mean of -log p in nats and share of right guesses, of hidden tokens (arccos masks) given "
        "the visible, or of each token given those before it: to be compared within a kind only",
        "samples": f"{count} images, over all classes, default decoding of each kind, seed {seed}",
        "seconds_per_image": sets[0].timing,
    }
    summary = {
        "protocol": protocol,
        "reference": content["reference"],
        "real_to_real": content["real_to_real"],
        "warnings": content["warnings"],
        "code": content["code"],
    }
    write_json(output / "generators.json", summary | {"generators": rows})
    tables.write(output / "generators", rows)
    title = decoding_sweep.title(summary | {"samples": {"count": count}})
    path = output / "generators.png"
    measured = list(content["metrics"])
    floor = content["real_to_real"]
    plots.panels(rows, "seconds_per_image", measured, floor, title, path, options=["generator"])
    work.rmtree(missing_ok=True)
    grid = pictures.labelled_rows(np.concatenate(pictures_of), names, len(pictures_of[0]))
    pictures.save(output / "samples.png", grid)
    logs = {name: epath.Path(d).parent for name, d in zip(names, directories, strict=True)}
    logs = {name: directory for name, directory in logs.items() if read_log(directory)}
    if logs:
        pictures.curves(logs, output / "curves.png")


def spread_records(shards: CodeShards, count: int) -> list[CodeRecord]:
    """At most `count` examples, spread evenly, since shards may hold one class after another.

    Those that cannot be read are named and left out; InputError where none can.
    """
    return [record for _, record in readable(shards, samplers.spread(len(shards), count).tolist())]


def validation(
    generator: Generator, records: Sequence[CodeRecord], batch_size: int, seed: int
) -> tuple[float, float]:
    """Mean -log p in nats and share of tokens predicted right, in eval mode without smoothing."""
    count = len(records)
    codes = np.stack([record.codes[0] for record in records])
    labels = np.array([record.label for record in records])
    hidden = np.ones(codes.shape, bool)
    if generator.kind == "masked":
        flat = objectives.random_masks(jax.random.key(seed), (count, codes[0].size), "arccos")
        hidden = np.asarray(flat).reshape(codes.shape)
    settings = ConfigDict(dict(label_smoothing=0.0, chunk=64))
    sums = jax.jit(functools.partial(_sums, settings=settings))
    total = np.zeros(2)
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        examples = {
            "codes": jnp.asarray(codes[part]),
            "hidden": jnp.asarray(hidden[part]),
            "weight": jnp.asarray(hidden[part], jnp.float32),
            "condition": jnp.asarray(labels[part], jnp.int32),
        }
        total += np.array(sums(generator.network, examples))
    loss, accuracy = total / hidden.sum()
    return float(loss), float(accuracy)


def _sums(
    network: Any, examples: dict[str, jax.Array], settings: ConfigDict
) -> tuple[jax.Array, jax.Array]:
    loss, sums = generator_stage.weighted_loss(network, examples, None, settings)
    return loss, sums["correct"]
