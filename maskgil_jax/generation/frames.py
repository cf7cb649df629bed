"""Pictures that are redrawn in part: what of them a model sees, and how the new pixels come back.

Letters: H W picture, h w grid of tokens.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

from maskgil_jax.runtime.errors import InputError

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; the last two not included

KEPT = ("mask", "tokens", "none")  # what keeps its pixels: see `pasted`
# A picture is seen as it is where its area is that of training times or by at most this.
FARTHEST = 2.0
AROUND = 2.0  # sides of the window around what is redrawn, where a picture is larger


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture, and what of it a model sees.

    Attributes:
      picture: uint8 [H, W, 3].
      masked: bool [H, W], true where it is redrawn.
      window: of the picture, which the model sees.
      size: (height, width) in pixels that it is seen at, in whole tokens.
      scaled: the window is scaled to that size; or else filled up to it on the right and below.
    """

    picture: np.ndarray
    masked: np.ndarray
    window: Box
    size: tuple[int, int]
    scaled: bool


def placed(
    picture: np.ndarray, masked: np.ndarray, canvas: tuple[int, int], place: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """A picture on a larger canvas, of which all around it is redrawn.

    Args:
      picture: uint8 [H, W, 3].
      masked: bool [H, W].
      canvas: (width, height) in pixels.
      place: (left, top) of the picture on it; None: in the middle.

    Returns:
      Both at the size of the canvas; what is around the picture repeats its borders.

    Raises:
      InputError: the picture does not fit there.
    """
    left, top = place_of(masked.shape, canvas, place)
    (height, width), (canvas_width, canvas_height) = masked.shape, canvas
    around = ((top, canvas_height - height - top), (left, canvas_width - width - left))
    whole = np.pad(masked, around, constant_values=True)
    return np.pad(picture, (*around, (0, 0)), mode="edge"), whole


def place_of(
    size: tuple[int, ...], canvas: tuple[int, int], place: tuple[int, int] | None
) -> tuple[int, int]:
    """(left, top) on a canvas of a picture of `size`, (height, width); arguments as `placed`.

    Raises:
      InputError: the picture does not fit there.
    """
    (height, width), (canvas_width, canvas_height) = size, canvas
    right, below = canvas_width - width, canvas_height - height
    if right < 0 or below < 0:
        raise InputError(
            f"canvas={canvas_width}x{canvas_height}, expected at least the {width}x{height} pixels "
            "of the image"
        )
    left, top = (right // 2, below // 2) if place is None else place
    if not (0 <= left <= right and 0 <= top <= below):
        raise InputError(
            f"place={left},{top}, expected 0,0 to {right},{below}: the image has to lie on the "
            "canvas"
        )
    return left, top


def frame_of(
    picture: np.ndarray,
    masked: np.ndarray,
    trained: tuple[int, int],
    downsample: int,
    any_grid: bool,
    size: tuple[int, int] | None = None,
) -> Frame:
    """What a model sees of a picture.

    A picture of about the area that the model was trained on is seen as it is. Another is scaled to
    that area, and of a larger one the model sees a window around what is redrawn.

    Args:
      picture: uint8 [H, W, 3].
      masked: bool [H, W].
      trained: (height, width) in pixels that the model was trained on.
      downsample: pixels of a token and side.
      any_grid: the model takes other sizes than that.
      size: (height, width) that the whole picture is scaled to; None: as above.
    """
    height, width = masked.shape
    whole = (0, 0, width, height)
    if size is not None:
        return Frame(picture, masked, whole, size, size != masked.shape)
    factor = height * width / math.prod(trained)
    if masked.shape == trained or (any_grid and 1 / FARTHEST <= factor <= FARTHEST):
        rows, columns = -(-height // downsample), -(-width // downsample)
        return Frame(picture, masked, whole, (rows * downsample, columns * downsample), False)
    window = _window(masked, trained) if factor > 1 else whole
    seen = _scaled_size(window, trained, downsample) if any_grid else trained
    return Frame(picture, masked, window, seen, True)


def _window(masked: np.ndarray, trained: tuple[int, int]) -> Box:
    """Around what is redrawn, in the proportions of training as far as the picture allows it."""
    rows, columns = (np.flatnonzero(masked.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return (0, 0, masked.shape[1], masked.shape[0])
    spans = [(int(places[0]), int(places[-1]) + 1) for places in (rows, columns)]
    factor = max(
        1.0, *(AROUND * (b - a) / side for (a, b), side in zip(spans, trained, strict=True))
    )
    (top, bottom), (left, right) = (
        _interval(span, math.ceil(factor * side), most)
        for span, side, most in zip(spans, trained, masked.shape, strict=True)
    )
    return left, top, right, bottom


def _interval(span: tuple[int, int], length: int, most: int) -> tuple[int, int]:
    """One of this length, or of all there is, with `span` in its middle where that is possible."""
    length = min(length, most)
    first = min(max((span[0] + span[1] - length) // 2, 0), most - length)
    return first, first + length


def _scaled_size(window: Box, trained: tuple[int, int], downsample: int) -> tuple[int, int]:
    """Of the area of training and of the proportions of the window, in whole tokens."""
    left, top, right, bottom = window
    factor = math.sqrt(math.prod(trained) / ((bottom - top) * (right - left)))
    height, width = (
        max(1, round(factor * side / downsample)) * downsample
        for side in (bottom - top, right - left)
    )
    return height, width


def seen(frame: Frame) -> np.ndarray:
    """What the model sees: uint8 of `frame.size`."""
    left, top, right, bottom = frame.window
    part = frame.picture[top:bottom, left:right]
    height, width = frame.size
    if frame.scaled:
        resized = Image.fromarray(part).resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(resized)
    missing = ((0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0))
    return np.pad(part, missing, mode="edge")


def masked_tokens(frame: Frame, downsample: int) -> np.ndarray:
    """The tokens that are redrawn, those with any pixel of the mask: bool [h, w]."""
    left, top, right, bottom = frame.window
    part = frame.masked[top:bottom, left:right]
    height, width = frame.size
    if not frame.scaled:
        part = np.pad(part, ((0, height - part.shape[0]), (0, width - part.shape[1])))
    grid = (width // downsample, height // downsample)
    share = Image.fromarray(part.astype(np.float32)).resize(grid, Image.Resampling.BOX)
    return np.asarray(share) > 0


def pasted(frame: Frame, drawn: np.ndarray, downsample: int, keep: str) -> np.ndarray:
    """The picture with what was drawn, uint8 [H, W, 3].

    Args:
      frame: of the picture.
      drawn: uint8 of `frame.size`.
      downsample: pixels of a token and side.
      keep: "mask": all pixels outside the mask are those of the picture; "tokens": those of tokens
        without a pixel of the mask; "none": all that the model has seen is as it was drawn.
    """
    left, top, right, bottom = frame.window
    size = (right - left, bottom - top)
    where = np.ones(size[::-1], bool)
    if keep == "mask":
        where = frame.masked[top:bottom, left:right]
    elif keep == "tokens":
        tokens = masked_tokens(frame, downsample)
        pixels = tokens.repeat(downsample, axis=0).repeat(downsample, axis=1)
        where = _to_window(pixels.astype(np.uint8), frame, Image.Resampling.NEAREST) > 0
    new = _to_window(drawn, frame, Image.Resampling.LANCZOS)
    result = frame.picture.copy()
    result[top:bottom, left:right][where] = new[where]
    return result


def _to_window(pixels: np.ndarray, frame: Frame, method: Image.Resampling) -> np.ndarray:
    left, top, right, bottom = frame.window
    if not frame.scaled:
        return pixels[: bottom - top, : right - left]
    return np.asarray(Image.fromarray(pixels).resize((right - left, bottom - top), method))
