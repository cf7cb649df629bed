"""Sets of images that are measured: files, folders, tars, or drawn on the way, read in pieces.

Letters: n images of a piece, H W image.
"""

import contextlib
import functools
import hashlib
import logging
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from etils import epath

from maskgil_jax.data import images as image_files
from maskgil_jax.data import records, sources
from maskgil_jax.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")

PART = 256  # images that are read, and their features written, at once


class Piece(NamedTuple):
    """Some images of a set.

    Attributes:
      images: uint8 [n, H, W, 3]; of pairs [n, 2, H, W, 3].
      labels: names of their classes, str [n], or None where they are not known.
    """

    images: np.ndarray
    labels: np.ndarray | None


class ImageSet(Protocol):
    """Images of one size, in an order.

    Attributes:
      path: how messages call it.
      identity: JSON-able: what tells it from any other, so that work on it can be taken up again.
    """

    path: str
    identity: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """JSON-able: what it is, for the results."""

    def __len__(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""

    def read(self, start: int, stop: int) -> Piece:
        """Images start .. stop - 1, without those that cannot be read."""


# What a file may say of its images.
KNOWN = ("labels", "class_names", "codes", "codebook_size", "protocol")


class Npz:
    """`arr_0` of an npz, which is read from front to end and never whole."""

    def __init__(self, path: str):
        """Look at a file's header and at all but its images.

        Raises:
          InputError: not a whole npz with arr_0, uint8 [N, H, W, 3].
        """
        self.path = path
        self._stream: IO[bytes] | None = None
        with npz_errors(path):
            with epath.Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
                held = archive.namelist()
                if "arr_0.npy" not in held:
                    raise InputError(
                        f"{path} has no arr_0 (it holds {', '.join(held) or 'nothing'}): expected "
                        "images, uint8 [N, H, W, 3], or features"
                    )
                member = archive.getinfo("arr_0.npy")
                with archive.open(member) as stream:
                    self._shape, dtype, self._header = _header(stream)
            known = read_arrays(path, KNOWN)
        if len(self._shape) != 4 or self._shape[3] != 3 or dtype != np.uint8 or not self._shape[0]:
            raise InputError(f"{path}: arr_0 is {dtype} {self._shape}, expected uint8 [N, H, W, 3]")
        self.labels = known.get("labels")
        if self.labels is not None and self.labels.shape != self._shape[:1]:
            raise InputError(
                f"{path}: labels {self.labels.shape} of {self._shape[0]} images, expected one each"
            )
        if self.labels is not None:
            names = known.get("class_names")
            self.labels = (self.labels if names is None else names[self.labels]).astype(str)
        self.codes = known.get("codes")
        self.codebook_size = int(known.get("codebook_size", 0))
        self._protocol = str(known.get("protocol", ""))
        # The archive holds a checksum of the images, so that they need not be read for this.
        self.identity = {"path": path, "shape": list(self._shape), "crc": member.CRC}

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """What it is; the whole file is read for its hash."""
        known = {"protocol": self._protocol} if self._protocol else {}
        return {"path": self.path, "count": len(self), **known, "sha256": sha256_of(self.path)}

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._shape[1], self._shape[2]

    def read(self, start: int, stop: int) -> Piece:
        """Images start .. stop - 1; fast where no read goes back behind the one before.

        Raises:
          InputError: the file is damaged.
        """
        size = self._shape[1] * self._shape[2] * 3
        with npz_errors(self.path):
            if self._stream is None:
                self._stream = zipfile.ZipFile(epath.Path(self.path).open("rb")).open("arr_0.npy")
            self._stream.seek(self._header + start * size)
            data = self._stream.read((stop - start) * size)
            if len(data) < (stop - start) * size:
                raise EOFError(f"arr_0 ends in image {start + len(data) // size}")
        # A copy, which may be written to: networks of users may want to.
        images = np.frombuffer(data, np.uint8).reshape(-1, *self._shape[1:]).copy()
        return Piece(images, None if self.labels is None else self.labels[start:stop])


# How images of a source become squares, and how results call it.
CROPS = {
    "adm": (image_files.center_crop, "ADM centre crop"),
    "bilinear": (image_files.bilinear_crop, "bilinear resize and centre crop"),
}


class Files:
    """Images of a data source, cropped to one size."""

    def __init__(self, path: str, size: int | None, crop: str = "adm", color: str = "srgb"):
        """Open a source.

        Args:
          path: as sources.open_source takes it; without a kind it is a folder.
          size: side of the centre crop; None takes images as they are, which are of one size.
          crop: key of CROPS.
          color: key of color.COLORS, see images.decode.

        Raises:
          InputError: no such source, or none of its first images can be read.
        """
        kind = path.partition(":")[0]
        self._source = sources.open_source(path if kind in sources.SOURCES else f"folder:{path}")
        self._source.census.announce(path)
        self._names = np.array(self._source.class_names)
        self._side, self._crop, self._color = size, CROPS[crop][0], color
        self.path = path
        self._size = (size, size) if size else self._first_size()
        told = f"{CROPS[crop][1]} to {size}" if size else "as they are"
        self.about = {"path": path, "count": len(self), "protocol": told, "color": color}
        self.identity = {"path": path, "images": len(self), "crop": told, "color": color}

    def __len__(self) -> int:
        return len(self._source)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._size

    def _first_size(self) -> tuple[int, int]:
        reason = ""
        for index in range(min(len(self), 100)):
            try:
                image = records.image_of(self._source[index], self._color)
                return image.height, image.width
            except Unreadable as error:
                reason = str(error)
        raise InputError(f"{self.path}: none of its first images can be read, the last: {reason}")

    def read(self, start: int, stop: int) -> Piece:
        """Images start .. stop - 1, without those that cannot be read.

        Raises:
          InputError: one of another size.
        """
        with ThreadPoolExecutor() as pool:
            found = [item for item in pool.map(self._load, range(start, stop)) if item is not None]
        images = [image for image, _ in found]
        stacked = np.stack(images) if images else np.zeros((0, *self._size, 3), np.uint8)
        return Piece(stacked, self._names[[label for _, label in found]])

    def _load(self, index: int) -> tuple[np.ndarray, int] | None:
        record = self._source[index]
        try:
            with records.opened_image(record, self._color) as image:
                pixels = self._crop(image, self._side) if self._side else np.asarray(image)
        except Unreadable as error:
            log.warning("left out an image that cannot be read: %s", error)
            return None
        if pixels.shape[:2] != self._size:
            raise InputError(
                f"{record.id} is {pixels.shape[0]} x {pixels.shape[1]} pixels, but the images of "
                f"{self.path} before it are {self._size[0]} x {self._size[1]}: expected one size"
            )
        return pixels, record.label


class Pairs:
    """Two sets of the same images, such as reconstructions and originals, side by side."""

    def __init__(self, first: ImageSet, second: ImageSet):
        """Pair image i of both.

        Raises:
          InputError: they differ in number or size.
        """
        if (len(first), first.size) != (len(second), second.size):
            raise InputError(
                f"{first.path} holds {len(first)} images of {first.size} pixels, {second.path} "
                f"{len(second)} of {second.size}: expected as many of the same size, in the same "
                "order"
            )
        self._first, self._second = first, second
        self.path = f"{first.path} and {second.path}"
        self.about: dict[str, Any] = {"path": self.path, "count": len(first)}
        self.identity = {"first": first.identity, "second": second.identity}

    def __len__(self) -> int:
        return len(self._first)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._first.size

    def read(self, start: int, stop: int) -> Piece:
        """Pairs start .. stop - 1.

        Raises:
          InputError: one of the two cannot be read.
        """
        pieces = [images.read(start, stop).images for images in (self._first, self._second)]
        if len(pieces[0]) != len(pieces[1]):
            raise InputError(
                f"{self.path}: of images {start} to {stop - 1}, {len(pieces[0])} and "
                f"{len(pieces[1])} can be read: expected pairs"
            )
        return Piece(np.stack(pieces, axis=1), None)


def open_images(
    path: str, size: int | None = None, crop: str = "adm", color: str = "srgb"
) -> "Npz | Files":
    """The images of a file F.npz (`arr_0`), of a folder or of a data source.

    Args:
      path: a folder's samples.npz is taken where it has one, as maskgil_jax.sample wrote it.
      size: side of the centre crop for what is not an npz; None: as they are.
      crop: key of CROPS.
      color: of what is not an npz, key of color.COLORS, see images.decode.

    Raises:
      InputError: nothing there, or no images of one size.
    """
    inside = epath.Path(path) / "samples.npz"
    path = str(inside) if inside.exists() else path
    return Npz(path) if path.endswith(".npz") else Files(path, size, crop, color)


def read_arrays(path: str, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an npz by name, none of them executable.

    Args:
      path: of the file.
      only: names of those to read; None: all.

    Raises:
      InputError: not a whole npz, or a pickled array.
    """
    with npz_errors(path):
        with epath.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in data.files if only is None or name in only}


def names_of_arrays(path: str) -> list[str]:
    """Names of the arrays of an npz; InputError where it is none."""
    with npz_errors(path):
        with epath.Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]


@contextlib.contextmanager
def npz_errors(path: str) -> Iterator[None]:
    """Turn what a broken, truncated or foreign file makes readers stumble over into InputError."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} is not an npz: there is no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not an npz that is whole: {error}") from None


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and length of the header of an array in NumPy's format."""
    version = np.lib.format.read_magic(stream)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"arr_0 has version {version} of NumPy's format")
    shape, by_column, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("arr_0 is a pickled array, which could execute anything; refused")
    if by_column:
        raise ValueError("arr_0 is stored by column (Fortran order), expected C order")
    return shape, dtype, stream.tell()


def sha256_of(path: str) -> str:
    """Of a file's bytes, in hex."""
    with epath.Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 24):
            digest.update(block)
        return digest.hexdigest()
