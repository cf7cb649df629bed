"""What maskgil_jax.edit does: images and masks in files, redrawn, to files."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from maskgil_jax.data.images import image_decoder
from maskgil_jax.generation import (
    asked,
    editing,
    picture_files,
    pictures,
    requests,
    samplers,
    samples,
)
from maskgil_jax.generation.editing import Editing
from maskgil_jax.generation.frames import Frame
from maskgil_jax.generation.options import EditOptions
from maskgil_jax.generation.picture_files import Pair
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime import device_memory, files, unfinished
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.progress import Progress
from maskgil_jax.runtime.regular_files import read_regular_file
from maskgil_jax.runtime.unfinished import Written

log = logging.getLogger("maskgil_jax")

INDEX = "edits.json"  # written last
SHOWN, COLUMNS = 16, 8  # images in grid.png, and pictures of each
CELL = 256  # pixels a side, at most, of an image in it
HIDDEN = (255, 0, 255)  # colour in it of what is redrawn


def edit(options: EditOptions) -> None:
    """Redraw the images of files.

    Writes OUTPUT/NAME-00.png ... for each image NAME, of each condition in turn; OUTPUT/grid.png (a
    row for an image: itself, its mask, and what was made of it) and OUTPUT/edits.json, which says
    what each file shows. What was stopped goes on where it was.

    Raises:
      InputError: images, masks, conditions, models or options that do not fit together.
    """
    described = loading.generator_without_weights(options.model)
    condition, lines = asked.check(options, described)
    given = options.decoding.given()
    editing.check(described, given, options.negative_prompt is not None)
    found = picture_files.pairs(options.image, options.mask)
    inputs = [_checked(pair, options) for pair in found]
    companions = options.companions
    generator, tokenizer = loading.load_pair(
        options.model, companions.tokenizer, companions.verify, options.tensor
    )
    request, about = asked.read(options, condition, generator, lines)
    how = Editing(
        generator,
        tokenizer,
        request,
        options.num,
        given,
        options.seed,
        options.keep,
        options.batch_size,
        options.memory * device_memory.GIB or None,
    )
    settings = samples.settings_of(
        generator,
        tokenizer,
        **about,
        **samplers.description(given, options.seed, generator),
        **_geometry(options),
        labels=how.labels.tolist(),
        inputs=inputs,
    )
    size = _size(options.size, "size")
    seen_at = picture_files.seen_at(size, generator, tokenizer.downsample)

    def frame_of(pair: Pair) -> Frame:
        box, canvas, place = _where(options)
        mask = pair.mask or box
        prepared = picture_files.prepared(pair.image, mask, canvas, place, name=pair.image)
        return how.frame(*prepared, seen_at)

    _write(epath.Path(options.output), found, how, frame_of, settings)


def _geometry(options: EditOptions) -> dict[str, Any]:
    """Options that say where, and with what, an image is redrawn."""
    names = ("box", "canvas", "place", "keep", "size")
    return {name: getattr(options, name) for name in names}


def _size(text: str, name: str) -> tuple[int, int] | None:
    return requests.pixels_of(text, name) if text else None


def _checked(pair: Pair, options: EditOptions) -> str:
    """The hash of an image and its mask; before weights are read, what does not fit is said.

    Raises:
      InputError: no image, a mask of another size, or a place that is outside the image.
    """
    if options.mask and options.box:
        raise InputError("mask and box are given, expected one of them")
    digest = hashlib.sha256()
    sizes = []
    for what, path in (("image", pair.image), ("mask", pair.mask)):
        if not path:
            continue
        try:
            content = read_regular_file(path)
            sizes.append(image_decoder.upright_size(content))
        except Unreadable as error:
            raise InputError(f"{what}={path}: {error}") from None
        digest.update(f"{what} {len(content)}".encode() + content)
    if len(set(sizes)) > 1:
        (height, width), (mask_height, mask_width) = sizes
        raise InputError(
            f"mask={pair.mask} has {mask_width} x {mask_height} pixels, but image={pair.image} has "
            f"{width} x {height}: expected the same size"
        )
    box, canvas, place = _where(options)
    picture_files.check_places(sizes[0], bool(pair.mask or box), box, canvas, place)
    return digest.hexdigest()[:16]


def _where(options: EditOptions) -> tuple[Any, tuple[int, int] | None, Any]:
    """The box, the canvas and the place on it, None where they are not given."""
    return options.box or None, _size(options.canvas, "canvas"), options.place or None


def _write(
    output: epath.Path,
    found: Sequence[Pair],
    how: Editing,
    frame_of: Callable[[Pair], Frame],
    settings: Mapping[str, Any],
) -> None:
    """Redraw the images whose pictures are not there, and write all files."""
    described = _described(found, how)
    written = Written(settings, [*described, "grid.png", INDEX])
    resumed = unfinished.begin(output, written, _finished(output))
    done = [resumed and all((output / n).exists() for n in _names(pair, how)) for pair in found]
    if any(done):
        log.info("%s: %d of %d images are done", output, sum(done), len(found))
    missing = ((i, frame_of(pair)) for i, pair in enumerate(found) if not done[i])
    with Progress(len(found), "image", "editing") as progress:
        progress.update(sum(done), worked=False)
        for number, _, drawn in editing.edit(missing, how):
            for name, pixels in zip(_names(found[number], how), drawn, strict=True):
                pictures.save(output / name, pixels)
            progress.update(1)
    pictures.save(output / "grid.png", _grid(output, found[:SHOWN], how, frame_of))
    files.write_json(output / INDEX, {"settings": settings, "files": described})
    unfinished.end(output)
    log.info("wrote %d pictures of %d images to %s", len(described), len(found), output)


def _grid(
    output: epath.Path, found: Sequence[Pair], how: Editing, frame_of: Callable[[Pair], Frame]
) -> np.ndarray:
    """A row for each image: itself, its mask and what was made of it; uint8 [H, W, 3]."""
    cells, headings = [], ["image", "mask", *_shows(how)[:COLUMNS]]
    for pair in found:
        frame = frame_of(pair)
        hidden = frame.picture.copy()
        hidden[frame.masked] = HIDDEN
        drawn = [picture_files.read(f"{output / n}", "output") for n in _names(pair, how)]
        before = [Image.fromarray(frame.picture), Image.fromarray(hidden)]
        cells += [_cell(image) for image in [*before, *drawn[:COLUMNS]]]
    names = [pair.name for pair in found]
    short = [pictures.label(heading)[:20] for heading in headings]
    return pictures.labelled_rows(np.stack(cells), names, len(headings), short)


def _shows(how: Editing) -> list[str]:
    """What the pictures of an image show, in words."""
    names = how.request.names
    return [str(label) if names is None else names[label] for label in how.labels]


def _names(pair: Pair, how: Editing) -> list[str]:
    return [f"{pair.name}-{i:02}.png" for i in range(len(how.labels))]


def _cell(image: Image.Image) -> np.ndarray:
    """On a white square, and no larger than it was."""
    image = image.copy()
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return np.asarray(cell)


def _described(found: Sequence[Pair], how: Editing) -> dict[str, dict[str, Any]]:
    """Of each file, by name: the image and mask that it is made of, and what is drawn in it."""
    shows = _shows(how)
    return {
        name: {"image": pair.image, "mask": pair.mask, "shows": shows[i], "number": i}
        for pair in found
        for i, name in enumerate(_names(pair, how))
    }


def _finished(output: epath.Path) -> Written | None:
    """The files of finished edits in a directory; None where none of ours lie there."""
    path = output / INDEX
    if not path.exists():
        return None
    try:
        content = files.read_json(path, {"settings": dict, "files": dict})
    except InputError:
        log.warning("%s is damaged: what lies beside it stays", path)
        return None
    return Written(content["settings"], [*content["files"], "grid.png", INDEX])
