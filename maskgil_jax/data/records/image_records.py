"""Image records, the one type of record that all sources give, and the protocol of a source."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from PIL import Image

from maskgil_jax.data.images import image_decoder
from maskgil_jax.data.records import captions
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.other_files import APPLE_DOUBLE
from maskgil_jax.runtime.errors import Unreadable

# What the names of images end in, in lower case. Whether an image can be read is a matter of its
# bytes, see image_decoder.FORMATS.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".webp"),
    *(".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".apng", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".svg"),
)
CACHE = 2**30  # bytes of decoded blocks (see Blocks) that a process keeps
T = TypeVar("T")
RECORDINGS = (".wav", ".flac", ".mp3", ".ogg")  # what names of recordings end in, in lower case


def _no_recording() -> bytes:
    raise Unreadable("it has no recording")


@dataclasses.dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
      image: the bytes of its file.
      label: its class.
      id: a name for messages.
      fault: why nothing of it can be used, known before its image is decoded, or "".
      read_captions: gives its captions as they are stored, for `captions_of`; what only needs the
        class does not read them.
      read_recording: gives the file of the recording that is stored with it, or raises Unreadable.
    """

    image: bytes
    label: int
    id: str
    read_captions: Callable[[], tuple[str, ...]] = tuple
    fault: str = ""
    read_recording: Callable[[], bytes] = _no_recording


def is_image(name: str) -> bool:
    """Whether a file of this name should be an image."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(APPLE_DOUBLE)


def unusable(name: str, fault: str) -> Record:
    """Stands for something that should be an image, so that it is named and counted."""
    return Record(b"", 0, name, fault=fault)


def image_of(record: Record, color: str = "srgb") -> Image.Image:
    """The image of a record, see image_decoder.decode.

    Raises:
      Unreadable: names the image, which cannot be used.
    """
    with opened_image(record, color) as image:
        return image


@contextlib.contextmanager
def opened_image(
    record: Record, color: str = "srgb", at_least: tuple[int, int] | None = None
) -> Iterator[Image.Image]:
    """As `image_of`, and bounded with what other threads hold, see image_decoder.opened."""
    with _named(record, image_decoder.opened(record.image, color, at_least)) as image:
        yield image


@contextlib.contextmanager
def opened_pixels(
    record: Record, color: str = "srgb", at_least: tuple[int, int] | None = None
) -> Iterator[np.ndarray]:
    """As `opened_image`, uint8 [height, width, 3], see image_decoder.opened_pixels."""
    with _named(record, image_decoder.opened_pixels(record.image, color, at_least)) as pixels:
        yield pixels


@contextlib.contextmanager
def _named(record: Record, opened: contextlib.AbstractContextManager[T]) -> Iterator[T]:
    """The same, where what cannot be used is an error that names the record."""
    if record.fault:
        raise Unreadable(f"{record.id}: {record.fault}", record.fault)
    with contextlib.ExitStack() as stack:
        try:
            image = stack.enter_context(opened)
        except Unreadable as error:
            raise Unreadable(f"{record.id}: {error}", error.kind) from error
        yield image


class Named(NamedTuple):
    """The name of an example in messages, and what is wrong with it.

    Attributes:
      name: of it and, where it cannot be read, why.
      kind: why in a few words, by which such examples are counted, or "".
    """

    name: str
    kind: str = ""


def name_of(record: Record, color: str = "srgb") -> Named:
    """The name of a record, whose image is decoded for that."""
    try:
        with opened_image(record, color):
            return Named(record.id)
    except Unreadable as error:
        return Named(str(error), error.kind)


def captions_of(record: Record) -> tuple[str, ...]:
    """The captions of an image, read now: at least one, stripped, none of them empty.

    Raises:
      Unreadable: names the image; it has no caption, or one that is not UTF-8 or too long.
    """
    try:
        return captions.checked(record.read_captions())
    except (Unreadable, OSError) as error:
        raise Unreadable(f"{record.id}: {error}", "without a usable caption") from error


def none_readable(path: str, count: int, reasons: Sequence[str]) -> str:
    """The message that nothing of a set can be read.

    Args:
      path: how messages call the set.
      count: images that were tried.
      reasons: why each of them, or of the first few, cannot be read.
    """
    first_reasons = "\n  ".join(reasons[:3])
    more = "\n  ..." if count > 3 else ""
    return f"0 of {count} images of {path} can be read:\n  {first_reasons}{more}"


class Blocks(NamedTuple):
    """Records that are stored in blocks, each of which is read and decoded whole.

    Attributes:
      ends: of the blocks among the records, ascending, int [K].
      sizes: bytes of each in memory, int [K].
    """

    ends: np.ndarray
    sizes: np.ndarray


def blocks_of(source: object) -> Blocks | None:
    """The blocks of a source; None where any record is read at once."""
    blocks: Blocks | None = getattr(source, "blocks", None)
    return blocks


class Source(Protocol):
    """Random access to records.

    Attributes:
      census: what it saw when it was opened, and what of it is not used.
    """

    census: Census

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class; its length is the number of classes."""

    def __len__(self) -> int: ...

    def names(self) -> Iterator[str]:
        """Ids of all records in their order, none of which is read for that."""

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; whether its image and captions can be read is not known yet."""
