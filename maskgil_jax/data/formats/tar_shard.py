"""One tar file: where its images, captions and classes lie, found by a scan of its headers.

What is known of an image takes some 70 bytes, in NumPy arrays.
"""

import dataclasses
import functools
import itertools
import operator
import os
import types
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from maskgil_jax.data.formats.tar_examples import (
    CLASS,
    SOUNDS,
    TarExample,
    examples_of,
    fault_of,
)
from maskgil_jax.data.formats.tar_headers import DAMAGE, FILE, Damaged, Member, members
from maskgil_jax.data.formats.tar_links import Links
from maskgil_jax.data.records import captions, class_labels
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.runtime.errors import InputError, Unreadable

LARGEST_IMAGE = 2**30  # bytes
LARGEST_RECORDING = 2**30  # bytes

NO_LABEL = -1

OPEN_FILES = 128  # far below what systems allow a process

_PARSERS = tuple(captions.PARSERS)

_ROW = np.dtype(
    [
        ("image", np.int64),  # first byte in the shard
        ("image_size", np.int64),
        # Where files of captions begin, or 0, and their sizes, of which no more than this matters.
        *((extension, np.int64) for extension in _PARSERS),
        *((f"{extension}_size", np.int32) for extension in _PARSERS),
        ("recording", np.int64),  # as of captions
        ("recording_size", np.int64),
        ("label", np.int32),
        ("name_end", np.int64),  # of the image's name, in Shard.names
    ]
)

_NOTHING = Member("", 0, 0, FILE, 0)

_CAPTION_FIELDS = tuple(f'"{field}"'.encode() for field in captions.FIELDS)

_READ_OF_TEXT = captions.LARGEST_FILE + 1

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "unzstd"),
}


@dataclasses.dataclass(frozen=True)
class Shard:
    """What is known of one tar file.

    Attributes:
      path: of the file.
      version: time of its last change.
      rows: of _ROW, one an image.
      names: of the images, one after the other.
      captioned: number of images that seem to have captions; what these hold is not read yet.
      faults: of images that cannot be used, by their places.
      caption_faults: of captions that cannot be read, by the places of their images.
      damage: sentences on what cannot be used, in the order of the file.
      census: what of it is not used.
    """

    path: str
    version: int
    rows: np.ndarray
    names: bytes
    captioned: int
    faults: Mapping[int, str]
    caption_faults: Mapping[int, str]
    damage: tuple[str, ...]
    census: Census

    def __len__(self) -> int:
        return len(self.rows) + len(self.damage)

    def name(self, place: int) -> str:
        """The name of an image, with the path of the shard, as it can be printed."""
        start = self.rows["name_end"][place - 1] if place else 0
        name = self.names[start : self.rows["name_end"][place]]
        return printable(f"{self.path}/{os.fsdecode(name)}")

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the file, from any thread."""
        file = _opened(self.path, self.version)  # held until the read is done, or it may be closed
        return os.pread(file.descriptor, size, start)

    def captions(self, place: int) -> tuple[str, ...]:
        """The captions of an image, unchecked."""
        if place in self.caption_faults:
            raise Unreadable(self.caption_faults[place])
        return captions.first(self._texts(self.rows[place]))

    def recording(self, place: int) -> bytes:
        """The file of the recording of an image; Unreadable where it has none."""
        row = self.rows[place]
        if not row["recording"]:
            raise Unreadable("it has no recording beside it in the tar")
        if row["recording_size"] > LARGEST_RECORDING:
            raise Unreadable(f"its recording has more than {LARGEST_RECORDING:,} bytes")
        return self.read(row["recording"], row["recording_size"])

    def _texts(self, row: np.void) -> Iterator[tuple[str, bytes]]:
        for extension in _PARSERS:
            if row[extension]:
                yield extension, self.read(row[extension], row[f"{extension}_size"])


class _Descriptor:
    """An open file that is closed once nothing uses it."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@functools.lru_cache(OPEN_FILES)
def _opened(path: str, version: int) -> _Descriptor:
    # Kept by the process, not by the source, which worker processes get a copy of.
    return _Descriptor(path)


