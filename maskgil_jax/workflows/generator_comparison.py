"""Several generators on the same codes and images: likelihood, accuracy, quality, speed."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.evaluation import evaluation, generated_images
from maskgil_jax.evaluation.generated_images import GeneratedImages, Models
from maskgil_jax.evaluation.likelihood import spread_records, validation
from maskgil_jax.evaluation.requests import settings_of
from maskgil_jax.generation import pictures, placing, samplers
from maskgil_jax.pretrained import loading
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import write_json
from maskgil_jax.training import curves
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import measured_images, plots, sweep_panel, tables
from maskgil_jax.workflows.options import CompareOptions
from maskgil_jax.workflows.tokenizer_comparison import name_of

log = logging.getLogger("maskgil_jax")

COLUMNS = 10  # images in a row of the picture
LIKELIHOOD = ("validation_loss", "validation_accuracy")


class Way(NamedTuple):
    """How a generator draws.

    Attributes:
      prefix: tokens that it draws one by one.
      options: of samplers.from_options.
      reading: the generator whose likelihood is that of this way; None: a hybrid has none.
    """

    prefix: int
    options: dict[str, Any]
    reading: Generator | None


class Compared(NamedTuple):
    """A generator of the comparison, in one of its ways to draw.

    Attributes:
      name: in tables.
      directory: of the model.
      models: the generator and its tokenizer, on all devices.
      way: how it draws.
      images: that it generates.
    """

    name: str
    directory: str
    models: Models
    way: Way
    images: GeneratedImages

    @property
    def title(self) -> str:
        """The name, and where a model has several ways, which."""
        method = self.way.options.get("method", "")
        detail = f", prefix {self.way.prefix}" if method == "hybrid" else ""
        return self.name + (detail or (", token by token" if method else ""))


def compare(options: CompareOptions) -> None:
    """Measure generators of one tokenizer and write the results.

    Writes OUTPUT/generators.{json,csv,md}, OUTPUT/generators.png (each metric against seconds per
    image, joined along the prefix where there are several), OUTPUT/samples.png and, for work
    directories of training, OUTPUT/curves.png.

    Raises:
      InputError: directories, codes or metrics that do not fit together.
    """
    shards = CodeShards(options.codes)
    shards.census.announce(options.codes)
    compared = load(options, shards)
    output = epath.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    rows, content = measured(compared, shards, options, output / "unfinished")
    summary = summary_of(content, rows, compared[0].images, options)
    write_json(output / "generators.json", summary | {"generators": rows})
    tables.write(output / "generators", rows)
    heading = measured_images.title(summary | {"samples": {"count": options.num}})
    write_pictures(compared, rows, content, heading, output)
    (output / "unfinished").rmtree(missing_ok=True)
    print((output / "generators.md").read_text(), end="")
    log.info("wrote table and pictures to %s", output)


def load(options: CompareOptions, shards: CodeShards) -> list[Compared]:
    """The generators in all their ways, named after their directory, or the one above a `model`.

    Raises:
      InputError: two of one name, or one that does not fit the shards.
    """
    names = [name_of(directory) for directory in options.models]
    if len(set(names)) < len(names):
        raise InputError(
            f"models={','.join(options.models)} are called {', '.join(names)}: expected names that "
            "differ"
        )
    loaded = [loading.load_pair(directory, options.tokenizer) for directory in options.models]
    for name, (generator, _) in zip(names, loaded, strict=True):
        check_generator(name, generator, shards, options.codes)
    causal = [
        directory
        for directory, (generator, _) in zip(options.models, loaded, strict=True)
        if generator.kind == "causal"
    ]
    return [
        Compared(name, directory, models, way, images_of(models, way, directory, options))
        for name, directory, models in zip(
            names, options.models, (Models(*pair) for pair in loaded), strict=True
        )
        for way in ways_of(models.generator, options.prefixes, causal)
    ]


def ways_of(generator: Generator, prefixes: Sequence[int], causal: Sequence[str]) -> list[Way]:
    """How a generator draws: as its kind does, and in the other ways that it was trained for.

    Args:
      generator: masked or causal.
      prefixes: tokens of hybrids' prefixes.
      causal: directories of causal models, of which the first draws what a masked model cannot.
    """
    tokens = generator.grid[0] * generator.grid[1]
    if generator.kind == "causal":
        return [Way(tokens, {}, generator)]
    ways, first = [Way(0, {}, generator)], {}
    if generator.has_causal_prefix:
        ways.append(Way(tokens, {"method": "autoregressive"}, generator.as_causal()))
    elif causal:
        first = {"prefix_model": causal[0]}
    else:
        return ways
    ways += [Way(n, {"method": "hybrid", "prefix": n} | first, None) for n in prefixes]
    return sorted(ways, key=lambda way: way.prefix)


def check_generator(name: str, generator: Generator, shards: CodeShards, codes: str) -> None:
    """Raise InputError unless the likelihood of these shards under a generator means something."""
    tokenizer = shards.index.tokenizer["fingerprint"]
    if generator.tokenizer["fingerprint"] != tokenizer:
        raise InputError(
            f"{name} was trained on codes of {generator.tokenizer['fingerprint']}, but the "
            f"shards in {codes} are of {tokenizer}"
        )
    if not generator.num_classes and not generator.is_unconditional:
        raise InputError(
            f"{name} is conditioned on text or speech, expected models of classes, or without "
            "condition"
        )
    if generator.num_classes not in (0, len(shards.class_names)):
        raise InputError(
            f"{name} has {generator.num_classes} classes, but the shards in {codes} have "
            f"{len(shards.class_names)}: expected the same"
        )
    if generator.grid != shards.index.grid:
        raise InputError(
            f"{name} samples {generator.grid} tokens, but the shards in {codes} hold "
            f"{shards.index.grid}: tokenize at the size that it was trained at"
        )


def images_of(models: Models, way: Way, directory: str, options: CompareOptions) -> GeneratedImages:
    """The images of a generator: all classes in turn, by the default decoding of its kind."""
    generator = models.generator
    conditions = placing.split_over_devices(samplers.by_class)
    return GeneratedImages(
        samplers.from_options(
            generator, way.options, options.seed, conditions, placed=placing.over_devices
        ),
        models,
        generated_images.balanced(options.num, max(1, generator.num_classes)),
        names=generator.names_of_classes or None,
        batch_size=options.batch_size,
        path=directory,
        about=samplers.description(way.options, options.seed, generator),
    )


def measured(
    compared: Sequence[Compared], shards: CodeShards, options: CompareOptions, work: epath.Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row of the table for each generator, and what the evaluation of the last one says."""
    records = spread_records(shards, options.num)
    evaluator, reference = evaluation.evaluator_against(
        options.reference, compared[0].images, settings_of(options.measuring), work
    )
    rows, content = [], {}
    for one in compared:
        beside = functools.partial(likelihood_of, one.way, records, options)
        content = measured_images.measured(
            one.title, work / "ways", one.images, COLUMNS, evaluator, reference, beside
        )
        row = facts_of(one) | ({"prefix": one.way.prefix} if has_prefixes(compared) else {})
        row |= {name: content[name] for name in LIKELIHOOD if name in content}
        rows.append(
            {**row, **content["metrics"], "seconds_per_image": content["seconds_per_image"]}
        )
    content["protocol"] |= {
        "validation": f"{len(records)} images of {options.codes}, spread evenly, first view: mean "
        "of -log p in nats and share of right guesses, of masked tokens (arccos masks) given the "
        "visible, or of each token given those before it: to be compared within a kind only"
    }
    return rows, content


