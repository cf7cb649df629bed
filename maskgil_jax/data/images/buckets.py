"""Lists of image sizes for training at several resolutions, and which of them an image gets.

Letters: N images, S sizes of a list.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from maskgil_jax.data.images import image_decoder
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

Size = tuple[int, int]  # (height, width)


class WithImage(Protocol):
    """A record that holds the bytes of an image file, as those of sources do."""

    @property
    def image(self) -> bytes:
        """The bytes of the file."""


class WithImages(Protocol):
    """Random access to records with images, as sources give it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> WithImage: ...


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Sizes that images are cropped to.

    Attributes:
      name: key of LISTS; "": images are cropped to one square.
      sizes: in pixels.
    """

    name: str
    sizes: tuple[Size, ...]

    def nearest(self, heights_N: np.ndarray, widths_N: np.ndarray) -> np.ndarray:
        """The size that loses least of each image, as its number in `sizes`: int [N]."""
        if len(self.sizes) == 1:
            return np.zeros(len(heights_N), int)
        ratios_S = np.array([height / width for height, width in self.sizes])
        # Few images at a time: the table of all images and sizes would be large.
        chunks = np.array_split(heights_N / widths_N, max(1, len(heights_N) // 4096))
        fit = LISTS[self.name].fit
        return np.concatenate([fit(chunk[:, None], ratios_S).argmax(axis=1) for chunk in chunks])

    def of_images(self, source: WithImages) -> np.ndarray:
        """The number in `sizes` of the size that each image of a source gets: uint16 [N].

        All their headers are read, where there are several sizes. What cannot be read counts as
        square.
        """
        total = len(source)
        if len(self.sizes) == 1:
            return np.zeros(total, np.uint16)

        def size(index: int) -> Size:
            try:
                return image_decoder.upright_size(source[index].image)
            except image_decoder.UnreadableImage:
                return 1, 1

        sizes_N2 = np.empty((total, 2), np.int32)  # tuples would take a hundred bytes an image
        with (
            ThreadPoolExecutor(16) as pool,
            tqdm(total=total, desc="sizes of images", unit="image", disable=None) as progress,
        ):
            for start in range(0, total, 4096):
                chunk = range(start, min(start + 4096, total))
                sizes_N2[start : chunk.stop] = list(pool.map(size, chunk))
                progress.update(len(chunk))
        return self.nearest(*sizes_N2.T).astype(np.uint16)

    def grids(self, downsample: int) -> tuple[Size, ...]:
        """The sizes in tokens."""
        return tuple((height // downsample, width // downsample) for height, width in self.sizes)


def named(name: str, image_size: int, downsample: int) -> Buckets:
    """The bucket list of this name about squares of this size.

    Args:
      name: key of LISTS, or "" for squares only.
      image_size: side of the squares, in pixels; all sizes have about their area.
      downsample: pixels of a token and side; all sides are multiples of it.

    Raises:
      InputError: an unknown name, or a size that there is no such list for.
    """
    if not name:
        return Buckets("", ((image_size, image_size),))
    if name not in LISTS:
        raise InputError(f"buckets = {name!r}, expected one of {', '.join(LISTS)}, or '' (squares)")
    multiple = LISTS[name].multiple
    if image_size % (multiple * downsample):
        raise InputError(
            f"image_size = {image_size} with buckets = {name!r}: expected a multiple of "
            f"{multiple * downsample}, for sides in whole tokens of {downsample} pixels"
        )
    return Buckets(name, LISTS[name].sizes(image_size, downsample))


class Compilations:
    """Logs when a size comes for the first time, for which programs are then compiled.

    Args:
      grids: (height, width) in tokens of all that may come.
    """

    def __init__(self, grids: Sequence[Size]):
        self._grids = grids
        self._seen: set[int] = set()

    def note(self, number: int) -> None:
        """Take in the number of a size that is about to be used."""
        if number in self._seen or len(self._grids) == 1:
            return
        self._seen.add(number)
        height, width = self._grids[number]
        count, most = len(self._seen), len(self._grids)
        log.info(
            "compiling for %d x %d tokens (%d of at most %d sizes)", width, height, count, most
        )


# Sides of PixArt-sigma's ASPECT_RATIO_512, as height x width over 32.
PIXART = """
8x32 8x31 8x30 8x29 9x28 9x27 9x26 10x25 10x24 11x23 11x22 11x21 12x21 12x20 13x19 13x18 14x18 14x17
15x17 15x16 16x16 16x15 17x15 17x14 18x14 18x13 19x13 20x12 21x12 22x11 23x11 24x10 25x10 26x9 27x9
28x9 29x8 30x8 31x8 32x8
"""


def pixart(image_size: int, downsample: int) -> tuple[Size, ...]:
    """The 40 sizes of PixArt-sigma: its list for 512 pixels, halved for 256, doubled for 1024."""
    del downsample
    sides = ([int(side) for side in size.split("x")] for size in PIXART.split())
    return tuple((h * image_size // 16, w * image_size // 16) for h, w in sides)


def lumina(image_size: int, downsample: int, largest_ratio: float = 4.0) -> tuple[Size, ...]:
    """Sizes in patches of 2 x 2 tokens, at most as many as in the square, widest first.

    Source: Alpha-VLLM/Lumina-mGPT, `generate_crop_size_list`.
    """
    patch = 2 * downsample
    most = (image_size // patch) ** 2
    sizes, height, width = [], 1, most
    while width > 0:
        if max(height, width) <= largest_ratio * min(height, width):
            sizes.append((height * patch, width * patch))
        if (height + 1) * width <= most:
            height += 1
        else:
            width -= 1
    return tuple(sizes)


class BucketList(NamedTuple):
    """How a family of models chooses sizes.

    Attributes:
      sizes: (image size, downsample) -> sizes in pixels.
      fit: (height / width of images, of sizes) -> how well they fit; the best is taken.
      multiple: the side of the square, in tokens, is a multiple of it.
    """

    sizes: Callable[[int, int], tuple[Size, ...]]
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray]
    multiple: int


LISTS = {
    "pixart": BucketList(pixart, lambda image, size: -abs(image - size), 16),
    # min(cw / w, ch / h) / max(cw / w, ch / h): the share of the image that is kept.
    "lumina": BucketList(lumina, lambda image, size: np.minimum(image / size, size / image), 2),
}
