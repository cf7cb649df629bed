"""What a generator is trained on: code shards, or images and the tokenizer to encode them with."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.conditioning import base, choice, speech
from maskgil_jax.data import mixture, pipeline, sources
from maskgil_jax.data.companions.pairing import Images
from maskgil_jax.data.images import buckets
from maskgil_jax.data.order import pools_of
from maskgil_jax.data.records import limits
from maskgil_jax.data.records.image_records import Named, Record, blocks_of, name_of
from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.data.shards.shard_index import Index
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.pretrained import companions, loading, presets
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training.dataset import Dataset

log = logging.getLogger("maskgil_jax")


@dataclasses.dataclass(frozen=True)
class CodesDescription:
    """What is known of codes before they are there.

    Attributes:
      source: how messages call them.
      class_names: one per class.
      codebook_size: of the tokenizer.
      grid: (height, width) in tokens of the square.
      grids: of each bucket.
    """

    source: str
    class_names: tuple[str, ...]
    codebook_size: int
    grid: buckets.Size
    grids: Sequence[buckets.Size]


@dataclasses.dataclass(frozen=True)
class GeneratorData:
    """Where the codes come from.

    Attributes:
      dataset: examples with `codes`, or with `image` for `in_step`, and with their condition.
      class_names: one per class.
      record: index -> the image or codes, with their name; Unreadable for damaged codes.
      provenance: {path, fingerprint, codebook_size, downsample} of the tokenizer.
      grid: (height, width) in tokens of the square.
      tokenizer: turns samples into pictures; None where the one of the shards cannot be found.
      in_step: turns images into codes in the step; None for code shards.
      conditioning: where the condition of each comes from.
    """

    dataset: Dataset
    class_names: tuple[str, ...]
    record: Callable[[int], Record | CodeRecord]
    provenance: dict[str, Any]
    grid: buckets.Size
    tokenizer: loading.Tokenizer | None
    in_step: VQTokenizer | None
    conditioning: base.Conditioning

    def description(self, source: str) -> CodesDescription:
        """What is known of the codes; `source` is how messages call them."""
        size = self.provenance["codebook_size"]
        return CodesDescription(source, self.class_names, size, self.grid, self.dataset.grids)


def open_data(config: ConfigDict) -> GeneratorData:
    """Code shards, or images and the tokenizer to encode them with.

    Raises:
      InputError: a source, a tokenizer or shards that are missing or do not fit together.
    """
    chosen = mixture.chosen(config.data)
    if mixture.is_shards(chosen[0].source):
        return _code_data(chosen, config)
    return _image_data(chosen, config)


def _image_data(chosen: list[mixture.Weighted], config: ConfigDict) -> GeneratorData:
    names, weights = zip(*chosen, strict=True)
    opened = [sources.open_source(name) for name in names]
    _check_sources(names, opened, config)
    source = _joined(names, opened, config)
    if not config.tokenizer:
        raise InputError(
            f"config.tokenizer is missing: data source {names[0]!r} holds images, which need a "
            "tokenizer directory"
        )
    tokenizer = loading.load_tokenizer(config.tokenizer)
    size = config.data.image_size
    check_size(size, tokenizer.downsample)
    shapes = buckets.named(config.data.buckets, size, tokenizer.downsample)
    grids = shapes.grids(tokenizer.downsample)
    condition = choice.of_config(config, source.class_names, Images(names, opened), grids)
    _check_first(condition, source)
    numbers = [shapes.of_images(one) for one in opened]
    load = pipeline.image_loader(
        source,
        np.concatenate(numbers),
        sizes=shapes.sizes,
        crop=config.data.crop,
        flip=config.data.flip,
        color=config.data.color,
        resize=config.data.resize,
        condition=condition.read,
    )
    return GeneratorData(
        dataset=Dataset(
            load,
            pools_of(numbers, weights, list(map(blocks_of, opened))),
            grids,
            functools.partial(_name_of, source, condition, config.data.color),
        ),
        class_names=source.class_names,
        record=source.__getitem__,
        provenance=tokenizer.provenance,
        grid=(size // tokenizer.downsample,) * 2,
        tokenizer=tokenizer,
        in_step=tokenizer.network,
        conditioning=condition,
    )


def _check_sources(names: Sequence[str], opened: Sequence[Any], config: ConfigDict) -> None:
    """Log what the sources hold; InputError where something is missing that must not."""
    for name, source in zip(names, opened, strict=True):
        source.census.announce(name)
    for name, source in zip(names, opened, strict=True):
        source.census.check_limit(name, config.data.bad_image_limit, "config.data.bad_image_limit")


def _joined(
    names: Sequence[str], opened: Sequence[Any], config: ConfigDict
) -> mixture.Examples[Any]:
    # Images without classes are of one, named by their folder: text does not ask for it.
    if presets.of_classes(config.model) or config.data.speech not in ("", speech.INSIDE):
        mixture.check_classes(names, opened)
    return mixture.joined(opened)


def _check_first(condition: base.Conditioning, examples: mixture.Examples[Any]) -> None:
    """Raise InputError where not one of the first images has a condition: the data is another."""
    reasons: list[str] = []
    for index in range(min(len(examples), pipeline.UNREADABLE_IN_A_ROW)):
        try:
            record = examples[index]
        except Unreadable:  # is counted in training
            continue
        try:
            condition.read(record, np.random.default_rng(0), 0)
            return
        except Unreadable as error:
            reasons.append(f"{record.id}: {error}")
    if not reasons:
        return
    more = f" (nor have the {len(reasons) - 1} after it one)" if len(reasons) > 1 else ""
    raise InputError(f"the condition of the first image, {reasons[0]}{more}")


def _code_data(chosen: list[mixture.Weighted], config: ConfigDict) -> GeneratorData:
    names, weights = zip(*chosen, strict=True)
    opened = [CodeShards(name.partition(":")[2]) for name in names]
    _check_sources(names, opened, config)
    codes = _joined(names, opened, config)
    index = opened[0].index
    for name, other in zip(names, opened, strict=True):
        _check_alike(names[0], index, name, other.index)
    check_made(config, names[0], index.image_size, index.buckets)
    _check_lost(names, opened, config.data.bad_image_limit)
    if config.data.color != index.color:
        log.warning(
            "%s was made with color = %r: config.data.color = %r does not change codes",
            *(names[0], index.color, config.data.color),
        )
    indices = [shards.index for shards in opened]
    images = Images([index.source["name"] for index in indices], opened)
    condition = choice.of_config(config, codes.class_names, images, index.grids, indices)
    _check_first(condition, codes)
    tokenizer = _tokenizer_of(index, names[0], config.tokenizer)
    provenance = tokenizer.provenance if tokenizer else index.tokenizer
    numbers = [shards.grids for shards in opened]
    return GeneratorData(
        dataset=Dataset(
            pipeline.code_loader(codes, np.concatenate(numbers), condition.read),
            pools_of(numbers, weights),
            index.grids,
            functools.partial(_name_of, codes, condition, config.data.color),
        ),
        class_names=codes.class_names,
        record=codes.__getitem__,
        provenance=provenance,
        grid=(index.image_size // provenance["downsample"],) * 2,
        tokenizer=tokenizer,
        in_step=None,
        conditioning=condition,
    )


def _tokenizer_of(index: Index, name: str, directory: str) -> loading.Tokenizer | None:
    """The tokenizer of code shards, in `directory` or where it was; None where that is gone."""
    shards = paths.absolute(name.partition(":")[2])
    path = directory or companions.located(shards, index.tokenizer)["path"]
    if not (directory or epath.Path(path).exists()):
        log.warning("no tokenizer at %s: no sample pictures (set config.tokenizer)", path)
        return None
    tokenizer = loading.load_tokenizer(path)
    if tokenizer.fingerprint != index.tokenizer["fingerprint"]:
        raise InputError(
            f"config.tokenizer = {path} has weights {tokenizer.fingerprint}, but the shards in "
            f"{name} were made with {index.tokenizer['fingerprint']}"
        )
    return tokenizer


def _name_of(
    records: mixture.Examples[Any], conditioning: base.Conditioning, color: str, index: int
) -> Named:
    """The image that an example is of, or where its codes are; and why it cannot be read, if so."""
    try:
        record = records[index]
    except Unreadable as error:
        return Named(str(error), error.kind)
    name = name_of(record, color) if isinstance(record, Record) else Named(record.id)
    if name.kind:
        return name
    try:
        conditioning.read(record, np.random.default_rng(0), 0)
    except Unreadable as error:
        reason = str(error)
        return Named(reason if record.id in reason else f"{record.id}: {reason}", error.kind)
    return name


def _check_lost(names: Sequence[str], opened: Sequence[CodeShards], limit: float) -> None:
    """Raise InputError where shards are lost that are more than training would pass over."""
    lost, total = sum(shards.lost for shards in opened), sum(map(len, opened))
    if lost > (most := limits.allowed(total, limit)):
        raise InputError(
            f"{lost} of {total} examples of {', '.join(names)} are in shards that cannot be opened "
            f"(see above), config.data.bad_image_limit = {limit:g} allows {most}: remove them and "
            "run maskgil_jax.tokenize again, which makes them again"
        )


def check_size(image_size: int, downsample: int) -> None:
    """Raise InputError unless images are of whole tokens."""
    if image_size % downsample:
        raise InputError(
            f"config.data.image_size = {image_size}, expected a multiple of {downsample} (the "
            "tokenizer's downsampling)"
        )


def check_made(config: ConfigDict, name: str, image_size: int, buckets: str) -> None:
    """Raise InputError unless code shards were made as a generator's config says.

    Args:
      config: of the generator.
      name: of the shards, for messages.
      image_size, buckets: that they were made with.
    """
    if config.data.buckets not in ("", buckets):
        raise InputError(
            f"config.data.buckets = {config.data.buckets!r}, but {name} was made with buckets "
            f"= {buckets!r}: expected the same, or '' (as it was made)"
        )
    if config.data.image_size != image_size:
        raise InputError(
            f"config.data.image_size = {config.data.image_size}, but {name} was made with "
            f"image_size = {image_size}; if the shards are right, set "
            f"--config.data.image_size={image_size}"
        )


def _check_alike(name: str, index: Index, other_name: str, other: Index) -> None:
    """Raise InputError unless the codes of two directories can be trained on together."""
    for what, ours, theirs in (
        ("tokenizer", index.tokenizer["fingerprint"], other.tokenizer["fingerprint"]),
        ("image_size", index.image_size, other.image_size),
        ("buckets", index.buckets, other.buckets),
        ("color", index.color, other.color),
    ):
        if ours != theirs:
            raise InputError(
                f"config.data.mixture: {other_name} was made with {what} = {theirs!r}, but {name} "
                f"with {ours!r}: expected the same"
            )
