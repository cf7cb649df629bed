"""Samples as files: a PNG each, a grid to look at, and samples.npz with all of them.

Until these are there, the directory is marked as unfinished (runtime/unfinished.py); the same
command then goes on with the images that are missing. Images are drawn in batches whose size does
not depend on the number of devices and processes: each device draws one at a time, each process
every so-manieth. No process holds more than it draws, or reads, at once. Letters: N images, H W
image.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

from maskgil_jax.generation import pictures
from maskgil_jax.generation.images import decoder
from maskgil_jax.generation.placing import Devices
from maskgil_jax.generation.samplers import Sampler
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import files, npz, processes, unfinished, version
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.progress import Progress
from maskgil_jax.runtime.unfinished import Written

log = logging.getLogger("maskgil_jax")

INDEX = "samples.npz"
COLUMNS, ROWS = 16, 32  # of grid.png, at most
READ = 64  # images that are read at once for samples.npz


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

    Raises:
      InputError: a directory that cannot be written, or images that cannot be generated.
    """
    output = epath.Path(output)
    row_names = [names[label] for label in labels]
    labels = np.repeat(labels, per_label)
    settings = {
        **settings,
        "images": len(labels),
        "size": size,
        "labels": labels.tolist(),
        "names": row_names,
    }
    resumed = _begin(output, settings, len(labels), removes_unfinished)
    batches = _batches_of_process(output, len(labels), devices.rows, size if resumed else None)
    pixels = decoder(tokenizer, memory, devices.count)
    _generate(sampler, pixels, output, labels, batches, devices)
    processes.wait("images are drawn")
    if processes.first():
        images = _kept_images(output, len(labels), size)
        finish(output, images, size, labels, names, per_label, settings, of_prompts)
    processes.wait("samples are complete")


def _begin(
    output: epath.Path, settings: Mapping[str, Any], count: int, removes_unfinished: bool
) -> bool:
    """Mark the directory; whether images of these settings may be there already."""

    def begin() -> int:
        files_of = written(settings, count)
        resumed = unfinished.begin(output, files_of, _finished(output), removes_unfinished)
        if resumed:
            done = {path.name for path in output.iterdir()} & {*map(_name, range(count))}
            log.info("%s: %d of %d images are there", output, len(done), count)
        return resumed

    return bool(processes.by_first(begin, f"output={output}"))


def _batches_of_process(
    output: epath.Path, count: int, rows: int, size: tuple[int, int] | None
) -> list[range]:
    """The batches that this process has to draw; where there is a size, some may be there."""
    batches = [range(start, min(start + rows, count)) for start in range(0, count, rows)]
    mine = batches[jax.process_index() :: jax.process_count()]
    if size is None:
        return mine

    def is_there(batch: range) -> bool:
        return read_images(output, batch.start, len(batch), size) is not None

    with ThreadPoolExecutor() as pool:
        there = list(pool.map(is_there, mine))
    return [batch for batch, done in zip(mine, there, strict=True) if not done]


