"""Draws as files: a PNG each, a grid to look at, and samples.npz, which is written last.

Until that is there, the directory is marked as unfinished (runtime/unfinished.py); the same draw
then goes on with the images that are missing. Letters: N images, H W image.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

from maskgil_jax.generation import pictures
from maskgil_jax.generation.images import Sample, pixels
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
    sample: Sample,
    tokenizer: Tokenizer,
    output: epath.PathLike,
    *,
    settings: Mapping[str, Any],
    size: tuple[int, int],
    labels: np.ndarray,
    names: Sequence[str],
    per_label: int,
    batch_size: int,
) -> None:
    """Draw `per_label` images of each label; one that was stopped goes on.

    Writes OUTPUT/00000.png ..., OUTPUT/grid.png (a labelled row per label, at most 16 columns) and
    OUTPUT/samples.npz (`arr_0` uint8 NHWC, `labels` int64, `class_names`, and `settings` in JSON).
    What an earlier draw of other settings wrote there is removed.

    Args:
      sample: draws the codes.
      tokenizer: turns codes into images.
      output: directory, made if needed.
      settings: JSON-able, all that image i depends on besides i and its label; see `settings_of`.
      size: (height, width) of the images in pixels.
      labels: int [N], class ids or rows, as `sample` takes them.
      names: of all classes or rows.
      per_label: images of each.
      batch_size: images drawn at once.

    Raises:
      InputError: a directory that cannot be written, or images that cannot be drawn.
    """
    output, labels = epath.Path(output), np.repeat(labels, per_label)
    settings = {
        **settings,
        "images": len(labels),
        "size": size,
        "labels": labels.tolist(),
        "names": [names[label] for label in labels[::per_label]],
    }
    goes_on = unfinished.begin(output, written(settings, len(labels)), _finished(output))
    if goes_on:
        there = sum((output / _name(i)).exists() for i in range(len(labels)))
        log.info("%s: %d of %d images are there", output, there, len(labels))
    parts = []
    with Progress(len(labels), "image", "drawing") as progress:
        # By whole batches, as without a stop: the same program then makes the same pixels.
        for start, count, batch in fixed_batches(labels, batch_size):
            images = read_images(output, start, count, size) if goes_on else None
            worked = images is None
            if images is None:
                images = pixels(tokenizer, sample(batch, start))[:count]
                write_images(output, images, start)
            parts.append(images)
            progress.update(count, worked=worked)
    finish(output, np.concatenate(parts), labels, names, per_label, settings)


def settings_of(generator: Generator, tokenizer: Tokenizer, **others: Any) -> dict[str, Any]:
    """What drawn images depend on: the models, the code, the device, and `others`, JSON-able."""
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
    """The files of a draw of so many images."""
    return Written(settings, [*map(_name, range(count)), "grid.png", "latency.json", INDEX])


def begin_anew(output: epath.PathLike) -> None:
    """Mark a directory for a draw that cannot go on; removes what an earlier one wrote there."""
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
      output: directory of the draw.
      images: uint8 [N, H, W, 3].
      labels: int [N].
      names: as in `write_samples`.
      per_label: images of each label.
      settings: as in `write_samples`, with `images`, their number.
    """
    shown = min(per_label, 16)
    first = images.reshape(-1, per_label, *images.shape[1:])[:, :shown]
    row_names = [names[label] for label in labels[::per_label]]
    grid = pictures.labelled_rows(np.concatenate(first), row_names, shown)
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
    """What a draw that was finished has written; None where none of ours lies there."""
    path = output / INDEX
    if not path.exists():
        return None
    try:
        said = npz.read_arrays(str(path), only=["settings"])["settings"]
        settings = json.loads(str(said))
        return written(settings, int(settings["images"]))
    except (InputError, ValueError, KeyError, TypeError):
        log.warning("%s is not of a draw of this version: what lies beside it stays", path)
        return None
