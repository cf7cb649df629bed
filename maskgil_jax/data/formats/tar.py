"""WebDataset: images with their captions and classes in tar files, read without unpacking.

Opening reads the headers alone, and keeps where each image and its captions lie in NumPy arrays,
some 70 bytes an image. Nothing is written beside the shards.
"""

import functools
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from maskgil_jax.data.formats import patterns
from maskgil_jax.data.formats.tar_shard import NO_LABEL, scan
from maskgil_jax.data.records import class_labels
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import Record, unusable
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

SCANNERS = 16  # threads, which wait for slow disks together


class Tar:
    """Tar files in WebDataset's layout: members KEY.jpg, KEY.txt, KEY.cls, KEY.json, KEY.wav.

    A key has an image (image_records.EXTENSIONS), captions (txt or json, see captions.py), a
    recording (the first of wav, flac, mp3 and ogg), and a class: in cls, or in a field `label`,
    `cls` or `class` of json (see class_labels.py). The lines of `classnames.txt` beside the first
    shard name the classes, or else their numbers do; without any class all images are one.

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
        names_file = os.path.join(folder, class_labels.NAMES_FILE)
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
        spoken = sum(int((shard.rows["recording"] > 0).sum()) for shard in self._shards)
        if spoken:
            self.census.notes.append(f"{spoken:,} images have a recording beside them")
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
        texts = functools.partial(shard.captions, place)
        recording = functools.partial(shard.recording, place)
        return Record(image, label, name, texts, read_recording=recording)
