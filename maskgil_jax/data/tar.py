"""WebDataset: images with their captions and classes in tar files, read without unpacking.

Opening reads the headers alone, and keeps where each image and its captions lie in NumPy arrays,
some 60 bytes an image. Nothing is written beside the shards.
"""

import dataclasses
import functools
import itertools
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from maskgil_jax.data import captions, patterns
from maskgil_jax.data.census import Census
from maskgil_jax.data.records import EXTENSIONS, Record, unusable
from maskgil_jax.data.tar_headers import Damaged, Member, members
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")

LABEL_FIELDS = ("label", "cls", "class")  # of JSON
NO_LABEL, BAD_LABEL = -1, -2
MOST_CLASSES = 100_000  # ImageNet-21k has 21,841
_WITHOUT_CLASS = {
    NO_LABEL: "no class, as other images have",
    BAD_LABEL: f"its class is no number below {MOST_CLASSES:,}",
}
SCANNERS = 16  # threads, which wait for slow disks together
OPEN_FILES = 128  # far below what systems allow a process

_ROW = np.dtype(
    [
        ("image", np.int64),  # first byte in the shard
        ("image_size", np.int64),
        ("text", np.int64),
        ("text_size", np.int64),
        ("parser", np.int8),  # of the captions: place in captions.PARSERS, or -1 without captions
        ("label", np.int32),
        ("name_end", np.int64),  # of the image's name, in Shard.names
    ]
)
_PARSERS = tuple(captions.PARSERS)
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "unzstd"),
}


class Tar:
    """Tar files in WebDataset's layout: members KEY.jpg, KEY.txt, KEY.cls, KEY.json.

    KEY ends at the first dot after the last slash. It has an image (jpg, jpeg, png, webp), captions
    (txt or json, see captions.py), and a class: an integer in cls, or in a field `label`, `cls` or
    `class` of json. The lines of `classnames.txt` beside the first shard name the classes, or else
    their numbers do; without any class all images are one.

    Of a tar that is cut off or damaged, the whole members before the damage are used, and what
    follows counts as one image that cannot be read.

    Args:
      pattern: of paths, with `*`, `?`, `[...]`, `{a,b}` and `{000..099}`.

    Raises:
      InputError: no such file, no tar file, a compressed one, or a class without name.
    """

    def __init__(self, pattern: str):
        paths = patterns.files(pattern)
        with ThreadPoolExecutor(SCANNERS) as pool:
            scans = pool.map(scan, paths)
            bar = tqdm(scans, "reading headers", len(paths), unit="tar", delay=2, disable=None)
            self._shards = list(bar)
        for shard in self._shards:
            if shard.damage:
                log.warning("%s: %s; only what stands before is used", shard.path, shard.damage)
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        labels = [shard.rows["label"] for shard in self._shards]
        self._labelled = any((found != NO_LABEL).any() for found in labels)
        self.class_names = self._name_classes(
            1 + max(int(found.max(initial=-1)) for found in labels)
        )
        self.census = Census(len(self), self.class_names)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def names(self) -> Iterator[str]:
        """Ids of all records."""
        for shard in self._shards:
            yield from map(shard.name, range(len(shard.rows)))
            if shard.damage:
                yield shard.path

    def __getitem__(self, index: int) -> Record:
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[number]
        place = index - int(self._ends[number]) + len(shard)
        if place == len(shard.rows):
            return unusable(shard.path, shard.damage)
        row = shard.rows[place]
        name, label = shard.name(place), int(row["label"]) if self._labelled else 0
        if label < 0:
            return unusable(name, _WITHOUT_CLASS[label])
        try:
            image = shard.read(row["image"], row["image_size"])
        except OSError as error:
            return unusable(name, str(error.strerror))
        return Record(image, label, name, functools.partial(shard.captions, place))

    def _name_classes(self, count: int) -> tuple[str, ...]:
        folder = os.path.dirname(os.path.abspath(self._shards[0].path))
        if not self._labelled:
            return (os.path.basename(folder),)
        path = os.path.join(folder, "classnames.txt")
        if not os.path.exists(path):
            return tuple(map(str, range(max(count, 1))))
        with open(path, encoding="utf-8") as file:
            names = tuple(line.strip() for line in file if line.strip())
        if len(names) < count:
            raise InputError(
                f"{path} names {len(names)} classes, but an image has class {count - 1}"
            )
        return names


