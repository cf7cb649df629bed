"""Sets of images that are measured: files, folders, tars, or generated meanwhile; read in blocks.

Letters: n images of a block, H W image.
"""

import functools
import hashlib
import logging
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from etils import epath

from maskgil_jax.data import sources
from maskgil_jax.data.companions.pairing import Naming
from maskgil_jax.data.images import cropping
from maskgil_jax.data.records import image_records
from maskgil_jax.evaluation import annotations
from maskgil_jax.runtime import npy, npz
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import open_regular

log = logging.getLogger("maskgil_jax")

BLOCK = 256  # images that are read, and whose features are written, at once


class Block(NamedTuple):
    """Some images of a set, one after another.

    Attributes:
      images: uint8 [n, H, W, 3]; of pairs [n, 2, H, W, 3].
      labels: names of their classes, str [n], or None where they are not known.
      left_out: images that are not among them, since they cannot be read, with the reasons.
      read_captions: gives a caption of each, [n], or raises Unreadable; None where there are none.
    """

    images: np.ndarray
    labels: np.ndarray | None
    left_out: tuple[image_records.Named, ...] = ()
    read_captions: Callable[[], Sequence[str]] | None = None


class ImageSet(Protocol):
    """Images of one size, in an order.

    Attributes:
      path: how messages call it.
      identity: JSON-able: differs from that of any other set, so that work on it can be resumed.
      captioned: whether blocks have captions.
    """

    path: str
    identity: dict[str, Any]
    captioned: bool

    @property
    def names(self) -> Sequence[str] | None:
        """Of the images, by which pairs are found; None: they have an order alone."""

    @property
    def about(self) -> dict[str, Any]:
        """JSON-able: what it is, for the results."""

    def __len__(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""

    def read(self, start: int, stop: int) -> Block:
        """Images start .. stop - 1, without those that cannot be read."""


class Npz:
    """`arr_0` of an npz, which is read from front to end and never whole."""

    def __init__(self, path: str):
        """Look at a file's header and at all but its images.

        Raises:
          InputError: not a whole npz with arr_0, uint8 [N, H, W, 3]; or what it says of its images
            cannot be.
        """
        self.path = path
        self._stream: IO[bytes] | None = None
        with npz.opened(path) as archive:
            if "arr_0" not in archive.names:
                raise InputError(
                    f"{path} has no arr_0 (it holds {', '.join(archive.names) or 'nothing'}): "
                    "expected images, uint8 [N, H, W, 3], or features"
                )
            self._shape, dtype, by_column = archive.header("arr_0")
            checksum = archive.checksum("arr_0")
            captions = archive.checksum("captions") if "captions" in archive.names else None
            if by_column:
                raise ValueError("arr_0 is stored by column (Fortran order), expected C order")
            arrays = {
                name: archive.read(name) for name in annotations.KNOWN if name in archive.names
            }
        if len(self._shape) != 4 or self._shape[3] != 3 or dtype != np.uint8:
            raise InputError(f"{path}: arr_0 is {dtype} {self._shape}, expected uint8 [N, H, W, 3]")
        if 0 in self._shape:
            raise InputError(f"{path}: arr_0 is uint8 {self._shape}, expected images")
        about = annotations.checked(path, arrays, len(self))
        self.labels, self.names = about.labels, about.names
        self.codes, self.codebook_size = about.codes, about.codebook_size
        self._protocol, self._captions = about.protocol, about.captions
        self.captioned = about.captions is not None
        # The archive holds a checksum of the images, so that they need not be read for this.
        self.identity = {"path": path, "shape": list(self._shape), "crc": checksum}
        if captions is not None:
            self.identity["captions"] = captions

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """What it is; the whole file is read for its hash."""
        protocol = {"protocol": self._protocol} if self._protocol else {}
        return {"path": self.path, "count": len(self), **protocol, "sha256": sha256_of(self.path)}

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._shape[1], self._shape[2]

    def read(self, start: int, stop: int) -> Block:
        """Images start .. stop - 1; fast where no read goes back behind the one before.

        Raises:
          InputError: the file is damaged.
        """
        size = self._shape[1] * self._shape[2] * 3
        with npz.errors(self.path):
            if self._stream is None:
                self._stream = npz.Archive(zipfile.ZipFile(open_regular(self.path))).open("arr_0")
                npy.read_header(self._stream)
                self._header = self._stream.tell()
            self._stream.seek(self._header + start * size)
            data = self._stream.read((stop - start) * size)
            if len(data) < (stop - start) * size:
                raise EOFError(f"arr_0 ends in image {start + len(data) // size}")
            if stop == len(self) and self._stream.read(1):
                raise ValueError(f"arr_0 goes on after its {stop} images")
        # A copy, which may be written to: networks of users may want to.
        images = np.frombuffer(data, np.uint8).reshape(-1, *self._shape[1:]).copy()
        labels = None if self.labels is None else self.labels[start:stop]
        captions = None if self._captions is None else self._captions[start:stop].tolist
        return Block(images, labels, read_captions=captions)


# How images of a source become squares, and how results call it.
CROPS = {
    "adm": (cropping.center_crop, "ADM centre crop"),
    "bilinear": (cropping.bilinear_crop, "bilinear resize and centre crop"),
    "lanczos": (cropping.lanczos_crop, "centre crop and Lanczos resize"),
}


class Files:
    """Images of a data source, cropped to one size."""

    def __init__(self, path: str, size: int | None, crop: str = "adm", color: str = "srgb"):
        """Open a source.

        Args:
          path: as sources.open_source takes it; without a kind it is a folder.
          size: side of the centre crop; None takes images as they are, which are of one size.
          crop: key of CROPS.
          color: key of color.COLORS, see image_decoder.decode.

        Raises:
          InputError: no such source, or none of its first images can be read.
        """
        kind = path.partition(":")[0]
        self._spec = path if kind in sources.SOURCES else f"folder:{path}"
        self._source = sources.open_source(self._spec)
        self._source.census.announce(path)
        self.captioned = self._source.census.captioned != 0  # None: not known yet
        self._classes = np.array(self._source.class_names)
        self._side, self._crop, self._color = size, CROPS[crop][0], color
        self.path = path
        self._size = (size, size) if size else self._first_size()
        cropped = f"{CROPS[crop][1]} to {size}" if size else "as they are"
        self.about = {"path": path, "count": len(self), "protocol": cropped, "color": color}
        self.identity = {"path": path, "images": len(self), "crop": cropped, "color": color}

    def __len__(self) -> int:
        return len(self._source)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._size

    @functools.cached_property
    def names(self) -> Sequence[str]:
        """Paths below the folder or within the tar, without the suffix."""
        naming = Naming([self._spec])
        place = 1 if self._spec.startswith("tar:") else 0  # the first has the tar's name too
        return tuple(naming.of(name)[place] for name in self._source.names())

    def _first_size(self) -> tuple[int, int]:
        reasons = []
        for index in range(min(len(self), 100)):
            try:
                image = image_records.image_of(self._source[index], self._color)
                return image.height, image.width
            except Unreadable as error:
                reasons.append(str(error))
        raise InputError(image_records.none_readable(self.path, len(reasons), reasons))

    def read(self, start: int, stop: int) -> Block:
        """Images start .. stop - 1, without those that cannot be read.

        Raises:
          InputError: one of another size.
        """
        with ThreadPoolExecutor() as pool:
            loaded = list(pool.map(self._load, range(start, stop)))
        readable = [item for item in loaded if not isinstance(item, image_records.Named)]
        images = [image for image, _ in readable]
        records = [record for _, record in readable]
        stacked = np.stack(images) if images else np.zeros((0, *self._size, 3), np.uint8)
        left_out = tuple(item for item in loaded if isinstance(item, image_records.Named))
        return Block(
            stacked,
            self._classes[[record.label for record in records]],
            left_out,
            lambda: [image_records.captions_of(record)[0] for record in records],
        )

    def _load(self, index: int) -> tuple[np.ndarray, image_records.Record] | image_records.Named:
        record = self._source[index]
        try:
            with image_records.opened_image(record, self._color) as image:
                pixels = self._crop(image, self._side) if self._side else np.asarray(image)
        except Unreadable as error:
            log.warning("left out an image that cannot be read: %s", error)
            return image_records.Named(str(error), error.kind)
        if pixels.shape[:2] != self._size:
            raise InputError(
                f"{record.id} is {pixels.shape[0]} x {pixels.shape[1]} pixels, but the images of "
                f"{self.path} before it are {self._size[0]} x {self._size[1]}: expected one size"
            )
        return pixels, record


class Pairs:
    """Two sets of the same images, such as reconstructions and originals, side by side.

    Attributes:
      first, second: the sets.
      pairing: "by name" or "by position".
    """

    def __init__(self, first: ImageSet, second: ImageSet):
        """Pair image i of both.

        Raises:
          InputError: they differ in number, size, names, or in the order of those; or only one of
            them has names.
        """
        if (len(first), first.size) != (len(second), second.size):
            raise InputError(
                f"{first.path} holds {len(first)} images of {first.size} pixels, {second.path} "
                f"{len(second)} of {second.size}: expected as many of the same size, in the same "
                "order"
            )
        self.pairing = pairing_of(first, second)
        self.first, self.second = first, second
        self.path = f"{first.path} and {second.path}"
        self.names = first.names
        self.captioned = False
        self.about: dict[str, Any] = {"path": self.path, "count": len(first)}
        self.identity = {"first": first.identity, "second": second.identity}

    def __len__(self) -> int:
        return len(self.first)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.first.size

    def read(self, start: int, stop: int) -> Block:
        """Pairs start .. stop - 1.

        Raises:
          InputError: one of the two cannot be read.
        """
        first, second = (images.read(start, stop).images for images in (self.first, self.second))
        if len(first) != len(second):
            raise InputError(
                f"{self.path}: of images {start} to {stop - 1}, {len(first)} and {len(second)} "
                "can be read: expected pairs"
            )
        return Block(np.stack([first, second], axis=1), None)


def pairing_of(first: ImageSet, second: ImageSet) -> str:
    """How image i of two sets is known to be the same: "by name" or "by position".

    Two sets without names have the order alone, in which one program wrote them. Where one has
    names, the other's order says nothing: that of a folder is the order of its names.

    Raises:
      InputError: names that differ, or that only one of them has.
    """
    ours, theirs = first.names, second.names
    if ours is None and theirs is None:
        return "by position"
    if ours is None or theirs is None:
        images, other = (first, second) if ours is None else (second, first)
        raise InputError(
            f"{images.path} does not say which image of {other.path} each of its images belongs "
            "to: expected folders, or npz files, on both sides, or an array `names` in the npz "
            "(paths below the folder, without suffix)"
        )
    for place, (one, another) in enumerate(zip(ours, theirs, strict=True)):
        if one != another:
            raise InputError(
                f"image {place} of {first.path} is {one!r}, and of {second.path} {another!r}: "
                "expected the same names (paths without suffix) in the same order"
            )
    if len({*ours}) < len(ours):
        twice = next(name for name, times in Counter(ours).items() if times > 1)
        raise InputError(
            f"{first.path} has several images {twice!r} (without suffix), so that pairs are "
            "ambiguous: expected each name once"
        )
    return "by name"


def open_images(
    path: str, size: int | None = None, crop: str = "adm", color: str = "srgb"
) -> "Npz | Files":
    """The images of a file F.npz (`arr_0`), of a folder or of a data source.

    Args:
      path: a folder's samples.npz is taken where it has one, as maskgil_jax.sample wrote it.
      size: side of the centre crop for what is not an npz; None: as they are.
      crop: key of CROPS.
      color: of what is not an npz, key of color.COLORS, see image_decoder.decode.

    Raises:
      InputError: nothing there, or no images of one size.
    """
    inside = epath.Path(path) / "samples.npz"
    path = str(inside) if inside.exists() else path
    return Npz(path) if path.endswith(".npz") else Files(path, size, crop, color)


def sha256_of(path: str) -> str:
    """Of a file's bytes, in hex."""
    with epath.Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 24):
            digest.update(block)
        return digest.hexdigest()
