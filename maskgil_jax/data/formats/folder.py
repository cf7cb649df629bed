"""Images in a folder, with their captions beside them."""

import functools
import os
import re
from collections.abc import Iterator, Sequence

from maskgil_jax.data.formats import labelled_files, metadata
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
    """A folder with one sub-folder per class, searched at any depth; or with a file of metadata.

    Classes stand in the order of their numbers if the names of all are numbers (2 before 10), else
    in that of code points (B before a). One without images stays a class. A folder that holds
    images itself, and no sub-folders with images, is one class. Captions of NAME.jpg are the lines
    of NAME.txt or in NAME.json beside it (see captions.py).

    Rows of `metadata.csv` or `metadata.jsonl` (metadata.py) give images captions, which count
    before those beside them, and classes, which then are those of all images, wherever they lie.
    Names of classes stand in the order of `classnames.txt` beside the metadata, or else in that of
    code points. A row whose file is not there is an image that cannot be read. Part of a data set,
    such as train, has its rows in its own metadata or in that of the folder around it.

    Links are followed, and no folder is read twice: what lies in a folder of the source counts
    there, and not where a link to it is. Hidden folders and those of systems are passed over.

    Args:
      path: of the folder.
      each: whether each folder below is a class of its own, such as dog/husky.

    Raises:
      InputError: no such folder, no images in it, images beside class folders, a folder that cannot
        be listed, splits of a data set, such as train and val, in the place of classes, or metadata
        that cannot be used.
    """

    def __init__(self, path: str, each: bool = False):
        path = os.path.expanduser(path)
        kind = "nested" if each else "folder"
        spec = f"{kind}:{printable(path)}"
        if not os.path.isdir(path):
            raise InputError(f"data source {spec}: there is no such folder")
        is_split = bool(_SPLIT.fullmatch(os.path.basename(os.path.abspath(path))))
        self._metadata = metadata.of_folder(path, is_split)
        folders = ClassFolders(path, self._metadata, each)
        for folder in (path, *(os.path.join(path, name) for name in folders.classes)):
            unfinished.check(folder)
        self.census, self._top = folders.census, path
        _check(spec, folders, self._metadata)
        if self._metadata and self._metadata.has_labels:
            files = labelled_files.by_rows(path, folders, self._metadata)
        else:
            files = labelled_files.by_folders(path, folders)
            _explain(spec, folders, files.class_names, self._metadata)
        if self._metadata:
            files = labelled_files.with_rows(files, path, self._metadata, self.census)
            self.census.add(self._metadata.census)
        self._files, self._labels, self.class_names, self._faults = files
        self.census.images, self.census.class_names = len(self._files), self.class_names

    def __len__(self) -> int:
        return len(self._files)

    def names(self) -> Iterator[str]:
        """Ids of all records: the paths of their files."""
        return map(printable, self._files)

    def __getitem__(self, index: int) -> Record:
        path = self._files[index]
        name = printable(path)
        if index in self._faults:
            return unusable(name, self._faults[index])
        try:
            image = read_regular_file(path)
        except Unreadable as error:
            return unusable(name, str(error))
        return Record(image, int(self._labels[index]), name, functools.partial(self._texts, path))

    def _texts(self, path: str) -> tuple[str, ...]:
        """The captions of an image, unchecked: those of its rows, or else those beside it."""
        name = labelled_files.below(path, self._top)
        texts = self._metadata.texts(name) if self._metadata else ()
        return texts or captions.first(_beside(os.path.splitext(path)[0]))


def _check(spec: str, folders: ClassFolders, rows: metadata.Metadata | None) -> None:
    """Raise InputError where no classes of images can be meant."""
    filled = [name for name, files in folders.classes.items() if files]
    if not folders.direct and not filled:
        others = [line.strip() for line in folders.census.summary()[1:]]
        raise InputError(
            f"data source {spec}: no images there; expected folder/CLASS/name"
            f"{{{','.join(EXTENSIONS[:4])},...}}{'; ' if others else ''}{'; '.join(others)}"
        )
    if folders.direct and filled and not rows:
        raise InputError(
            f"data source {spec}: {len(folders.direct)} images lie beside {len(filled)} class "
            f"folders (as {printable(folders.direct[0])} does); expected every image in a class "
            "folder, or the class of each in metadata.csv"
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
    tops = {name.partition(os.sep)[0] for name in folders.classes}
    splits = sorted(name for name in tops if _SPLIT.fullmatch(name))
    trained_on = [name for name in splits if name.lower().startswith("train")]
    if 0 < len(trained_on) < len(splits):
        return splits
    if len(splits) < len(tops):
        return []
    inside = folders.nested or folders.classes.keys() - tops
    return splits if len(splits) > 1 or inside else []


def _explain(
    spec: str,
    folders: ClassFolders,
    class_names: Sequence[str],
    rows: metadata.Metadata | None,
) -> None:
    """Note in the census how the folder was understood, where another way is likely."""
    census = folders.census
    if folders.direct:
        why = "metadata says no classes" if rows else "there are no class folders"
        census.notes.append(
            f"{why}, so that all images are of one class, {class_names[0]}; for several, put them "
            f"into {spec}/CLASS/, or say them in a column label of metadata.csv"
        )
        return
    if folders.nested:
        example = printable(sorted(folders.nested)[0])
        name = example.partition(os.sep)[0]
        census.notes.append(
            f"some images lie in folders inside class folders, as {example}, and are of class "
            f"{name}; to take the folders in there as classes, give {spec}/{name}, or for all "
            f"folders nested:{spec.partition(':')[2]}"
        )
    for name, files in folders.classes.items():
        if not files:
            reason = "class folder without images, which stays a class"
            census.pass_over(printable(name), reason, is_data=True)


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
