"""Where the files of a draw lie, and what lies beside its images.

Letters: N images, n some of them, H W image.
"""

import json
import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from etils import epath
from PIL import Image

from maskgil_jax.generation import pictures
from maskgil_jax.runtime import files, npz
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.unfinished import Written

log = logging.getLogger("maskgil_jax")

INDEX = "samples.npz"
RECORD = "samples.json"  # of layouts without an index
COLUMNS, ROWS = 16, 32  # of grid.png, at most


class Draw(NamedTuple):
    """What the files of a draw say beside its images.

    Attributes:
      size: (H, W).
      labels: int [N], of each image.
      names: of all labels.
      per_label: images of each label.
      settings: JSON-able.
      of_prompts: whether names are prompts.
    """

    size: tuple[int, int]
    labels: np.ndarray
    names: Sequence[str]
    per_label: int
    settings: Mapping[str, Any]
    of_prompts: bool = False


class Layout(Protocol):
    """Where files lie, by paths below the directory of a draw.

    Attributes:
      settings: what of it the files depend on, JSON-able; None: nothing.
      overwrites: whether it may write over files that no draw has left there.
    """

    settings: Mapping[str, Any] | None
    overwrites: bool

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for images of a size, or of sides like these, that cannot lie so."""

    def image(self, index: int) -> str:
        """Where an image is written as soon as it is drawn."""

    def files(self, count: int) -> list[str]:
        """All files that a draw of so many images writes at any time."""

    def is_drawn(self, index: int, there: Container[str]) -> bool:
        """Whether an image is among files that are there."""

    def read(self, output: epath.Path, index: int, size: tuple[int, int]) -> np.ndarray | None:
        """An image that was drawn, uint8 [H, W, 3]; None where it is not there, or damaged."""

    def finish(self, output: epath.Path, images: Iterable[np.ndarray], draw: Draw) -> None:
        """Write what lies beside the images.

        Args:
          output: directory.
          images: all, in their order, some at once: uint8 [n, H, W, 3].
          draw: see Draw.
        """


class Plain:
    """00000.png ..., grid.png and samples.npz, as `samples.write_samples` says."""

    settings: Mapping[str, Any] | None = None
    overwrites = True

    def check_size(self, height: int, width: int) -> None:
        """As Layout: any size."""

    def image(self, index: int) -> str:
        """As Layout."""
        return f"{index:05}.png"

    def files(self, count: int) -> list[str]:
        """As Layout."""
        return [*map(self.image, range(count)), "grid.png", "latency.json", INDEX]

    def is_drawn(self, index: int, there: Container[str]) -> bool:
        """As Layout."""
        return self.image(index) in there

    def read(self, output: epath.Path, index: int, size: tuple[int, int]) -> np.ndarray | None:
        """As Layout."""
        return read_png(output / self.image(index), size)

    def finish(self, output: epath.Path, images: Iterable[np.ndarray], draw: Draw) -> None:
        """As Layout."""
        of_images = [draw.names[label] for label in draw.labels]
        grid = _Grid(of_images[:: draw.per_label], draw.per_label)
        shape = (len(draw.labels), *draw.size, 3)
        files.write_npz(
            output / INDEX,
            arr_0=files.InPieces(shape, np.uint8, grid.seen(images)),
            labels=draw.labels,
            class_names=np.array(draw.names),
            **({"captions": np.array(of_images)} if draw.of_prompts else {}),
            settings=np.array(files.to_json(draw.settings)),
        )
        pictures.save(output / "grid.png", grid.picture())
        if grid.left_out:
            log.info(
                "%s/grid.png is of the first %d of %d classes, prompts or files",
                *(output, ROWS, ROWS + grid.left_out),
            )


PLAIN: Layout = Plain()


def write_record(output: epath.Path, layout: Layout, draw: Draw) -> None:
    """Write RECORD, by which `finished` knows what lies there."""
    content = Written(draw.settings, layout.files(len(draw.labels)))
    files.write_json(output / RECORD, content._asdict())


def finished(output: epath.Path) -> Written | None:
    """The files of a finished draw in a directory; None where none of ours lie there."""
    path = output / INDEX
    try:
        if path.exists():
            text = npz.read_arrays(str(path), only=["settings"])["settings"]
            settings = json.loads(str(text))
            return Written(settings, PLAIN.files(int(settings["images"])))
        path = output / RECORD
        if path.exists():
            content = files.read_json(path, {"settings": dict, "files": list})
            return Written(content["settings"], list(map(str, content["files"])))
    except (InputError, ValueError, KeyError, TypeError):
        log.warning("%s is not of samples of this version: what lies beside it stays", path)
    return None


def read_png(path: epath.Path, size: tuple[int, int]) -> np.ndarray | None:
    """The pixels of a PNG, uint8 [H, W, 3]; None where there is none of this size, or a damaged."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError):  # as Pillow calls damage to a PNG
        return None
    return pixels if pixels.shape == (*size, 3) else None


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
