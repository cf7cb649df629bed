"""Pictures for people to look at: grids and pairs of images, as PNG files."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from maskgil_jax.runtime import files

LONGEST_LABEL = 40  # characters of the name of a row
TITLED = 120  # pixels that an image with a text below is wide at least
TITLE_LINES = 3
SMALLEST = 64  # pixels of a cell: smaller images are enlarged by a whole factor


def save(path: epath.PathLike, picture: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as a PNG, atomically."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    files.write_bytes(path, content.getvalue())


def labelled_rows(images: np.ndarray, names: Sequence[str], columns: int) -> np.ndarray:
    """A row of images for each name, with the name in front.

    Args:
      images: uint8 [len(names) * columns, H, W, 3].
      names: one a row, which are written as `label` gives them.
      columns: images in a row.

    Returns:
      uint8 [H', W', 3].
    """
    font = ImageFont.load_default(size=16)
    names = [label(name) for name in names]
    margin = 16 + int(max(font.getlength(name) for name in names))
    body = _tile(images.reshape(len(names), columns, *images.shape[1:]))
    canvas = Image.new("RGB", (margin + body.shape[1], body.shape[0]), "white")
    canvas.paste(Image.fromarray(body), (margin, 0))
    pen = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        middle = (row + 0.5) * body.shape[0] / len(names)
        pen.text((8, middle), name, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def titled(images: np.ndarray, texts: Sequence[str], columns: int) -> np.ndarray:
    """Images in rows, with a text of up to TITLE_LINES lines below each.

    Args:
      images: uint8 [N, H, W, 3].
      texts: one for each.
      columns: images in a row.

    Returns:
      uint8 [H', W', 3].
    """
    font = ImageFont.load_default(size=12)
    factor = max(1, -(-TITLED // images.shape[2]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, _ = images.shape
    line = 15
    cell_height, cell_width = height + line * TITLE_LINES + 6, width + 6
    rows = -(-count // columns)
    size = (min(columns, count) * cell_width, rows * cell_height)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        x, y = place % columns * cell_width, place // columns * cell_height
        canvas.paste(Image.fromarray(image), (x, y))
        for number, words in enumerate(_wrapped(text, width, font)):
            pen.text((x, y + height + line * number), words, fill="black", font=font)
    return np.asarray(canvas)


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """A text in at most TITLE_LINES lines of so many pixels; what is left over is cut off."""
    rest = " ".join("".join(c if c.isprintable() else "\ufffd" for c in text).split())
    lines: list[str] = []
    while rest and len(lines) < TITLE_LINES:
        fits = len(rest)
        while fits > 1 and font.getlength(rest[:fits]) > width:
            fits -= 1
        space = rest.rfind(" ", 1, fits + 1)
        cut = space if fits < len(rest) and space > 0 else fits
        lines.append(rest[:cut])
        rest = rest[cut:].strip()
    if rest:
        lines[-1] = f"{lines[-1][:-1]}\u2026"
    return lines


def label(name: str) -> str:
    """Any name as one printable line of at most LONGEST_LABEL characters."""
    words = name[: 10 * LONGEST_LABEL].split()
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(words))
    cut = len(line) > LONGEST_LABEL or len(name) > 10 * LONGEST_LABEL
    return f"{line[: LONGEST_LABEL - 3]}..." if cut else line


def pairs(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Originals, uint8 [N, H, W, 3], above their reconstructions."""
    both = np.concatenate([originals, reconstructions])
    return labelled_rows(both, ["original", "reconstructed"], len(originals))


def _tile(images: np.ndarray) -> np.ndarray:
    rows, columns, height, width, _ = images.shape
    factor = max(1, SMALLEST // min(height, width))
    images = images.repeat(factor, axis=2).repeat(factor, axis=3)
    images = np.pad(images, ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
    return images.transpose(0, 2, 1, 3, 4).reshape(
        rows * (height * factor + 2), columns * (width * factor + 2), 3
    )