def _generate(
    sampler: Sampler,
    pixels: Callable[[Any], np.ndarray],
    output: epath.Path,
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
            written = writer.submit(_write_batches, output, images, together, devices.rows)
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


def _write_batches(
    output: epath.Path, images: np.ndarray, batches: Sequence[range], rows: int
) -> None:
    """Write the images of batches, uint8 [at least batches x rows, H, W, 3]."""
    for i, batch in enumerate(batches):
        write_images(output, images[i * rows : i * rows + len(batch)], batch.start)


def _kept_images(output: epath.Path, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """All images of a directory in their order, some at once.

    Raises:
      InputError: one is not there.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, count, READ):
            indices = range(start, min(start + READ, count))
            images = list(pool.map(lambda i: _read_image(output, i, size), indices))
            for i, image in zip(indices, images, strict=True):
                if image is None:
                    raise InputError(
                        f"output={output}: {_name(i)}, which was drawn, is not there or damaged: "
                        "expected a directory that all processes see, which nothing else changes"
                    )
            yield np.stack([image for image in images if image is not None])


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
    return Written(settings, [*map(_name, range(count)), "grid.png", "latency.json", INDEX])


def begin_from_start(output: epath.PathLike) -> None:
    """Mark a directory for samples that cannot be resumed; removes those that lie there."""
    unfinished.begin(output, written(None, 0), _finished(epath.Path(output)))


def read_images(
    output: epath.Path, start: int, count: int, size: tuple[int, int]
) -> np.ndarray | None:
    """Images start .. start + count - 1, uint8 [count, H, W, 3], or None unless all are there."""
    images = []
    for i in range(start, start + count):
        if (pixels := _read_image(output, i, size)) is None:
            return None
        images.append(pixels)
    return np.stack(images)


def _read_image(output: epath.Path, index: int, size: tuple[int, int]) -> np.ndarray | None:
    try:
        with (output / _name(index)).open("rb") as file, Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError):  # as Pillow calls damage to a PNG
        return None
    return pixels if pixels.shape == (*size, 3) else None


def write_images(output: epath.Path, images: np.ndarray, start: int = 0) -> None:
    """Write uint8 [N, H, W, 3] as OUTPUT/00000.png ..., from the number `start` on."""
    paths = [output / _name(i) for i in range(start, start + len(images))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(pictures.save, paths, images))


def finish(
    output: epath.Path,
    images: Iterable[np.ndarray],
    size: tuple[int, int],
    labels: np.ndarray,
    names: Sequence[str],
    per_label: int,
    settings: Mapping[str, Any],
    of_prompts: bool = False,
) -> None:
    """Write OUTPUT/grid.png and OUTPUT/samples.npz, and take the mark off.

    Args:
      output: directory of the samples.
      images: all, in their order, some at once: uint8 [n, H, W, 3].
      size: (H, W).
      labels: int [N].
      names: as in `write_samples`.
      per_label: images of each label.
      settings: as in `write_samples`, with `images`, their number.
      of_prompts: as in `write_samples`.
    """
    captions = {"captions": np.array([names[label] for label in labels])} if of_prompts else {}
    grid = _Grid([names[label] for label in labels[::per_label]], per_label)
    files.write_npz(
        output / INDEX,
        arr_0=files.InPieces((len(labels), *size, 3), np.uint8, grid.seen(images)),
        labels=labels,
        class_names=np.array(names),
        **captions,
        settings=np.array(files.to_json(settings)),
    )
    pictures.save(output / "grid.png", grid.picture())
    if grid.left_out:
        log.info(
            "%s/grid.png is of the first %d of %d classes, prompts or files",
            *(output, ROWS, ROWS + grid.left_out),
        )
    unfinished.end(output)


class _Grid:
    """The picture of the first images of the first labels, of images that pass by.

    Attributes:
      left_out: number of labels that are not in it.
    """

    def __init__(self, names: Sequence[str], per_label: int):
        """Take the names of all labels, and the number of images of each."""
        self._names, self._per_label = names[:ROWS], per_label
        self.left_out = len(names) - len(self._names)
        self._images: list[np.ndarray] = []

    def seen(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same images, of which those of the grid are kept."""
        number = 0
        for some in images:
            for image in some[: max(0, len(self._names) * self._per_label - number)]:
                if number % self._per_label < COLUMNS:
                    self._images.append(image)
                number += 1
            yield some

    def picture(self) -> np.ndarray:
        """After all images have passed: uint8 [H', W', 3]."""
        columns = min(self._per_label, COLUMNS)
        return pictures.labelled_rows(np.stack(self._images), self._names, columns)


def _name(index: int) -> str:
    return f"{index:05}.png"


def _finished(output: epath.Path) -> Written | None:
    """The files of finished samples in a directory; None where none of ours lie there."""
    path = output / INDEX
    if not path.exists():
        return None
    try:
        text = npz.read_arrays(str(path), only=["settings"])["settings"]
        settings = json.loads(str(text))
        return written(settings, int(settings["images"]))
    except (InputError, ValueError, KeyError, TypeError):
        log.warning("%s is not of samples of this version: what lies beside it stays", path)
        return None
