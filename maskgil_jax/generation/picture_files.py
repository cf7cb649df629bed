"""Pictures and masks as a user gives them: PIL images, arrays, files, boxes, folders of files."""

import logging
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from maskgil_jax.data.images import image_decoder
from maskgil_jax.data.records.image_records import is_image
from maskgil_jax.generation import frames, requests
from maskgil_jax.generation.frames import Box
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import read_regular_file

log = logging.getLogger("maskgil_jax")

Picture = Image.Image | npt.NDArray[Any] | str | os.PathLike[str]
MaskLike = Picture | Box

WHITE = 128  # levels from which on a mask is white


class Pair(NamedTuple):
    """An image file and its mask.

    Attributes:
      name: of the image, without what its suffix is.
      image: path.
      mask: path; "" for none.
    """

    name: str
    image: str
    mask: str


def prepared(
    image: Picture,
    mask: MaskLike | None,
    canvas: tuple[int, int] | None = None,
    place: tuple[int, int] | None = None,
    name: str = "image",
) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 [H, W, 3], and where it is redrawn, bool [H, W].

    Args:
      image, mask: as Pipeline.edit takes them.
      canvas, place: as frames.placed.
      name: of the image in messages.

    Raises:
      InputError: neither a mask nor a larger canvas; a mask of another size; or something that is
        no image.
    """
    picture = _pixels(image, "image")
    box = mask if isinstance(mask, tuple) else None
    check_places(picture.shape[:2], mask is not None, box, canvas, place)
    masked = np.zeros(picture.shape[:2], bool) if mask is None else _mask(mask, picture, name)
    if canvas is not None:
        picture, masked = frames.placed(picture, masked, canvas, place)
    if not masked.any():
        log.warning("%s: the mask is empty, and nothing is redrawn", name)
    return picture, masked


def _mask(given: MaskLike, picture: np.ndarray, name: str) -> np.ndarray:
    height, width = picture.shape[:2]
    if isinstance(given, tuple):
        left, top, right, bottom = given
        masked = np.zeros((height, width), bool)
        masked[top:bottom, left:right] = True
        return masked
    if isinstance(given, np.ndarray) and given.dtype == bool:
        masked = given
    elif isinstance(given, np.ndarray) and given.ndim == 2:
        if given.dtype != np.uint8:
            raise InputError(f"mask is {given.dtype} {given.shape}, expected bool or uint8 [H, W]")
        masked = given >= WHITE
    else:
        masked = np.asarray(Image.fromarray(_pixels(given, "mask")).convert("L")) >= WHITE
    if masked.shape != (height, width):
        sizes = " x ".join(map(str, masked.shape[1::-1]))
        raise InputError(
            f"mask of {sizes} pixels for {name} of {width} x {height}, expected the same size"
        )
    return masked


def check_places(
    size: tuple[int, ...],
    with_mask: bool,
    box: tuple[int, ...] | None,
    canvas: tuple[int, int] | None,
    place: tuple[int, ...] | None,
) -> None:
    """Refuse what no image of this (height, width) can be redrawn by; arguments as `prepared`.

    Raises:
      InputError: a box or a place outside, or nothing of all these is given.
    """
    if not with_mask and canvas is None:
        raise InputError("one of mask, box and canvas is expected (what is redrawn), none given")
    if box is not None:
        _check_box(box, size)
    if place is None:
        return
    if canvas is None or len(place) != 2:
        raise InputError(
            f"place={','.join(map(str, place))}, expected LEFT,TOP of the image on a canvas"
        )
    frames.place_of(size, canvas, (place[0], place[1]))


def _check_box(box: tuple[int, ...], size: tuple[int, ...]) -> None:
    height, width = size
    if len(box) != 4 or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
        raise InputError(
            f"box={','.join(map(str, box))}, expected LEFT,TOP,RIGHT,BOTTOM in an image of "
            f"{width} x {height} pixels"
        )


def _pixels(given: Picture, what: str) -> np.ndarray:
    """Upright RGB, uint8 [H, W, 3]; transparency is blended on white."""
    if isinstance(given, str | os.PathLike):
        return np.asarray(read(os.fspath(given), what))
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or not given.size:
            raise InputError(f"{what} is {given.dtype} {given.shape}, expected uint8 [H, W, 3]")
        return given
    if not isinstance(given, Image.Image):
        raise InputError(
            f"{what} is a {type(given).__name__}, expected a PIL image, an array or a path"
        )
    upright = ImageOps.exif_transpose(given)
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.asarray(upright.convert("RGB"))


def read(path: str, what: str) -> Image.Image:
    """The image of a file, upright, RGB; InputError where there is none, which calls it `what`."""
    try:
        return image_decoder.decode(read_regular_file(path))
    except Unreadable as error:
        raise InputError(f"{what}={path}: {error}") from None


def seen_at(
    size: tuple[int, int] | None, generator: Generator, downsample: int
) -> tuple[int, int] | None:
    """(height, width) of (width, height) that a picture is scaled to; None stays.

    Raises:
      InputError: it is not in whole tokens, or the model draws one size only.
    """
    if size is None:
        return None
    height, width = requests.grid_of(f"{size[0]}x{size[1]}", downsample)
    if (height, width) != generator.grid and not generator.network.config.fits_any_grid:
        only = "x".join(str(side * downsample) for side in generator.grid[::-1])
        raise InputError(f"size={size[0]}x{size[1]}, but this model draws {only} only")
    return height * downsample, width * downsample


def pairs(image: str, mask: str) -> list[Pair]:
    """The images of a file or folder, in the order of their names, with their masks.

    Args:
      image: a file, or a folder of them.
      mask: a file for all of them, or a folder with one of each name, of any suffix; "": none.

    Raises:
      InputError: no image there, two of one name, or images without a mask.
    """
    found = _files(image, "image")
    if not mask or not os.path.isdir(mask):
        return [Pair(name, path, mask) for name, path in found.items()]
    masks = _files(mask, "mask")
    if missing := sorted(found.keys() - masks.keys()):
        raise InputError(
            f"mask={mask}: {len(missing)} of {len(found)} images have no mask of their name, the "
            f"first is {missing[0]}"
        )
    if others := sorted(masks.keys() - found.keys()):
        log.warning("%s: %d masks are of no image, the first is %s", mask, len(others), others[0])
    return [Pair(name, path, masks[name]) for name, path in found.items()]


def _files(path: str, what: str) -> dict[str, str]:
    """Image files by their names without suffix."""
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise InputError(f"{what}={path}: there is no such file or folder")
        return {pathlib.Path(path).stem: path}
    names = sorted(name for name in os.listdir(path) if is_image(name))
    if not names:
        raise InputError(f"{what}={path}: there is no image in it")
    files: dict[str, str] = {}
    for name in names:
        stem = pathlib.Path(name).stem
        if stem in files:
            other = os.path.basename(files[stem])
            raise InputError(f"{what}={path} has {other} and {name}, expected names that differ")
        files[stem] = os.path.join(path, name)
    return files
