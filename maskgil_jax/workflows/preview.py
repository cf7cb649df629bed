"""All stages of a config are checked before the first of them runs.

What a stage needs of an earlier one, which has not run yet, is known from that one's config: the
tokenizer's sizes, and what code shards will hold.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.conditioning import choice, speech
from maskgil_jax.data import mixture, sources
from maskgil_jax.data.images import buckets
from maskgil_jax.evaluation import evaluation
from maskgil_jax.models.tokenizers.vq import VQConfig
from maskgil_jax.pretrained import loading, networks
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_data, generator_stage, tokenizer_stage
from maskgil_jax.training.generator_data import CodesDescription
from maskgil_jax.training.value_limits import check_values
from maskgil_jax.workflows import code_shards


class Codes(NamedTuple):
    """Code shards that a stage will write.

    Attributes:
      config: of the stage.
      class_names: of its images.
      tokenizer: that will make them.
      sizes: that images become.
    """

    config: ConfigDict
    class_names: tuple[str, ...]
    tokenizer: VQConfig
    sizes: buckets.Buckets


# What stages will write, by the path under which later ones name it: codes, or the config of the
# network of a model directory.
Outputs = dict[str, Any]


def check(stages: Mapping[str, ConfigDict], directories: Mapping[str, epath.Path]) -> Outputs:
    """Check the stages of a config, in their order; returns what they will write.

    Args:
      stages: by name, with the work directory filled in.
      directories: of each.

    Raises:
      InputError: what one of them names does not fit together, is not there, or will not be.
    """
    planned: Outputs = {}
    for name, config in stages.items():
        with _named(name):
            check_values(config)
    for name, config in stages.items():
        with _named(name):
            planned |= CHECKS[name](config, directories[name], planned)
    return planned


@contextlib.contextmanager
def _named(stage: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"stage {stage}: {error}") from None


def check_tokenizer(config: ConfigDict, directory: epath.Path, planned: Outputs) -> Outputs:
    """Check a stage that trains a tokenizer; returns its outputs."""
    _, (network, discriminator) = tokenizer_stage.check(config)
    networks.shapes_of(network, "config.model")
    networks.shapes_of(discriminator, "config.discriminator")
    if config.loss.perceptual_weight:
        check_directory("config.loss.lpips", config.loss.lpips, "lpips")
    for field, kind in (("tokenizer", "vq"), ("discriminator", "discriminator")):
        if config.start_from[field]:
            check_directory(f"config.start_from.{field}", config.start_from[field], kind)
    sources.open_source(config.data.source)
    if config.evaluation.reference:
        sources.open_source(config.evaluation.reference)
    return {str(directory / "model"): network}


def check_codes(config: ConfigDict, directory: epath.Path, planned: Outputs) -> Outputs:
    """Check a stage that writes code shards; returns its outputs."""
    tokenizer = _tokenizer(config.tokenizer, planned)
    sizes = code_shards.check(config, tokenizer.downsample)
    if config.encoder:
        check_directory("config.encoder", config.encoder, "gemma")
    source = sources.open_source(config.source)
    return {f"arrayrecord:{directory}": Codes(config, source.class_names, tokenizer, sizes)}


def check_generator(config: ConfigDict, directory: epath.Path, planned: Outputs) -> Outputs:
    """Check a stage that trains a generator; returns its outputs."""
    check_evaluation(config)
    _, network, _ = generator_stage.check(config, _codes_description(config, planned))
    networks.shapes_of(network, "config.model")
    if config.start_from.generator:
        kinds = tuple(name for name in networks.NETWORKS if name in ("llama", "bert", "halton"))
        check_directory("config.start_from.generator", config.start_from.generator, *kinds)
    return {str(directory / "model"): network}


CHECKS = {"tokenizer": check_tokenizer, "codes": check_codes, "generator": check_generator}


def check_evaluation(config: ConfigDict) -> evaluation.Settings:
    """What a generator's samples are measured by.

    Raises:
      InputError: metrics or a reference that do not exist.
    """
    settings = evaluation.Settings(
        metrics=config.evaluation.metrics,
        inception=config.evaluation.inception,
        color=config.data.color,
    )
    if config.evaluation.reference:
        evaluation.check(config.evaluation.reference, settings)
    return settings


def check_directory(field: str, directory: str, *kinds: str) -> None:
    """Raise InputError unless a model directory holds a network of one of these classes."""
    try:
        kind = loading.describe(directory).get("class")
    except InputError as error:
        raise InputError(f"{field} = {directory!r}: {error}") from None
    if kind not in kinds:
        raise InputError(
            f"{field} = {directory!r} holds a network {kind!r}, expected {' or '.join(kinds)}"
        )


def _tokenizer(directory: str, planned: Outputs) -> VQConfig:
    """The config of a tokenizer that is there, or will be."""
    output = planned.get(directory.rstrip("/"))
    if isinstance(output, VQConfig):
        return output
    check_directory("config.tokenizer", directory, "vq")
    arguments = loading.describe(directory)["arguments"]
    config: VQConfig = networks.config_of("vq", arguments, f"{directory}/model.json")
    return config


def _codes_description(config: ConfigDict, planned: Outputs) -> CodesDescription:
    """The codes that a generator will be trained on."""
    names = [weighted.source for weighted in mixture.chosen(config.data)]
    outputs = [planned.get(name.rstrip("/")) for name in names]
    codes = [shards for shards in outputs if isinstance(shards, Codes)]
    if not codes and config.tokenizer.rstrip("/") not in planned:
        return generator_data.open_data(config).description(generator_stage.source_name(config))
    if codes and len(codes) < len(names):
        raise InputError(
            f"config.data.mixture = {config.data.mixture!r} names shards that earlier stages "
            "write, and others: expected runs of their own for these"
        )
    _check_condition(config, codes)
    if codes:
        for name, shards in zip(names, codes, strict=True):
            made_with = shards.config.image_size, shards.config.buckets
            generator_data.check_made(config, name, *made_with)
        first, size = codes[0], codes[0].config.image_size
        class_names, tokenizer, sizes = first.class_names, first.tokenizer, first.sizes
    else:
        opened = [sources.open_source(name) for name in names]
        class_names, size = opened[0].class_names, config.data.image_size
        tokenizer = _tokenizer(config.tokenizer, planned)
        generator_data.check_size(size, tokenizer.downsample)
        sizes = buckets.named(config.data.buckets, size, tokenizer.downsample)
    return CodesDescription(
        generator_stage.source_name(config),
        class_names,
        tokenizer.codebook_size,
        (size // tokenizer.downsample,) * 2,
        sizes.grids(tokenizer.downsample),
    )


def _check_condition(config: ConfigDict, codes: list[Codes]) -> None:
    """Raise InputError where a generator's condition is not there."""
    choice.check_fields(config)
    if config.data.features and not os.path.isdir(os.path.expanduser(config.data.features)):
        raise InputError(
            f"config.data.features = {config.data.features!r}: there is no such folder"
        )
    if config.encoder and config.encoder != speech.LOG_MEL:
        check_directory("config.encoder", config.encoder, "gemma", "whisper")
    if config.encoder and not config.data.speech:
        for shards in codes:
            if not shards.config.encoder:
                raise InputError(
                    f"config.encoder = {config.encoder!r}, but stage codes keeps no captions: "
                    "expected its field encoder to be the same"
                )
    if config.data.speech == speech.INSIDE and not all(s.config.recordings for s in codes):
        raise InputError(
            f"config.data.speech = {config.data.speech!r}, but stage codes keeps no recordings: "
            "expected its field recordings to be True"
        )
