"""The samples that training a generator shows: which conditions, and their pictures."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from maskgil_jax.conditioning import base
from maskgil_jax.generation import pictures, samplers
from maskgil_jax.generation.images import generate_images
from maskgil_jax.pretrained import generators, loading, presets, prompts
from maskgil_jax.runtime import processes
from maskgil_jax.runtime.batches import spread
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training.generator_data import GeneratorData

log = logging.getLogger("maskgil_jax")


class SampleConditions(NamedTuple):
    """The conditions that samples are drawn of.

    Attributes:
      labels: int64 [R], class ids or rows, one for each row of a picture.
      names: of all labels.
      conditions: of labels, see samplers.Conditions.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    conditions: samplers.Conditions


def choose_conditions(
    data: GeneratorData, settings: Mapping[str, Any], count: int
) -> SampleConditions:
    """At most `count` conditions, evenly spread over the classes or the examples.

    Args:
      data: that is trained on.
      settings: config.model; of a model without a condition there is one, of this name.
      count: conditions.

    Raises:
      InputError: not one of the examples has a condition.
    """
    if presets.is_unconditional(settings):
        return SampleConditions(np.zeros(1, np.int64), ("unconditional",), samplers.by_class)
    if presets.of_classes(settings):
        classes = spread(len(data.class_names), count)
        return SampleConditions(classes, data.class_names, samplers.by_class)
    examples, names, reason = [], [], ""
    for index in spread(len(data.dataset), count).tolist():
        try:
            record = data.record(index)
            examples.append(data.conditioning.read(record, np.random.default_rng(index), 0))
            names.append(data.conditioning.name(record, np.random.default_rng(index)))
        except Unreadable as error:
            reason = str(error)
    if not examples:
        raise InputError(f"no example to draw samples of has a condition, the last: {reason}")
    return SampleConditions(
        np.arange(len(names)), tuple(names), _conditions(examples, names, data.conditioning)
    )


def _conditions(
    examples: Sequence[base.Example], names: Sequence[str], conditioning: base.Conditioning
) -> samplers.Conditions:
    """Conditions of examples: features, or the captions that a model reads itself."""
    if conditioning.vocabulary:
        return lambda labels: [names[label] for label in labels]
    table: Any = base.stacked(examples, conditioning)
    return samplers.rows_of(table)


def generator_of(data: GeneratorData, weights: Any) -> generators.Generator:
    """A generator with these weights, which knows what it was trained on."""
    conditioning = data.conditioning
    beside = {prompts.VOCABULARY: conditioning.vocabulary} if conditioning.vocabulary else {}
    provenance = dict(
        tokenizer=data.provenance,
        class_names=data.class_names if weights.config.num_classes else (),
        encoder=dict(conditioning.provenance),
    )
    generator = loading.wrap(weights, beside, provenance)
    if not isinstance(generator, generators.Generator):
        raise TypeError(f"{type(weights).__name__} is no token model")
    return generator


def sample_pictures(
    data: GeneratorData,
    weights: Any,
    conditions: SampleConditions,
    config: ConfigDict,
    options: dict[str, Any],
) -> dict[str, np.ndarray]:
    """A picture of samples, a labelled row for each condition: {name: uint8 [H, W, 3]}.

    All processes call this; the first one draws, the others and runs without a tokenizer get {}.

    Args:
      data: that is trained on.
      weights: a network on the mesh.
      conditions: one for each row.
      config: of the stage.
      options: of `Generator.sample`.
    """
    weights = processes.local(weights)  # by all, whoever has the tokenizer
    if data.tokenizer is None or not processes.first():
        return {}
    columns = config.samples.per_class
    try:
        images = generate_images(
            samplers.sampler(
                generator_of(data, weights), config.seed, conditions.conditions, **options
            ),
            data.tokenizer,
            np.repeat(conditions.labels, columns),
            config.samples.batch_size,
        )
    except InputError as error:  # training may still recover
        log.warning("no samples to show: %s", error)
        return {}
    names = [conditions.names[label] for label in conditions.labels]
    return {"samples": pictures.labelled_rows(images, names, columns)}
