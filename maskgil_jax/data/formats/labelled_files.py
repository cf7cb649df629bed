"""The images of a folder with their classes: those that folders are, or that metadata says."""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskgil_jax.data.formats.class_folders import ClassFolders
from maskgil_jax.data.formats.metadata import Metadata
from maskgil_jax.data.records import class_labels
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.runtime.errors import InputError, Unreadable


class LabelledFiles(NamedTuple):
    """Files, and their classes.

    Attributes:
      paths: of the files.
      labels: the class of each, int [N].
      class_names: one per class.
      faults: of files that cannot be used, by their places.
    """

    paths: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    faults: dict[int, str]


def below(file: str, folder: str) -> str:
    """The path of a file below the folder that it was listed in."""
    return file[len(os.path.join(folder, "")) :]


def by_folders(path: str, folders: ClassFolders) -> LabelledFiles:
    """Images of the folders that they lie in; of one class where some lie in none."""
    classes = folders.classes
    if folders.direct:
        images = sorted(itertools.chain(folders.direct, *classes.values()))
        classes = {os.path.basename(os.path.abspath(path)): images}
    names = sorted(classes, key=_order_of(list(classes)))
    files = [file for name in names for file in classes[name]]
    labels = np.repeat(np.arange(len(names)), [len(classes[name]) for name in names])
    return LabelledFiles(files, labels, tuple(map(printable, names)), {})


def _order_of(names: Sequence[str]) -> Callable[[str], Any]:
    if all(name.isascii() and name.isdigit() for name in names):
        return lambda name: (int(name), name)
    return lambda name: name


def by_rows(folder: str, folders: ClassFolders, metadata: Metadata) -> LabelledFiles:
    """Images of the classes that the rows of metadata say.

    Raises:
      InputError: they say none that can be used.
    """
    classes = class_labels.of_column(
        metadata.labels, metadata.class_names, f"{metadata.path}: the class of its rows"
    )
    files = sorted(itertools.chain(folders.direct, *folders.classes.values()))
    labels, faults = np.zeros(len(files), int), dict[int, str]()
    for place, file in enumerate(files):
        try:
            label = metadata.label(below(file, folder))
            if label is None:
                raise Unreadable(f"no class in {os.path.basename(metadata.path)}, as others have")
            labels[place] = classes.of(label)
        except Unreadable as error:
            faults[place] = str(error)
    used = np.delete(labels, list(faults))
    if empty := len(classes.names) - len(np.unique(used)):
        folders.census.notes.append(f"{empty:,} of {len(classes.names):,} classes have no images")
    return LabelledFiles(files, labels, classes.names, faults)


def with_rows(
    files: LabelledFiles, folder: str, metadata: Metadata, census: Census
) -> LabelledFiles:
    """The same, and what rows name but is not there, which cannot be read; noted in the census.

    Raises:
      InputError: none of it is there.
    """
    name = os.path.basename(metadata.path)
    known = {below(file, folder): file for file in files.paths}
    missing = sorted(file for file in metadata.rows if file not in known)
    rowless = [file for file in known if file not in metadata.rows]
    faults = dict(files.faults)
    for place, file in enumerate(missing, len(files.paths)):
        line = metadata.line(metadata.rows[file][0])
        faults[place] = f"{line} names it, but there is no such file"
    if len(missing) == len(metadata.rows):
        raise InputError(
            f"{metadata.path} names {len(missing)} files, none of which is there, such as "
            f"{missing[0]!r} (line {metadata.rows[missing[0]][0].line}): expected paths below the "
            "folder of this file"
        )
    if missing:
        census.notes.append(
            f"{len(missing):,} files that {name} names are not there, as {printable(missing[0])}: "
            "they count as images that cannot be read"
        )
    if rowless:
        census.notes.append(
            f"{len(rowless):,} images have no row in {name}, as {printable(rowless[0])}"
        )
    paths = files.paths + [os.path.join(folder, file) for file in missing]
    return LabelledFiles(
        paths, np.append(files.labels, np.zeros(len(missing), int)), files.class_names, faults
    )
