"""The stage between tokenizer and generator: an image set is encoded to code shards."""

import collections
import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from maskgil_jax.data import sources
from maskgil_jax.data.images import buckets, cropping, file_kinds
from maskgil_jax.data.images.color import check_color
from maskgil_jax.data.records import image_records, limits
from maskgil_jax.data.shards import code_records, shard_files, shard_index, unreadable_names
from maskgil_jax.data.sound import audio
from maskgil_jax.generation import images, placing
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime import device_memory, processes
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training.config_changes import differences
from maskgil_jax.workflows.shard_captions import CaptionEncoder, Captions

log = logging.getLogger("maskgil_jax")

AHEAD = 4  # batches for each device, where images have several sizes: some of them of each size
NAMED = 20  # images that cannot be read, in the index; beside each shard all of its are
VIEWS = {"center": 1, "flip": 2, "ten": 10}  # of each image; of "random" config.views


def run(config: ConfigDict, output: epath.Path) -> None:
    """Write code shards; a run that was cut short goes on with the first shard that is missing.

    Damaged shards are named and written again. With several processes each writes its own share of
    the shards. Images that cannot be read are left out.

    Args:
      config: see maskgil_jax/config.py, `codes`.
      output: directory; one that holds shards of another tokenizer, source or crop is refused.

    Raises:
      InputError: what the config names does not fit together, or too many unreadable images.
    """
    tokenizer, source, sizes, captions, index = _plan(config)
    output.mkdir(parents=True, exist_ok=True)
    complete = _is_complete(output, index)
    mine = range(jax.process_index(), len(index.shards), jax.process_count())
    todo = _to_be_made(output, index, mine)
    if complete and not processes.total(len(todo)):
        log.info("%s is complete", output)
        return
    census = {"census": source.census.to_json()}
    if processes.first():
        shard_index.write_index(output, index, {**census, "complete": False})
    processes.wait("the index is begun")  # no shard is there without the index that it is of
    encoder = Encoder(tokenizer, source, sizes, captions, index, config)
    encoder.count_unreadable(
        unreadable_names.read(output / index.shards[i] for i in mine if i not in todo)
    )
    _write_shards(output, index, todo, encoder, len(source), config.shard_size)
    encoder.check(processes.total(encoder.unreadable))
    if processes.first():
        _complete_index(output, index, len(source), census)
    processes.wait("the index is complete")


def _write_shards(
    output: epath.Path,
    index: shard_index.Index,
    todo: Sequence[int],
    encoder: "Encoder",
    images: int,
    size: int,
) -> None:
    """Write the shards with these numbers, of at most `size` of the source's images each."""
    ranges = {i: range(i * size, min((i + 1) * size, images)) for i in todo}
    total = sum(map(len, ranges.values()))
    with tqdm(total=total, unit="image", disable=None) as progress:
        for i, indices in ranges.items():
            path = output / index.shards[i]
            count = shard_files.write_shard(
                path, encoder.shard(path, indices, progress), index.grids
            )
            log.info("%s: %d examples", index.shards[i], count)
    if encoder.left_out:
        log.warning("left out, since they cannot be read: %s", encoder.left_out)


def _complete_index(
    output: epath.Path, index: shard_index.Index, images: int, census: dict[str, Any]
) -> None:
    """Write the index again, with what all shards hold and how many images were left out."""
    counts = shard_files.counts_of(output, index)
    faults = unreadable_names.read(output / name for name in index.shards)
    left_out = {
        "unreadable": images - counts["examples"],
        "unreadable_images": faults[:NAMED],
    }
    shard_index.write_index(output, index, {**counts, **left_out, **census, "complete": True})
    log.info(
        "%d examples in %s, %d images left out",
        *(counts["examples"], output, left_out["unreadable"]),
    )


def check(config: ConfigDict, downsample: int) -> buckets.Buckets:
    """The sizes that images become.

    Args:
      config: of the stage.
      downsample: of the tokenizer.

    Raises:
      InputError: fields that do not fit together.
    """
    if config.crops not in (*VIEWS, "random"):
        raise InputError(f"crops = {config.crops!r}, expected one of {', '.join(VIEWS)}, random")
    if config.crops == "ten" and config.buckets:
        raise InputError(
            f"crops = 'ten' with buckets = {config.buckets!r}: expected no buckets, since ten-crop "
            "is of squares, or other crops"
        )
    if config.crops != "random" and config.views != 1:
        raise InputError(f"views = {config.views} with crops = {config.crops!r}: expected random")
    check_color(config.color, "color")
    if config.image_size % downsample:
        raise InputError(
            f"image_size = {config.image_size}, expected a multiple of {downsample} "
            "(the tokenizer's downsampling)"
        )
    if config.features and not config.encoder:
        raise InputError("features without encoder: expected the directory of a text encoder")
    return buckets.named(config.buckets, config.image_size, downsample)


