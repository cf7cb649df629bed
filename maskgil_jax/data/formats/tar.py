"""WebDataset: images with their captions and classes in tar files, read without unpacking.

Opening reads the headers alone, and keeps where each image and its captions lie in NumPy arrays,
some 60 bytes an image. Nothing is written beside the shards.
"""

import dataclasses
import functools
import itertools
import logging
import operator
import os
import types
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from maskgil_jax.data.formats import patterns
from maskgil_jax.data.formats.tar_examples import CLASS, Sample, fault_of, samples_of
from maskgil_jax.data.formats.tar_headers import DAMAGE, FILE, Damaged, Member, members
from maskgil_jax.data.formats.tar_links import Links
from maskgil_jax.data.records import captions, class_labels
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import Record, unusable
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")

LARGEST_IMAGE = 2**30  # bytes
NO_LABEL = -1
SCANNERS = 16  # threads, which wait for slow disks together
OPEN_FILES = 128  # far below what systems allow a process

_PARSERS = tuple(captions.PARSERS)
_ROW = np.dtype(
    [
        ("image", np.int64),  # first byte in the shard
        ("image_size", np.int64),
        # Where files of captions begin, or 0, and their sizes, of which no more than this matters.
        *((extension, np.int64) for extension in _PARSERS),
        *((f"{extension}_size", np.int32) for extension in _PARSERS),
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


class Tar:
    """Tar files in WebDataset's layout: members KEY.jpg, KEY.txt, KEY.cls, KEY.json.

    A key has an image (records.EXTENSIONS), captions (txt or json, see captions.py), and a class:
    in cls, or in a field `label`, `cls` or `class` of json (see class_labels.py). The lines of
    `classnames.txt` beside the first shard name the classes, or else their numbers do; without any
    class all images are one.

    KEY ends at the last dot: `IMG 1.2.png` is an image, and `IMG 1.2.txt` its caption. In
    WebDataset's convention it ends at the first one, and that holds for two things. Beside `1.jpg`,
    `1.seg.png` is no image but more about that of the key 1, which is counted and not used. And
    `1.rgb.png`, if no other image is of the key 1, has the captions and the class of `1.txt`,
    `1.json` and `1.cls`, unless it has its own.

    The members of a key may lie anywhere in a tar of which no name comes twice. Where names do, as
    after `tar -A`, each image has what comes with it in the same order each time, or what lies next
    to it and apart from other images of the key; if neither tells what belongs together, the images
    of the key cannot be used, or where only txt is in doubt, their captions cannot. Tars joined by
    `cat` are read one after the other, each as a tar of its own. Links are followed to members of
    the same tar.

    Of a tar that is cut off or damaged, the whole members before the damage are used, and those
    after it, where their headers can be found; what lies between counts as one image that cannot be
    read.

    Args:
      pattern: of paths, with `*`, `?`, `[...]`, `{a,b}` and `{000..099}`.

    Raises:
      InputError: no such file, no tar file, a compressed one, one that cannot be read, names of
        classes that cannot be, or a class without name.
    """

    def __init__(self, pattern: str):
        paths = patterns.files(pattern)
        folder = os.path.dirname(os.path.abspath(paths[0]))
        names_file = os.path.join(folder, "classnames.txt")
        names = class_labels.read_names(names_file) if os.path.lexists(names_file) else None
        scan_one = functools.partial(scan, class_ids=class_labels.ids_of(names or ()))
        with ThreadPoolExecutor(SCANNERS) as pool:
            scans = pool.map(scan_one, paths)
            bar = tqdm(scans, "reading headers", len(paths), unit="tar", delay=2, disable=None)
            self._shards = list(bar)
        for shard in self._shards:
            if shard.damage:
                log.warning("%s: %s", shard.path, "; ".join(shard.damage))
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        last = max(int(shard.rows["label"].max(initial=NO_LABEL)) for shard in self._shards)
        self._labelled = last != NO_LABEL
        self.class_names: tuple[str, ...]
        if not self._labelled:
            self.class_names = (printable(os.path.basename(folder)),)
        elif names is None:
            self.class_names = tuple(map(str, range(last + 1)))
        elif len(names) > last:
            self.class_names = names
        else:
            raise InputError(
                f"{names_file} names {len(names)} classes, but an image has class {last}"
            )
        self.census = Census(len(self), self.class_names)
        self.census.captioned = sum(shard.captioned for shard in self._shards)
        for shard in self._shards:
            self.census.add(shard.census)
        if names and not self._labelled:
            reason = "names of classes, but no image has a class"
            self.census.pass_over(names_file, reason, is_data=True)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def names(self) -> Iterator[str]:
        """Ids of all records."""
        for shard in self._shards:
            yield from map(shard.name, range(len(shard.rows)))
            yield from [printable(shard.path)] * len(shard.damage)

    def __getitem__(self, index: int) -> Record:
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[number]
        place = index - int(self._ends[number]) + len(shard)
        if place >= len(shard.rows):
            return unusable(printable(shard.path), shard.damage[place - len(shard.rows)])
        row = shard.rows[place]
        name, label = shard.name(place), int(row["label"]) if self._labelled else 0
        if place in shard.faults:
            return unusable(name, shard.faults[place])
        if label == NO_LABEL:
            return unusable(name, "no class, as other images have")
        try:
            image = shard.read(row["image"], row["image_size"])
        except OSError as error:
            return unusable(name, str(error.strerror))
        return Record(image, label, name, functools.partial(shard.captions, place))


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
        """Of an image, with the path of the shard, as it can be printed."""
        start = self.rows["name_end"][place - 1] if place else 0
        name = self.names[start : self.rows["name_end"][place]]
        return printable(f"{self.path}/{os.fsdecode(name)}")

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the file, from any thread."""
        file = _opened(self.path, self.version)  # kept until the read is done, or it may be closed
        return os.pread(file.descriptor, size, start)

    def captions(self, place: int) -> tuple[str, ...]:
        """Of an image, unchecked."""
        if place in self.caption_faults:
            raise Unreadable(self.caption_faults[place])
        return captions.first(self._texts(self.rows[place]))

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
    samples = (
        sample
        for _, archive in itertools.groupby(intact(), operator.attrgetter("archive"))
        for sample in samples_of(archive, links, census, where)
    )
    rows: list[tuple[int, ...]] = []
    names, captioned = bytearray(), 0
    faults: dict[int, str] = {}
    caption_faults: dict[int, str] = {}
    for sample in samples:
        found = _found(descriptor, sample, class_ids)
        if found.fault:
            faults[len(rows)] = found.fault
        if found.caption_fault:
            caption_faults[len(rows)] = found.caption_fault
        captioned += found.captioned
        names += os.fsencode(sample.image.name)
        rows.append((*found.row, len(names)))
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


class _Found(NamedTuple):
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


def _found(descriptor: int, sample: Sample, class_ids: Mapping[str, int]) -> _Found:
    image, parts, fault, caption_fault = sample
    label = NO_LABEL
    if image.size > LARGEST_IMAGE:
        fault = f"{image.size:,} bytes, expected at most {LARGEST_IMAGE:,}"
    read = {
        extension: os.pread(descriptor, min(part.size, _READ_OF_TEXT), part.start)
        for extension, part in parts.items()
        if extension != "txt" and part.kind == FILE
    }
    try:
        label = _label(read, parts, class_ids)
    except Unreadable as error:
        fault = fault or str(error)
    texts = [parts.get(extension, _NOTHING) for extension in _PARSERS]
    for text in texts:
        if text.kind != FILE:
            caption_fault = caption_fault or _problem(text)
    captioned = texts[0].size > 0 or (
        "json" in read and any(field in read["json"] for field in _CAPTION_FIELDS)
    )
    row = (
        image.start,
        image.size,
        *[text.start for text in texts],
        *[min(text.size, _READ_OF_TEXT) for text in texts],
        label,
    )
    return _Found(row, captioned, fault, caption_fault)


def _label(
    read: Mapping[str, bytes], parts: Mapping[str, Member], class_ids: Mapping[str, int]
) -> int:
    """The class, or NO_LABEL.

    Raises:
      Unreadable: names the member of the class, which says none.
    """
    kind = CLASS if CLASS in parts else "json"
    if kind not in parts:
        return NO_LABEL
    if kind not in read:
        raise Unreadable(_problem(parts[kind]))
    of = class_labels.of_text if kind == CLASS else class_labels.of_json
    try:
        label = of(read[kind], class_ids)
    except Unreadable as error:
        raise Unreadable(f"{_base(parts[kind])}: {error}") from None
    return NO_LABEL if label is None else label


def _problem(part: Member) -> str:
    return f"its {_base(part)} is {fault_of(part)}"


def _base(member: Member) -> str:
    return printable(os.path.basename(member.name))


def _refusal(start: bytes, error: Damaged) -> str:
    for magic, (kind, program) in _COMPRESSED.items():
        if start.startswith(magic):
            return f"is compressed ({kind}), so its members are not at hand; run {program} first"
    return f"cannot be used as a tar file: {error}" if start else "is empty"
