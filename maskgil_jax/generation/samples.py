"""Samples as files: a PNG each, a grid to look at, and samples.npz with all of them.

Until these are there, the directory is marked as unfinished (runtime/unfinished.py); the same
command then goes on with the images that are missing. Images are drawn in batches whose size does
not depend on the number of devices and processes: each device draws one at a time, each process
every so-manieth. No process holds more than it draws, or reads, at once. Letters: N images, H W
image.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from maskgil_jax.generation import layouts, pictures
from maskgil_jax.generation.images import decoder
from maskgil_jax.generation.layouts import PLAIN, Draw, Layout
from maskgil_jax.generation.placing import Devices
from maskgil_jax.generation.samplers import Sampler
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import processes, unfinished, version
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.progress import Progress
from maskgil_jax.runtime.unfinished import Written

log = logging.getLogger("maskgil_jax")

READ = 64  # images that are read at once for what lies beside them


def write_samples(
    sampler: Sampler,
    tokenizer: Tokenizer,
    output: epath.PathLike,
    *,
    settings: Mapping[str, Any],
    size: tuple[int, int],
    labels: np.ndarray,
    names: Sequence[str],
    per_label: int,
    devices: Devices,
    memory: float | None = None,
    removes_unfinished: bool = True,
    of_prompts: bool = False,
    layout: Layout = PLAIN,
) -> None:
    """Generate `per_label` images of each label; after a stop, those that are missing.

    Writes OUTPUT/00000.png ..., OUTPUT/grid.png (a labelled row of at most 16 images per label, of
    the first 32 labels) and OUTPUT/samples.npz (`arr_0` uint8 NHWC, `labels` int64, `class_names`,
    `settings` in JSON, and of prompts `captions`, one of each image). Samples of other settings
    that lie there are removed. With several processes all of them call this; the first writes the
    grid and samples.npz.

    Args:
      sampler: labels to codes, on these devices.
      tokenizer: codes to images, on these devices.
      output: directory, made if needed, which all processes see.
      settings: JSON-able, all that image i depends on besides i and its label; see `settings_of`.
      size: (height, width) of the images in pixels.
      labels: int [K], class ids or rows, as the sampler takes them.
      names: of all classes or rows.
      per_label: images of each.
      devices: where images are drawn, and how many at once.
      memory: of the tokenizer, see images.decoder.
      removes_unfinished: see unfinished.begin.
      of_prompts: whether names are prompts, so that they are captions of the images.
      layout: where all these files lie, and which they are; the above is layouts.PLAIN.

    Raises:
      InputError: a directory that cannot be written, or images that cannot be generated.
    """
    of_rows = {"names": [names[label] for label in labels]}
    labels = np.repeat(labels, per_label)
    of_images = {"images": len(labels), "size": size, "labels": labels.tolist()}
    of_layout = {"layout": layout.settings} if layout.settings else {}
    settings = {**settings, **of_images, **of_rows, **of_layout}
    place = _Place(epath.Path(output), layout, size)
    resumed = _begin(place, settings, len(labels), removes_unfinished)
    batches = _batches_of_process(place, len(labels), devices.rows, resumed)
    pixels = decoder(tokenizer, memory, devices.count)
    _generate(sampler, pixels, place, labels, batches, devices)
    processes.wait("images are drawn")
    if processes.first():
        draw = Draw(size, labels, names, per_label, settings, of_prompts)
        finish(place.output, _kept_images(place, len(labels)), draw, layout)
    processes.wait("samples are complete")


class _Place(NamedTuple):
    """Where images lie.

    Attributes:
      output: directory.
      layout: of it.
      size: (H, W).
    """

    output: epath.Path
    layout: Layout
    size: tuple[int, int]

    def read(self, start: int, count: int) -> np.ndarray | None:
        """Images start .. start + count - 1, uint8 [count, H, W, 3], or None unless all are."""
        images = []
        for i in range(start, start + count):
            if (pixels := self.layout.read(self.output, i, self.size)) is None:
                return None
            images.append(pixels)
        return np.stack(images)


def _begin(
    place: _Place, settings: Mapping[str, Any], count: int, removes_unfinished: bool
) -> bool:
    """Mark the directory; whether images of these settings may be there already."""

    output, layout = place.output, place.layout

    def begin() -> int:
        new = Written(settings, layout.files(count))
        before = layouts.finished(output)
        resumed = unfinished.begin(output, new, before, removes_unfinished, layout.overwrites)
        if resumed:
            there = unfinished.there(output, new.files)
            done = sum(layout.is_drawn(i, there) for i in range(count))
            log.info("%s: %d of %d images are there", output, done, count)
        return resumed

    return bool(processes.by_first(begin, f"output={output}"))


def _batches_of_process(place: _Place, count: int, rows: int, resumed: bool) -> list[range]:
    """The batches that this process has to draw; of a draw that goes on, some may be there."""
    batches = [range(start, min(start + rows, count)) for start in range(0, count, rows)]
    mine = batches[jax.process_index() :: jax.process_count()]
    if not resumed:
        return mine

    def is_there(batch: range) -> bool:
        return place.read(batch.start, len(batch)) is not None

    with ThreadPoolExecutor() as pool:
        there = list(pool.map(is_there, mine))
    return [batch for batch, done in zip(mine, there, strict=True) if not done]


def _generate(
    sampler: Sampler,
    pixels: Callable[[Any], np.ndarray],
    place: _Place,
    labels: np.ndarray,
    batches: Sequence[range],
    devices: Devices,
) -> None:
    """Draw and write batches of images; they are written while the next ones are drawn."""
    total = sum(map(len, batches))
    written: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer, Progress(total, "image", "sampling") as progress:
        for at in range(0, len(batches), devices.count):
            together = batches[at : at + devices.count]
            indices = _filled_up(together, devices)
            images = pixels(sampler(labels[indices % len(labels)], indices))
            if written:
                written.result()
            written = writer.submit(_write_batches, place, images, together, devices.rows)
            progress.update(sum(map(len, together)))
        if written:
            written.result()


def _filled_up(batches: Sequence[range], devices: Devices) -> np.ndarray:
    """Numbers of images, int [devices x rows]: each device has a batch, of one size.

    What fills up the last batch has numbers of its own after all images, and what devices without
    a batch draw is the first batch again.
    """
    starts = [batch.start for batch in batches]
    starts += starts[:1] * (devices.count - len(starts))
    return (np.array(starts, np.int32)[:, None] + np.arange(devices.rows, dtype=np.int32)).ravel()


def _write_batches(place: _Place, images: np.ndarray, batches: Sequence[range], rows: int) -> None:
    """Write the images of batches, uint8 [at least batches x rows, H, W, 3]."""
    for i, batch in enumerate(batches):
        some = images[i * rows : i * rows + len(batch)]
        write_images(place.output, some, batch.start, place.layout)


def _kept_images(place: _Place, count: int) -> Iterator[np.ndarray]:
    """All images of a directory in their order, some at once.

    Raises:
      InputError: one is not there.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, count, READ):
            indices = range(start, min(start + READ, count))
            images = list(pool.map(lambda i: place.read(i, 1), indices))
            for i, image in zip(indices, images, strict=True):
                if image is None:
                    raise InputError(
                        f"output={place.output}: {place.layout.image(i)}, which was drawn, is not "
                        "there or damaged: expected a directory that all processes see, which "
                        "nothing else changes"
                    )
            yield np.concatenate([image for image in images if image is not None])


