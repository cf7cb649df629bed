"""Images in a folder, with their captions beside them."""

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from maskgil_jax.data.formats.class_folders import ClassFolders
from maskgil_jax.data.records import captions
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import EXTENSIONS, Record, unusable
from maskgil_jax.runtime import unfinished
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import read_regular_file

# Names of the splits of a data set, as in train, val2017, test-images.
_SPLIT = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|eval)"
    r"([-_ ]?(set|images|data|split|\d+))?",
    re.IGNORECASE,
)


class Folder:
    """A folder with one sub-folder per class, searched at any depth.

    Classes stand in the order of their numbers if the names of all are numbers (2 before 10), else
    in that of code points (B before a). One without images stays a class. A folder that holds
    images itself, and no sub-folders with images, is one class. Captions of NAME.jpg are the lines
    of NAME.txt or in NAME.json beside it (see captions.py).

    Links are followed, and no folder is read twice: what lies in a folder of the source counts
    there, and not where a link to it is. Hidden folders and those of systems are passed over.

    Raises:
      InputError: no such folder, no images in it, images beside class folders, a folder that cannot
        be listed, or splits of a data set, such as train and val, in the place of classes.
    """

    def __init__(self, path: str):
        path = os.path.expanduser(path)
        spec = f"folder:{printable(path)}"
        if not os.path.isdir(path):
            raise InputError(f"data source {spec}: there is no such folder")
        folders = ClassFolders(path)
        for folder in (path, *(os.path.join(path, name) for name in folders.classes)):
            unfinished.check(folder)
        self.census = folders.census
        _check(spec, folders)
        classes = folders.classes
        if folders.direct:
            classes = {os.path.basename(os.path.abspath(path)): folders.direct}
        names = sorted(classes, key=_order_of(list(classes)))
        self.class_names = tuple(map(printable, names))
        self._files = [file for name in names for file in classes[name]]
        self._labels = np.repeat(np.arange(len(names)), [len(classes[name]) for name in names])
        self.census.images, self.census.class_names = len(self._files), self.class_names
        _explain(spec, folders)

    def __len__(self) -> int:
        return len(self._files)

    def names(self) -> Iterator[str]:
        """Ids of all records: the paths of their files."""
        return map(printable, self._files)

    def __getitem__(self, index: int) -> Record:
        path = self._files[index]
        name = printable(path)
        try:
            image = read_regular_file(path)
        except Unreadable as error:
            return unusable(name, str(error))
        captions_beside = functools.partial(_captions, os.path.splitext(path)[0])
        return Record(image, int(self._labels[index]), name, captions_beside)


def _order_of(names: Sequence[str]) -> Callable[[str], Any]:
    if all(name.isascii() and name.isdigit() for name in names):
        return lambda name: (int(name), name)
    return lambda name: name


def _check(spec: str, folders: ClassFolders) -> None:
    """Raise InputError where no classes of images can be meant."""
    filled = [name for name, files in folders.classes.items() if files]
    if not folders.direct and not filled:
        others = [line.strip() for line in folders.census.summary()[1:]]
        raise InputError(
            f"data source {spec}: no images there; expected folder/CLASS/name"
            f"{{{','.join(EXTENSIONS[:4])},...}}{'; ' if others else ''}{'; '.join(others)}"
        )
    if folders.direct and filled:
        raise InputError(
            f"data source {spec}: {len(folders.direct)} images lie beside {len(filled)} class "
            f"folders (as {printable(folders.direct[0])} does); expected every image in a class "
            "folder"
        )
    if not folders.direct and (splits := _splits(folders)):
        raise InputError(
            f"data source {spec}: its folders {', '.join(map(printable, splits))} look like splits "
            f"of a data set, not like classes: expected one of them, as {spec}/{splits[0]} (or, in "
            "training, several in config.data.mixture); if they are classes, rename them"
        )


def _splits(folders: ClassFolders) -> list[str]:
    """Names of the sub-folders that are splits of a data set, or none where they may be classes.

    There are classes that are called train.
    """
    splits = sorted(name for name in folders.classes if _SPLIT.fullmatch(name))
    trained_on = [name for name in splits if name.lower().startswith("train")]
    if 0 < len(trained_on) < len(splits):
        return splits
    if len(splits) < len(folders.classes):
        return []
    return splits if len(splits) > 1 or folders.nested else []


def _explain(spec: str, folders: ClassFolders) -> None:
    """Note in the census how the folder was understood, where another way is likely."""
    census = folders.census
    if folders.direct:
        census.notes.append(
            f"there are no class folders, so that all images are of one class, "
            f"{census.class_names[0]}; for several, put them into {spec}/CLASS/"
        )
        return
    if folders.nested:
        example = printable(sorted(folders.nested)[0])
        name = example.partition(os.sep)[0]
        census.notes.append(
            f"some images lie in folders inside class folders, as {example}, and are of class "
            f"{name}; to take the folders in there as classes, give {spec}/{name}"
        )
    for name, files in folders.classes.items():
        if not files:
            reason = "class folder without images, which stays a class"
            census.pass_over(printable(name), reason, is_data=True)


def _captions(stem: str) -> tuple[str, ...]:
    return captions.first(_beside(stem))


def _beside(stem: str) -> Iterator[tuple[str, bytes]]:
    """Extension and content of the files that may hold captions of NAME.jpg, for its stem."""
    for extension in captions.PARSERS:
        for path in (f"{stem}.{extension}", f"{stem}.{extension.upper()}"):
            if os.path.lexists(path):
                yield extension, _read(path)


def _read(path: str) -> bytes:
    try:
        return read_regular_file(path, captions.LARGEST_FILE)
    except Unreadable as error:
        raise Unreadable(f"its {printable(os.path.basename(path))} {error}") from None