def _plan(
    config: ConfigDict,
) -> tuple[
    loading.Tokenizer,
    image_records.Source,
    buckets.Buckets,
    CaptionEncoder | None,
    shard_index.Index,
]:
    tokenizer = loading.load_tokenizer(config.tokenizer)
    sizes = check(config, tokenizer.downsample)
    encoder = loading.load_text_encoder(config.encoder) if config.encoder else None
    source = sources.open_source(config.source)
    source.census.announce(config.source)
    source.census.check_limit(config.source, config.bad_image_limit, "bad_image_limit")
    count = -(-len(source) // config.shard_size)
    index = shard_index.Index(
        tokenizer=tokenizer.provenance,
        source={"name": config.source, "images": len(source)},
        image_size=config.image_size,
        buckets=config.buckets,
        crops=config.crops,
        views=VIEWS.get(config.crops, config.views),
        seed=config.seed,
        encoder=encoder.provenance if encoder else {},
        caption_tokens=config.caption_tokens if encoder else 0,
        features=encoder.network.config.dtype if encoder and config.features else "",
        grids=sizes.grids(tokenizer.downsample),
        dtype="uint16" if tokenizer.codebook_size <= 2**16 else "int32",
        class_names=source.class_names,
        color=config.color,
        recordings=config.recordings,
        shards=tuple(f"codes-{i:05}-of-{count:05}.array_record" for i in range(count)),
    )
    captions = None
    if encoder:
        captions = CaptionEncoder(encoder, config.caption_tokens, config.batch_size)
    return tokenizer, source, sizes, captions, index


def _is_complete(output: epath.Path, index: shard_index.Index) -> bool:
    """Whether all shards of this index were written before; InputError where others were."""
    existing = shard_index.read_index(output)
    if existing is None:
        return False
    before, counts = existing[0].to_json(), existing[1]
    for name in ("tokenizer", "encoder"):  # the same may have moved
        if "path" in before[name]:
            before[name]["path"] = getattr(index, name).get("path")
    lines = differences(before, index.to_json())
    if lines:
        raise InputError(
            f"{output} holds shards of another kind; choose another directory or remove it:\n  "
            + "\n  ".join(lines)
        )
    if counts["complete"] and processes.first():
        shard_index.write_index(output, index, counts)
    return counts["complete"]


def _to_be_made(output: epath.Path, index: shard_index.Index, mine: range) -> list[int]:
    """Which of the shards with these numbers are missing or damaged; the damaged are named."""
    paths = [output / index.shards[i] for i in mine]
    with ThreadPoolExecutor(shard_files.OPENERS) as pool:
        faults = list(pool.map(lambda path: shard_files.fault_of(path, index), paths))
    for path, fault in zip(paths, faults, strict=True):
        if fault not in ("", shard_files.MISSING):
            log.warning("%s is damaged and written again: %s", path, fault)
    return [i for i, fault in zip(mine, faults, strict=True) if fault]


class Loaded(NamedTuple):
    """An image on its way to its codes.

    Attributes:
      record: of the source.
      bucket: number of its size.
      views: uint8 [views, H, W, 3], of that size.
      size: (height, width) of the whole image.
      captions: of it, if they are kept.
      recording: of it, if it is kept.
    """

    record: image_records.Record
    bucket: int
    views: np.ndarray
    size: buckets.Size
    captions: Captions
    recording: bytes


class Encoder:
    """Turns images into the records of a shard, and counts those that cannot be read.

    Attributes:
      unreadable: number of those of this process, also in shards that were there before.
    """

    def __init__(
        self,
        tokenizer: loading.Tokenizer,
        source: image_records.Source,
        sizes: buckets.Buckets,
        captions: CaptionEncoder | None,
        index: shard_index.Index,
        config: ConfigDict,
    ):
        self._captions = captions
        self._source, self._buckets, self._index = source, sizes, index
        self._batch_size, self._limit = config.batch_size, config.bad_image_limit
        rows = min(config.shard_size, len(source)) * index.views
        devices = placing.devices_for(rows, config.batch_size, shared=False)
        memory = config.memory * device_memory.GIB or None
        self._codes_of = images.encoder(
            devices.placed(tokenizer), config.batch_size, memory, devices.count
        )
        # As many batches as fill the devices; records come in an order that this does not change.
        self._together = devices.count // math.gcd(devices.count, index.views)
        self._together *= AHEAD if len(index.grids) > 1 and devices.count > 1 else 1
        self.unreadable = 0
        self._kinds: list[str] = []
        self._compilations = buckets.Compilations(index.grids)

    @property
    def left_out(self) -> str:
        """How many were found to be unreadable now, by kind, or ""."""
        return file_kinds.counted(self._kinds)

    def shard(
        self, path: epath.Path, indices: range, progress: tqdm
    ) -> Iterator[code_records.CodeRecord]:
        """Records of the readable images among `indices`; those of one size in their order.

        The names of the others are kept beside the shard, and are there before it.
        """
        faults: list[str] = []
        yield from self._records(indices, progress, faults)
        unreadable_names.write(path, faults)

    def _records(
        self, indices: range, progress: tqdm, faults: list[str]
    ) -> Iterator[code_records.CodeRecord]:
        """Records of the readable images, and in `faults` why the others are not.

        Images wait until there is a batch of their size, so that there is one shape of each, and
        batches until there is one for each device. Records do not wait: features of a shard's
        captions may be more than the memory holds.
        """
        waiting: dict[int, list[Loaded]] = collections.defaultdict(list)
        full: list[list[Loaded]] = []
        for batch in self._loaded(indices):
            errors = [item for item in batch if isinstance(item, Unreadable)]
            self._kinds += [error.kind for error in errors]
            new = [str(error) for error in errors]
            faults += new
            self.count_unreadable(new)
            for image in (item for item in batch if isinstance(item, Loaded)):
                queue = waiting[image.bucket]
                queue.append(image)
                if len(queue) == self._batch_size:
                    full.append(waiting.pop(image.bucket))
                if len(full) == self._together:
                    yield from self._encoded(full)
                    full = []
            progress.update(len(batch))
        yield from self._encoded([*full, *waiting.values()])

    def _loaded(self, indices: range) -> Iterator[list[Loaded | Unreadable]]:
        """A batch of images after another; the next is loaded while one is encoded."""
        with ThreadPoolExecutor() as pool:
            batches = [
                indices[start : start + self._batch_size]
                for start in range(0, len(indices), self._batch_size)
            ]
            following = pool.map(self._load, batches[0])
            for batch in batches[1:]:
                current, following = following, pool.map(self._load, batch)
                yield list(current)
            yield list(following)

    def _encoded(self, batches: list[list[Loaded]]) -> Iterator[code_records.CodeRecord]:
        """Records of batches of one size each, in their order; those of one size go together."""
        of_buckets = {
            bucket: self._codes([batch for batch in batches if batch[0].bucket == bucket])
            for bucket in dict.fromkeys(batch[0].bucket for batch in batches)
        }
        for batch in batches:
            codes = next(of_buckets[batch[0].bucket])
            yield from self._records_of(batch, codes)

    def _codes(self, batches: list[list[Loaded]]) -> Iterator[np.ndarray]:
        """Codes of each of these batches of one size, [batch, views, h, w]."""
        bucket = batches[0][0].bucket
        self._compilations.note(bucket)
        pixels = np.concatenate([image.views for batch in batches for image in batch])
        codes = self._codes_of(pixels).astype(self._index.dtype)
        codes = codes.reshape(-1, self._index.views, *self._index.grids[bucket])
        return iter(np.split(codes, np.cumsum([len(batch) for batch in batches])[:-1]))

    def _records_of(
        self, images_of_a_size: list[Loaded], codes: np.ndarray
    ) -> list[code_records.CodeRecord]:
        captions = [image.captions for image in images_of_a_size]
        if self._captions and self._index.features:
            captions = self._captions.with_features(captions)
        return [
            code_records.CodeRecord(
                *(views, image.record.label, image.record.id, image.size, *texts),
                recording=image.recording,
            )
            for views, image, texts in zip(codes, images_of_a_size, captions, strict=True)
        ]

    def _load(self, index: int) -> Loaded | Unreadable:
        """The image at an index, or why it cannot be read."""
        record = self._source[index]
        try:
            with image_records.opened_image(record, self._index.color) as image:
                size = image.height, image.width
                (bucket,) = self._buckets.nearest(*np.array(size)[:, None])
                height, width = self._buckets.sizes[bucket]
                views = self._views(image, height, width, index)
            captions = self._captions.read(record) if self._captions else Captions(())
            recording = self._recording(record) if self._index.recordings else b""
        except Unreadable as error:
            log.warning("left out an image that cannot be read: %s", error)
            return error
        return Loaded(record, int(bucket), views, size, captions, recording)

    def _recording(self, record: image_records.Record) -> bytes:
        """The recording of an image, which can be decoded."""
        try:
            data = record.read_recording()
            audio.decode(data)
        except Unreadable as error:
            raise Unreadable(f"{record.id}: {error}", "without a usable recording") from None
        return data

    def _views(self, image: Image.Image, height: int, width: int, index: int) -> np.ndarray:
        if self._index.crops == "ten":
            return cropping.ten_crop(image, height)
        if self._index.crops == "random":
            # Seeded by the image, so that a run that is cut short goes on to the same codes.
            rng = np.random.default_rng((self._index.seed, index))
            return cropping.random_views(image, height, width, self._index.views, rng)
        view = cropping.bucket_crop(image, height, width)
        return np.stack([view, view[:, ::-1]] if self._index.crops == "flip" else [view])

    def count_unreadable(self, faults: Sequence[str]) -> None:
        """Count images that cannot be read; InputError where there are too many."""
        self.unreadable += len(faults)
        self.check(self.unreadable)

    def check(self, count: int) -> None:
        """Raise InputError where so many images that cannot be read are too many."""
        complaint = limits.complaint(count, len(self._source), self._limit, "bad_image_limit")
        if complaint:
            raise InputError(
                f"{complaint}; what was written stays. Of those that were read now: {self.left_out}"
            )
