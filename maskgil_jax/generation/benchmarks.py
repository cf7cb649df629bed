"""Images laid out as the programs of GenEval and of DPG-Bench take them.

Letters: n images of a prompt, H W image.
"""

import hashlib
import json
import logging
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.data.records import captions
from maskgil_jax.generation import layouts, pictures, requests
from maskgil_jax.generation.layouts import Draw, read_png
from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")

PUBLISHED = 4  # images of a prompt, in both benchmarks
GAP = 2  # pixels around images of GenEval's grid.png, as torchvision's make_grid has them


def of_benchmark(name: str, prompts: str, count: int) -> "tuple[GenEval | DpgBench, list[str]]":
    """The layout of a benchmark, and its prompts.

    Args:
      name: "geneval" or "dpg".
      prompts: its own file or folder of them.
      count: images of each prompt.

    Raises:
      InputError: other prompts, or a number of images that its program does not take.
    """
    if not prompts:
        expected = "evaluation_metadata.jsonl" if name == "geneval" else "FOLDER of NAME.txt"
        raise InputError(f"layout={name} goes with prompts={expected}, which are not given")
    kind = GenEval if name == "geneval" else DpgBench
    layout = kind(prompts, count)
    if count != PUBLISHED:
        log.warning("published numbers of %s are of %d images a prompt", name, PUBLISHED)
    return layout, layout.prompts


class GenEval:
    """00000/samples/0000.png ..., 00000/metadata.jsonl and 00000/grid.png for prompt 0, and so on.

    `metadata.jsonl` is the line of the prompt, and grid.png has its images in one row, as the
    official script makes it of a batch of all of them. That script writes five digits (00000.png),
    the README four; the program that scores takes any number of them.

    Args:
      path: of evaluation_metadata.jsonl.
      count: images of each prompt.

    Attributes:
      prompts: texts, in the order of the lines.

    Raises:
      InputError: no such file, or a line that its program could not use.

    Source: djghosh13/geneval: README.md ("The generated format should be"),
    generation/diffusers_generate.py, evaluation/evaluate_images.py.
    """

    overwrites = False

    def __init__(self, path: str, count: int):
        lines = _text(path, "prompts").rstrip("\n").split("\n")
        self._metadata = [_metadata_of(path, i, line) for i, line in enumerate(lines, 1)]
        self.prompts = [str(metadata["prompt"]) for metadata in self._metadata]
        self._count = count
        digest = hashlib.sha256(json.dumps(self._metadata).encode()).hexdigest()
        self.settings: Mapping[str, Any] | None = {"name": "geneval", "metadata": digest}

    def check_size(self, height: int, width: int) -> None:
        """As layouts.Layout: any size."""

    def image(self, index: int) -> str:
        """As layouts.Layout."""
        return f"{index // self._count:05}/samples/{index % self._count:04}.png"

    def files(self, count: int) -> list[str]:
        """As layouts.Layout."""
        beside = ("metadata.jsonl", "grid.png")
        folders = range(len(self.prompts))
        return [
            *map(self.image, range(count)),
            *(f"{folder:05}/{name}" for folder in folders for name in beside),
            layouts.RECORD,
        ]

    def is_drawn(self, index: int, there: Container[str]) -> bool:
        """As layouts.Layout."""
        return self.image(index) in there

    def read(self, output: epath.Path, index: int, size: tuple[int, int]) -> np.ndarray | None:
        """As layouts.Layout."""
        return read_png(output / self.image(index), size)

    def finish(self, output: epath.Path, images: Iterable[np.ndarray], draw: Draw) -> None:
        """As layouts.Layout."""
        for number, together in enumerate(_by_prompt(images, self._count)):
            folder = output / f"{number:05}"
            pictures.save(folder / "grid.png", _row(together))
            files.write_bytes(
                folder / "metadata.jsonl", json.dumps(self._metadata[number]).encode()
            )
        layouts.write_record(output, self, draw)