def likelihood_of(
    way: Way, records: Sequence[CodeRecord], options: CompareOptions
) -> dict[str, float]:
    """Of these codes, by the generator that a way reads with; nothing where there is none."""
    if way.reading is None:
        return {}
    values = validation(way.reading, records, options.batch_size, options.seed)
    return dict(zip(LIKELIHOOD, values, strict=True))


def has_prefixes(compared: Sequence[Compared]) -> bool:
    """Whether a generator draws in several ways, which differ in the tokens drawn one by one."""
    return any(one.way.options for one in compared)


def facts_of(one: Compared) -> dict[str, Any]:
    """What is known of a generator without measuring it: its first columns of the table."""
    lines = read_log(epath.Path(one.directory).parent)
    generator = one.models.generator
    return {
        "generator": one.name,
        "kind": "both" if generator.has_causal_prefix else generator.kind,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(generator.network)),
        **({"steps": lines[-1]["step"]} if lines else {}),
    }


def summary_of(
    content: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    images: GeneratedImages,
    options: CompareOptions,
) -> dict[str, Any]:
    """What holds for all rows: the protocol, the reference, the floor, warnings, the code."""
    protocol = content["protocol"] | {
        "samples": f"{options.num} images, over all classes, default decoding of each kind, seed "
        f"{options.seed}",
        "seconds_per_image": images.timing,
    }
    names = ("reference", "real_to_real", "warnings", "code")
    return {"protocol": protocol, **{name: content[name] for name in names}}


def write_pictures(
    compared: Sequence[Compared],
    rows: Sequence[Mapping[str, Any]],
    content: Mapping[str, Any],
    heading: str,
    output: epath.Path,
) -> None:
    """Write generators.png, samples.png and, where there are logs, curves.png."""
    plots.panels(
        rows,
        "seconds_per_image",
        list(content["metrics"]),
        content["real_to_real"],
        heading,
        output / "generators.png",
        options=["generator"],
        along="prefix" if has_prefixes(compared) else None,
    )
    names, ways = [one.title for one in compared], output / "unfinished" / "ways"
    strips = [measured_images.files_of(ways, name)[1] for name in names]
    shown = min(COLUMNS, len(compared[0].images))
    examples = [sweep_panel.read_strip(strip, shown) for strip in strips]
    grid = pictures.labelled_rows(np.concatenate(examples), names, shown)
    pictures.save(output / "samples.png", grid)
    workdirs = {one.name: epath.Path(one.directory).parent for one in compared}
    logs = {name: workdir for name, workdir in workdirs.items() if read_log(workdir)}
    if logs:
        curves.write(logs, output / "curves.png")