def scan(path: str, class_ids: Mapping[str, int] = types.MappingProxyType({})) -> Shard:
    """Find the images of a tar file.

    Args:
      path: of the file.
      class_ids: by the names of the classes, where they have names.

    Raises:
      InputError: it is no tar file, or cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            try:
                return _scan(path, file.fileno(), class_ids)
            except Damaged as error:
                raise InputError(f"{path} {_refusal(file.read(8), error)}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _scan(path: str, descriptor: int, class_ids: Mapping[str, int]) -> Shard:
    damage: list[str] = []

    def intact() -> Iterator[Member]:
        for member in members(descriptor):
            if member.kind != DAMAGE:
                yield member
            elif member.name not in damage:  # links make this run twice
                damage.append(member.name)

    census, where, links = Census(), printable(path), Links(intact)
    examples = (
        example
        for _, archive in itertools.groupby(intact(), operator.attrgetter("archive"))
        for example in examples_of(archive, links, census, where)
    )
    rows: list[tuple[int, ...]] = []
    names, captioned = bytearray(), 0
    faults: dict[int, str] = {}
    caption_faults: dict[int, str] = {}
    for example in examples:
        image = _image_of(descriptor, example, class_ids)
        if image.fault:
            faults[len(rows)] = image.fault
        if image.caption_fault:
            caption_faults[len(rows)] = image.caption_fault
        captioned += image.captioned
        names += os.fsencode(example.image.name)
        rows.append((*image.row, len(names)))
    if not rows:
        census.pass_over(where, "tar without images", is_data=False)
    return Shard(
        path,
        os.fstat(descriptor).st_mtime_ns,
        np.array(rows, _ROW),
        bytes(names),
        captioned,
        faults,
        caption_faults,
        tuple(damage),
        census,
    )


class _Image(NamedTuple):
    """What is known of an image.

    Attributes:
      row: as in _ROW, but for the end of its name.
      captioned: whether it seems to have captions.
      fault, caption_fault: why it, or its captions, cannot be used, or "".
    """

    row: tuple[int, ...]
    captioned: bool
    fault: str
    caption_fault: str


def _image_of(descriptor: int, example: TarExample, class_ids: Mapping[str, int]) -> _Image:
    image, companions, fault, caption_fault = example
    label = NO_LABEL
    if image.size > LARGEST_IMAGE:
        fault = f"{image.size:,} bytes, expected at most {LARGEST_IMAGE:,}"
    read = {
        extension: os.pread(descriptor, min(member.size, _READ_OF_TEXT), member.start)
        for extension, member in companions.items()
        if extension in ("json", CLASS) and member.kind == FILE
    }
    try:
        label = _label(read, companions, class_ids)
    except Unreadable as error:
        fault = fault or str(error)
    texts = [companions.get(extension, _NOTHING) for extension in _PARSERS]
    for text in texts:
        if text.kind != FILE:
            caption_fault = caption_fault or _problem(text)
    captioned = texts[0].size > 0 or (
        "json" in read and any(field in read["json"] for field in _CAPTION_FIELDS)
    )
    sounds = (companions[kind] for kind in SOUNDS if kind in companions)
    recording = next((sound for sound in sounds if sound.kind == FILE), _NOTHING)
    row = (
        image.start,
        image.size,
        *[text.start for text in texts],
        *[min(text.size, _READ_OF_TEXT) for text in texts],
        recording.start,
        recording.size,
        label,
    )
    return _Image(row, captioned, fault, caption_fault)


def _label(
    read: Mapping[str, bytes], companions: Mapping[str, Member], class_ids: Mapping[str, int]
) -> int:
    """The class that the files of a key say, or NO_LABEL.

    Raises:
      Unreadable: names the member of the class, which says none.
    """
    kind = CLASS if CLASS in companions else "json"
    if kind not in companions:
        return NO_LABEL
    if kind not in read:
        raise Unreadable(_problem(companions[kind]))
    of = class_labels.of_text if kind == CLASS else class_labels.of_json
    try:
        label = of(read[kind], class_ids)
    except Unreadable as error:
        raise Unreadable(f"{_base(companions[kind])}: {error}") from None
    return NO_LABEL if label is None else label


def _problem(member: Member) -> str:
    return f"its {_base(member)} is {fault_of(member)}"


def _base(member: Member) -> str:
    return printable(os.path.basename(member.name))


def _refusal(start: bytes, error: Damaged) -> str:
    for magic, (kind, program) in _COMPRESSED.items():
        if start.startswith(magic):
            return f"is compressed ({kind}), so it has to be unpacked first: run {program}"
    return f"cannot be used as a tar file: {error}" if start else "is empty"