class DpgBench:
    """NAME.png for each prompt NAME.txt: its four images in a square, or its only one.

    Until all are drawn, the images lie in `parts`. The program lists all files of the directory: it
    says of samples.json, as of its own results, that it failed with it, and goes on.

    Args:
      path: folder of NAME.txt.
      count: images of each prompt, 4 or 1.

    Attributes:
      prompts: texts, in the order of the names.

    Raises:
      InputError: no such folder, no prompts in it, a name that the program would cut, or another
        number of images.

    Source: TencentQQGYLab/ELLA, dpg_bench/compute_dpg_bench.py: images are cut out of one at
    multiples of its resolution, left to right and then downwards, without a gap; its item is what
    stands before the first dot of its name. dpg_bench/dist_eval.sh takes four.
    """

    overwrites = False

    def __init__(self, path: str, count: int):
        if count not in (1, PUBLISHED):
            raise InputError(f"num={count} images of a prompt: layout=dpg takes {PUBLISHED}, or 1")
        self._count, self._columns = count, 2 if count == PUBLISHED else 1
        texts = _texts_of(path)
        self._names, self.prompts = list(texts), list(texts.values())
        self.settings: Mapping[str, Any] | None = {"name": "dpg", "files": self._names}

    def check_size(self, height: int, width: int) -> None:
        """As layouts.Layout."""
        if height != width:
            raise InputError(
                f"layout=dpg: images of {width} x {height}, expected squares, by whose side its "
                "program cuts them apart"
            )

    def image(self, index: int) -> str:
        """As layouts.Layout."""
        return f"parts/{index:05}.png"

    def files(self, count: int) -> list[str]:
        """As layouts.Layout."""
        wholes = (f"{name}.png" for name in self._names)
        return [*map(self.image, range(count)), *wholes, layouts.RECORD]

    def is_drawn(self, index: int, there: Container[str]) -> bool:
        """As layouts.Layout."""
        whole = f"{self._names[index // self._count]}.png"
        return self.image(index) in there or whole in there

    def read(self, output: epath.Path, index: int, size: tuple[int, int]) -> np.ndarray | None:
        """As layouts.Layout; from the whole picture of its prompt, where it has none of its own."""
        pixels = read_png(output / self.image(index), size)
        if pixels is not None:
            return pixels
        prompt, place = divmod(index, self._count)
        (height, width), columns = size, self._columns
        whole = read_png(output / f"{self._names[prompt]}.png", (height * columns, width * columns))
        top, left = place // columns * height, place % columns * width
        return None if whole is None else whole[top : top + height, left : left + width]

    def finish(self, output: epath.Path, images: Iterable[np.ndarray], draw: Draw) -> None:
        """As layouts.Layout."""
        for name, together in zip(self._names, _by_prompt(images, self._count), strict=True):
            rows = [
                np.concatenate(list(together[i : i + self._columns]), axis=1)
                for i in range(0, self._count, self._columns)
            ]
            pictures.save(output / f"{name}.png", np.concatenate(rows))
        layouts.write_record(output, self, draw)
        parts = output / os.path.dirname(self.image(0))
        if parts.exists():
            parts.rmtree()


def _by_prompt(images: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The images of each prompt, uint8 [n, H, W, 3], of images some at once."""
    waiting: list[np.ndarray] = []
    for some in images:
        for image in some:
            waiting.append(image)
            if len(waiting) == count:
                yield np.stack(waiting)
                waiting = []


def _row(images: np.ndarray) -> np.ndarray:
    """Images, uint8 [n, H, W, 3], side by side on black."""
    count, height, width, _ = images.shape
    row = np.zeros((height + 2 * GAP, count * (width + GAP) + GAP, 3), np.uint8)
    for i, image in enumerate(images):
        left = GAP + i * (width + GAP)
        row[GAP : GAP + height, left : left + width] = image
    return row


def _text(path: str | epath.Path, what: str) -> str:
    try:
        return captions.decode(epath.Path(path).read_bytes())
    except (OSError, Unreadable) as error:
        raise InputError(f"{what}={path}: {error}") from None


def _metadata_of(path: str, number: int, line: str) -> Mapping[str, Any]:
    """A line of evaluation_metadata.jsonl; InputError where it is none."""
    where = f"prompts={path}: line {number}"
    try:
        metadata = captions.load_json(line.encode(), ("prompt", "tag"))
    except Unreadable as error:
        raise InputError(f"{where}: {error}") from None
    files.check_object(metadata, {"prompt": str, "tag": str}, where)
    requests.check_prompt(metadata["prompt"], where)
    return dict(metadata)


def _texts_of(path: str) -> dict[str, str]:
    """The texts of a folder of NAME.txt, by NAME, in the order of the names."""
    if not epath.Path(path).is_dir():
        raise InputError(f"prompts={path}: there is no such folder, expected one of NAME.txt")
    names = sorted(entry.name for entry in epath.Path(path).iterdir())
    texts = {}
    for name in (name for name in names if name.endswith(".txt")):
        stem = name.removesuffix(".txt")
        if "." in stem:
            raise InputError(
                f"prompts={path}: {name} has a dot in its name, at which the program of DPG-Bench "
                "would cut it: expected names without"
            )
        text = " ".join(captions.lines(_text(epath.Path(path) / name, "prompts"))).strip()
        requests.check_prompt(text, f"prompts={path}/{name}")
        texts[stem] = text
    if not texts:
        raise InputError(f"prompts={path}: no NAME.txt in it, expected a prompt in each")
    if others := len(names) - len(texts):
        log.info("%s: %d prompts; %d other files are not used", path, len(texts), others)
    return texts
