"""What maskgil_jax.inspect tells of a data source, and the picture of its examples."""

import collections
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from maskgil_jax.data import mixture, pipeline, sources
from maskgil_jax.data.images import buckets
from maskgil_jax.data.images.color import check_color
from maskgil_jax.data.order import Order, pools_of
from maskgil_jax.data.records import image_records
from maskgil_jax.data.records.image_records import Record, Source
from maskgil_jax.data.shards.shard_reader import CodeShards, readable
from maskgil_jax.generation import images, pictures
from maskgil_jax.pretrained import companions, loading
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.batches import spread
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.workflows.options import InspectOptions

log = logging.getLogger("maskgil_jax")

PICTURED = 32
COLUMNS = 8
THREADS = 16  # that read images
LISTED = 8  # sizes and reasons that are listed
LONGEST_TEXT = 400  # characters of a caption that come with its image


def inspect(options: InspectOptions) -> None:
    """Print what a source holds, and write a picture of it where a file is named.

    Raises:
      InputError: no such source, or none of its images can be read.
    """
    check_color(options.color, "color")
    pipeline.check_crop(options.crop)
    if mixture.is_shards(options.data):
        shards = CodeShards(options.data.partition(":")[2])
        lines = [options.data, *shards.census.summary(), *of_shards(shards)]
        print("\n".join([*lines, *_classes(shards.class_names, None)]))
        picture = pictured_codes(shards, options) if options.output else None
    else:
        source = sources.open_source(options.data)
        seen = look_at(source, options.num, options.color)
        lines = [options.data, *source.census.summary(), *described(seen, len(source))]
        print("\n".join([*lines, *_classes(source.class_names, seen)]))
        picture = pictured_images(source, options) if options.output else None
    if picture is not None:
        pictures.save(options.output, picture)
        log.info("wrote %s", options.output)


class Seen(NamedTuple):
    """What was seen of one image.

    Attributes:
      label: its class; -1 where it cannot be read.
      size: "WIDTHxHEIGHT", or "".
      captions: its captions.
      fault: why it cannot be read, with its name, or "".
      kind: of the fault, in a few words.
      caption_fault: why it has no usable caption, or "".
    """

    label: int
    size: str
    captions: tuple[str, ...]
    fault: str = ""
    kind: str = ""
    caption_fault: str = ""


def look_at(source: Source, count: int, color: str) -> list[Seen]:
    """Decode images that are spread evenly over a source, and read their captions; 0: all."""
    indices = spread(len(source), count or len(source)).tolist()
    with ThreadPoolExecutor(THREADS) as pool:
        seen = pool.map(lambda index: _seen(source[index], color), indices)
        return list(tqdm(seen, "images", len(indices), unit="image", delay=2, disable=None))


def _seen(record: Record, color: str) -> Seen:
    try:
        with image_records.opened_image(record, color) as image:
            size = f"{image.width}x{image.height}"
    except Unreadable as error:
        return Seen(-1, "", (), str(error), error.kind)
    try:
        return Seen(record.label, size, image_records.captions_of(record))
    except Unreadable as error:
        return Seen(record.label, size, (), caption_fault=str(error))


def described(seen: Sequence[Seen], total: int) -> list[str]:
    """Lines on the images that were looked at: what cannot be read, sizes, captions.

    Raises:
      InputError: none of them can be read.
    """
    faults = [one.fault for one in seen if one.fault]
    if len(faults) == len(seen):
        raise InputError(image_records.none_readable("the source", len(seen), faults))
    all_or_some = "all" if len(seen) == total else f"of {total:,}, spread evenly"
    lines = [f"{len(seen):,} images looked at ({all_or_some}), {len(faults)} of them unreadable"]
    lines += [f"  unreadable: {fault}" for fault in faults[:LISTED]]
    lines += ["  ..."] * (len(faults) > LISTED)
    sizes = collections.Counter(one.size for one in seen if one.size)
    common = ", ".join(f"{size} ({count:,})" for size, count in sizes.most_common(LISTED))
    more = f", {len(sizes) - LISTED:,} more" if len(sizes) > LISTED else ""
    lines.append(f"sizes: {common}{more}")
    return lines + list(_captions(seen))