@dataclasses.dataclass(frozen=True)
class Shard:
    """What is known of one tar file.

    Attributes:
      path: of the file.
      version: time of its last change.
      rows: of _ROW, one an image.
      names: of the images, one after the other.
      damage: what ends the usable part of the file, or "".
    """

    path: str
    version: int
    rows: np.ndarray
    names: bytes
    damage: str

    def __len__(self) -> int:
        return len(self.rows) + bool(self.damage)

    def name(self, place: int) -> str:
        """Of an image, with the path of the shard."""
        start = self.rows["name_end"][place - 1] if place else 0
        return f"{self.path}/{self.names[start : self.rows['name_end'][place]].decode()}"

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the file, from any thread."""
        file = _opened(self.path, self.version)  # kept until the read is done, or it may be closed
        return os.pread(file.descriptor, size, start)

    def captions(self, place: int) -> tuple[str, ...]:
        """Of an image, unchecked."""
        row = self.rows[place]
        if row["parser"] < 0:
            return ()
        data = self.read(row["text"], min(row["text_size"], captions.LARGEST_FILE + 1))
        return captions.parse(data, _PARSERS[row["parser"]])


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


def scan(path: str) -> Shard:
    """Find the images of a tar file.

    Raises:
      InputError: it is no tar file.
    """
    with open(path, "rb", buffering=0) as file:
        keys: dict[str, dict[str, Member]] = {}
        damage = ""
        try:
            for member in members(file.fileno()):
                folder, slash, base = member.name.rpartition("/")
                key, _, extension = base.partition(".")
                if key:  # others are hidden files, as macOS puts into its tars
                    keys.setdefault(folder + slash + key, {})[extension.lower()] = member
        except Damaged as error:
            if not error.byte:
                raise InputError(f"{path} {_refusal(file.read(8), error)}") from None
            damage = str(error)
        images = [(found, image) for found in keys.values() if (image := _image(found))]
        ends = itertools.accumulate(len(image.name.encode()) for _, image in images)
        rows = [
            (image.start, image.size, *_text(found), _label(file.fileno(), found), end)
            for (found, image), end in zip(images, ends, strict=True)
        ]
        names = "".join(image.name for _, image in images).encode()
        version = os.fstat(file.fileno()).st_mtime_ns
    return Shard(path, version, np.array(rows, _ROW), names, damage)


def _refusal(start: bytes, error: Damaged) -> str:
    for magic, (kind, program) in _COMPRESSED.items():
        if start.startswith(magic):
            return f"is compressed ({kind}), so its members are not at hand; run {program} first"
    return f"cannot be used as a tar file: {error}" if start else "is empty"


def _image(found: dict[str, Member]) -> Member | None:
    return next((found[e[1:]] for e in EXTENSIONS if e[1:] in found), None)


def _text(found: dict[str, Member]) -> tuple[int, int, int]:
    """Start, size and parser of the captions."""
    for parser, extension in enumerate(_PARSERS):
        if extension in found:
            return found[extension].start, found[extension].size, parser
    return 0, 0, -1


def _label(descriptor: int, found: dict[str, Member]) -> int:
    """The class, NO_LABEL or BAD_LABEL."""
    member = found.get("cls", found.get("json"))
    if not member:
        return NO_LABEL
    data = os.pread(descriptor, min(member.size, captions.LARGEST_FILE), member.start)
    try:
        number = int(data) if "cls" in found else _json_label(data)
    except ValueError:
        return BAD_LABEL
    if number is None:
        return NO_LABEL
    return number if 0 <= number < MOST_CLASSES else BAD_LABEL


def _json_label(data: bytes) -> int | None:
    if not any(f'"{field}"'.encode() in data for field in LABEL_FIELDS):
        return None  # most JSON holds captions alone, and takes long to parse
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    fields = content if isinstance(content, dict) else {}
    return next((fields[f] for f in LABEL_FIELDS if type(fields.get(f)) is int), None)
