"""Samples as files: a PNG each, a grid to look at, and samples.npz, which is written last.

Until that is there, the directory is marked as unfinished (runtime/unfinished.py); the same command
then goes on with the images that are missing. Letters: N images, H W image.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

from maskgil_jax.generation import pictures
from maskgil_jax.generation.images import decoder
from maskgil_jax.generation.samplers import Sampler
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import files, npz, unfinished, version
from maskgil_jax.runtime.batches import fixed_batches
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.progress import Progress
from maskgil_jax.runtime.unfinished import Written

log = logging.getLogger("maskgil_jax")

INDEX = "samples.npz"


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
    batch_size: int,
    memory: float | None = None,
) -> None:
    """Generate `per_label` images of each label; after a stop, those that are missing.

    Writes OUTPUT/00000.png ..., OUTPUT/grid.png (a labelled row per label, at most 16 columns) and
    OUTPUT/samples.npz (`arr_0` uint8 NHWC, `labels` int64, `class_names`, and `settings` in JSON).
    Samples of other settings that lie there are removed.

    Args:
      sampler: labels to codes.
      tokenizer: codes to images.
      output: directory, made if needed.
      settings: JSON-able, all that image i depends on besides i and its label; see `settings_of`.
      size: (height, width) of the images in pixels.
      labels: int [K], class ids or rows, as the sampler takes them.
      names: of all classes or rows.
      per_label: images of each.
      batch_size: images generated at once.
      memory: of the tokenizer, see images.decoder.

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
    resumed = unfinished.begin(output, written(settings, len(labels)), _finished(output))
    if resumed:
        done = sum((output / _name(i)).exists() for i in range(len(labels)))
        log.info("%s: %d of %d images are there", output, done, len(labels))
    pixels = decoder(tokenizer, memory)
    images = _generate(sampler, pixels, output, labels, size, batch_size, resumed)
    finish(output, images, labels, names, per_label, settings)


def _generate(
    sampler: Sampler,
    pixels: Callable[[Any], np.ndarray],
    output: epath.Path,
    labels: np.ndarray,
    size: tuple[int, int],
    batch_size: int,
    resumed: bool,
) -> np.ndarray:
    """Write the images that are missing in a directory; returns all, uint8 [N, H, W, 3]."""
    batches = []
    with Progress(len(labels), "image", "sampling") as progress:
        # By whole batches, as without a stop: the same program then gives the same pixels.
        for start, count, batch in fixed_batches(labels, batch_size):
            images = read_images(output, start, count, size) if resumed else None
            worked = images is None
            if images is None:
                images = pixels(sampler(batch, start))[:count]
                write_images(output, images, start)
            batches.append(images)
            progress.update(count, worked=worked)
    return np.concatenate(batches)


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
        try:
            with (output / _name(i)).open("rb") as file, Image.open(file) as image:
                pixels = np.asarray(image)
        except (OSError, ValueError, SyntaxError):  # as Pillow calls damage to a PNG
            return None
        if pixels.shape != (*size, 3):
            return None
        images.append(pixels)
    return np.stack(images)


def write_images(output: epath.Path, images: np.ndarray, start: int = 0) -> None:
    """Write uint8 [N, H, W, 3] as OUTPUT/00000.png ..., from the number `start` on."""
    paths = [output / _name(i) for i in range(start, start + len(images))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(pictures.save, paths, images))


def finish(
    output: epath.Path,
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    per_label: int,
    settings: Mapping[str, Any],
) -> None:
    """Write OUTPUT/grid.png and then OUTPUT/samples.npz, and take the mark off.

    Args:
      output: directory of the samples.
      images: uint8 [N, H, W, 3].
      labels: int [N].
      names: as in `write_samples`.
      per_label: images of each label.
      settings: as in `write_samples`, with `images`, their number.
    """
    columns = min(per_label, 16)
    first = images.reshape(-1, per_label, *images.shape[1:])[:, :columns]
    row_names = [names[label] for label in labels[::per_label]]
    grid = pictures.labelled_rows(np.concatenate(first), row_names, columns)
    pictures.save(output / "grid.png", grid)
    files.write_npz(
        output / INDEX,
        arr_0=images,
        labels=labels,
        class_names=np.array(names),
        settings=np.array(files.to_json(settings)),
    )
    unfinished.end(output)


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