def settings_of(generator: Generator, tokenizer: Tokenizer, **others: Any) -> dict[str, Any]:
    """What samples depend on: the models, the code, the device, and `others`, JSON-able."""
    return {
        "generator": generator.fingerprint,
        "network": dataclasses.asdict(generator.network.config),
        "encoder": generator.encoder.get("fingerprint", ""),
        "tokenizer": tokenizer.fingerprint,
        "code": version.of_code(),
        "device": jax.local_devices()[0].device_kind,
        **others,
    }


def written(settings: Mapping[str, Any] | None, count: int) -> Written:
    """The files of so many samples."""
    return Written(settings, PLAIN.files(count))


def begin_from_start(output: epath.PathLike) -> None:
    """Mark a directory for samples that cannot be resumed; removes those that lie there."""
    unfinished.begin(output, written(None, 0), layouts.finished(epath.Path(output)))


def write_images(
    output: epath.Path, images: np.ndarray, start: int = 0, layout: Layout = PLAIN
) -> None:
    """Write uint8 [N, H, W, 3], the images from the number `start` on, as OUTPUT/00000.png ..."""
    paths = [output / layout.image(i) for i in range(start, start + len(images))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(pictures.save, paths, images))


def finish(
    output: epath.Path, images: Iterable[np.ndarray], draw: Draw, layout: Layout = PLAIN
) -> None:
    """Write what lies beside the images, and take the mark off; arguments as Layout.finish."""
    layout.finish(output, images, draw)
    unfinished.end(output)