def _captions(seen: Sequence[Seen]) -> Iterator[str]:
    counts = [len(one.captions) for one in seen if one.captions]
    if not counts:
        yield "captions: none"
        return
    lengths = [len(text) for one in seen for text in one.captions]
    yield (
        f"captions: {len(counts):,} images have {_range(counts)} each, of {_range(lengths)} "
        f"characters (median {int(np.median(lengths))})"
    )
    missing = [one.caption_fault for one in seen if one.caption_fault]
    yield from (f"  unusable: {fault}" for fault in missing[:LISTED])
    if len(missing) > LISTED:
        yield f"  ... {len(missing):,} images have no usable caption"


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _classes(names: Sequence[str], seen: Sequence[Seen] | None) -> list[str]:
    """A line for each class, in the order of their ids."""
    counts = collections.Counter(one.label for one in seen or ())
    width = len(str(len(names) - 1))
    counted = " (how many of the images looked at)" if seen else ""
    return [f"classes, in order{counted}:"] + [
        f"  {number:{width}}  {name}" + (f"  ({counts[number]:,})" if seen else "")
        for number, name in enumerate(names)
    ]


def of_shards(shards: CodeShards) -> list[str]:
    """Lines on what code shards are of."""
    index = shards.index
    grids = collections.Counter(shards.grids.tolist())
    sizes = ", ".join(
        f"{index.grids[grid][0]} x {index.grids[grid][1]} ({count:,})"
        for grid, count in grids.most_common(LISTED)
    )
    kept = f"{index.caption_tokens} tokens of each caption" if index.encoder else "no captions"
    return [
        f"codes of {index.source['name']} by {index.tokenizer['path']}, {index.views} of each "
        f"image (crops = {index.crops}), {kept}",
        f"grids, rows x columns of tokens: {sizes}",
    ]


def pictured_images(source: Source, options: InspectOptions) -> np.ndarray:
    """The batch of the first step, cropped, flipped and in the order as in training."""
    sizes = buckets.named(options.buckets, options.image_size, 1)
    numbers = sizes.of_images(source)
    count = min(PICTURED, len(source))
    load = pipeline.image_loader(
        source,
        numbers,
        sizes=sizes.sizes,
        crop=options.crop,
        flip=options.flip,
        color=options.color,
        condition=_label_and_caption,
    )
    pools = pools_of([numbers], blocks=[image_records.blocks_of(source)])
    batches = pipeline.batches(load, Order(pools, count, options.seed), threads=THREADS)
    batch = next(batches)
    texts = [
        f"{source.class_names[label]}: {text}" if text else source.class_names[label]
        for label, text in zip(batch["label"].tolist(), batch["text"].tolist(), strict=True)
    ]
    return pictures.titled(np.asarray(batch["image"]), texts, COLUMNS)


def _label_and_caption(record: Record, rng: np.random.Generator, bucket: int) -> pipeline.Example:
    try:
        captions = image_records.captions_of(record)
    except Unreadable:
        captions = ("",)
    text = captions[rng.integers(len(captions))]
    return {
        "label": np.int32(record.label),
        "text": np.array(text[:LONGEST_TEXT], f"U{LONGEST_TEXT}"),
    }


def pictured_codes(shards: CodeShards, options: InspectOptions) -> np.ndarray:
    """Examples of one grid, spread evenly over shards, decoded by their tokenizer."""
    made_with = companions.located(
        paths.absolute(options.data.partition(":")[2]), shards.index.tokenizer
    )
    tokenizer = loading.load_tokenizer(options.tokenizer or made_with["path"])
    if tokenizer.fingerprint != shards.index.tokenizer["fingerprint"]:
        raise InputError(
            f"tokenizer={options.tokenizer or made_with['path']} has weights "
            f"{tokenizer.fingerprint}, but {options.data} was made with "
            f"{shards.index.tokenizer['fingerprint']}"
        )
    places = np.flatnonzero(shards.grids == np.bincount(shards.grids).argmax())
    records = readable(shards, places[spread(len(places), PICTURED)].tolist())
    codes = np.stack([record.codes[0] for _, record in records]).astype(np.int32)
    names = [shards.class_names[record.label] for _, record in records]
    return pictures.titled(images.decoder(tokenizer)(codes), names, COLUMNS)
