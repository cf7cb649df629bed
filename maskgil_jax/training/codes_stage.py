"""Between the stages: encode an image set to code shards."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from maskgil_jax import api, processes
from maskgil_jax.config import differences
from maskgil_jax.data import images, shards, sources
from maskgil_jax.decoding import draw
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")

VIEWS = {"center": 1, "flip": 2, "ten": 10}


def run(config: ConfigDict, output: epath.Path) -> None:
    """Write code shards; a run that was cut short goes on with the first shard that is missing.

    With several processes each writes its own share of the shards. Images that cannot be read are
    left out.

    Args:
      config: see maskgil_jax/config.py, `codes`.
      output: directory; one that holds shards of another tokenizer, source or crop is refused.

    Raises:
      InputError: what the config names does not fit together, or too many unreadable images.
    """
    tokenizer, source, index = _plan(config)
    output.mkdir(parents=True, exist_ok=True)
    if _complete(output, index):
        log.info("%s is complete", output)
        return
    shards.write_index(output, index, {"complete": False})

    encoder = Encoder(tokenizer, source, index, config)
    size, mine = (
        config.shard_size,
        range(jax.process_index(), len(index.shards), jax.process_count()),
    )
    todo = [i for i in mine if not (output / index.shards[i]).exists()]
    total = sum(min(size, len(source) - i * size) for i in todo)
    with tqdm(total=total, unit="image", disable=None) as progress:
        for i in todo:
            indices = range(i * size, min((i + 1) * size, len(source)))
            records = encoder.records(indices, progress)
            count = shards.write_shard(output / index.shards[i], records)
            log.info("%s: %d examples", index.shards[i], count)
    processes.wait("shards are written")
    if processes.first():
        examples = shards.count_examples(output, index)
        counts = {"examples": examples, "unreadable": len(source) - examples, "complete": True}
        shards.write_index(output, index, counts)
        log.info("%d examples in %s", examples, output)
    processes.wait("the index is complete")


def _plan(config: ConfigDict) -> tuple[api.Tokenizer, sources.Source, shards.Index]:
    if config.crops not in VIEWS:
        raise InputError(f"crops = {config.crops!r}, expected one of {', '.join(VIEWS)}")
    tokenizer = api.load_tokenizer(config.tokenizer)
    if config.image_size % tokenizer.downsample:
        raise InputError(
            f"image_size = {config.image_size}, expected a multiple of {tokenizer.downsample} "
            "(the tokenizer's downsampling)"
        )
    source = sources.open_source(config.source)
    side, count = config.image_size // tokenizer.downsample, -(-len(source) // config.shard_size)
    index = shards.Index(
        tokenizer=tokenizer.provenance,
        source={"name": config.source, "images": len(source)},
        image_size=config.image_size,
        crops=config.crops,
        views=VIEWS[config.crops],
        grid=(side, side),
        dtype="uint16" if tokenizer.codebook_size <= 2**16 else "int32",
        class_names=source.class_names,
        shards=tuple(f"codes-{i:05}-of-{count:05}.array_record" for i in range(count)),
    )
    return tokenizer, source, index


def _complete(output: epath.Path, index: shards.Index) -> bool:
    found = shards.read_index(output)
    if found is None:
        return False
    before, counts = found[0].to_json(), found[1]
    before["tokenizer"]["path"] = index.tokenizer["path"]  # the same tokenizer may have moved
    lines = differences(before, index.to_json())
    if lines:
        raise InputError(
            f"{output} holds shards of another kind; choose another directory or remove it:\n  "
            + "\n  ".join(lines)
        )
    if counts.get("complete"):
        shards.write_index(output, index, counts)
    return bool(counts.get("complete"))


class Encoder:
    """Turns images into the records of a shard, and counts those that cannot be read."""

    def __init__(
        self,
        tokenizer: api.Tokenizer,
        source: sources.Source,
        index: shards.Index,
        config: ConfigDict,
    ):
        self._tokenizer, self._source, self._index = tokenizer, source, index
        self._batch_size, self._limit = config.batch_size, config.bad_image_limit
        self._unreadable = 0

    def records(self, indices: range, progress: tqdm) -> Iterator[tuple[np.ndarray, int, str]]:
        """(codes [views, h, w], label, id) of the readable images among `indices`."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(indices), self._batch_size):
                batch = indices[start : start + self._batch_size]
                loaded = [item for item in pool.map(self._load, batch) if item is not None]
                self._check(len(batch) - len(loaded))
                if loaded:
                    pixels = np.concatenate([views for views, _ in loaded])
                    codes = draw.encode(self._tokenizer, pixels, self._batch_size)
                    codes = codes.astype(self._index.dtype).reshape(
                        len(loaded), self._index.views, *self._index.grid
                    )
                    for views, (_, record) in zip(codes, loaded, strict=True):
                        yield views, record.label, record.id
                progress.update(len(batch))

    def _load(self, index: int) -> tuple[np.ndarray, sources.Record] | None:
        record = self._source[index]
        try:
            return self._views(images.decode(record.image)), record
        except images.UnreadableImage as error:
            log.warning("left out an image that cannot be read: %s: %s", record.id, error)
            return None

    def _views(self, image: Image.Image) -> np.ndarray:
        if self._index.crops == "ten":
            return images.ten_crop(image, self._index.image_size)
        view = images.center_crop(image, self._index.image_size)
        return np.stack([view, view[:, ::-1]] if self._index.crops == "flip" else [view])

    def _check(self, unreadable: int) -> None:
        self._unreadable += unreadable
        if self._unreadable > self._limit * len(self._source):
            raise InputError(
                f"{self._unreadable} of {len(self._source)} images cannot be read, bad_image_limit "
                f"= {self._limit} allows {self._limit:.1%}; what was written stays"
            )
