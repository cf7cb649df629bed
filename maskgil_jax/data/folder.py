"""Images in a folder, with their captions beside them."""

import functools
import os
from collections.abc import Sequence

import numpy as np

from maskgil_jax.data import captions
from maskgil_jax.data.census import Census
from maskgil_jax.data.records import EXTENSIONS, Record, unusable
from maskgil_jax.errors import InputError
from maskgil_jax.runtime import unfinished


class Folder:
    """A folder with one sub-folder per class (in sorted order), searched at any depth.

    A folder that holds images itself and no sub-folders with images is one class. Captions of
    NAME.jpg are the lines of NAME.txt or in NAME.json beside it (see captions.py).
    """

    def __init__(self, path: str):
        path = os.path.expanduser(path)
        if not os.path.isdir(path):
            raise InputError(f"data source folder:{path}: there is no such folder")
        for folder in (path, *(entry.path for entry in os.scandir(path) if entry.is_dir())):
            unfinished.check(folder)
        direct = [e.path for e in os.scandir(path) if e.is_file() and _is_image(e.name)]
        nested = {
            entry.name: files
            for entry in sorted(os.scandir(path), key=lambda e: e.name)
            if entry.is_dir() and (files := _images_below(entry.path))
        }
        if not direct and not nested:
            raise InputError(
                f"data source folder:{path}: no images there; expected "
                f"folder/CLASS/name{{{','.join(EXTENSIONS)}}}"
            )
        if direct and nested:
            raise InputError(
                f"data source folder:{path}: {len(direct)} images lie beside {len(nested)} class "
                f"folders (as {sorted(direct)[0]} does); expected every image in a class folder"
            )
        classes = nested or {os.path.basename(os.path.abspath(path)): sorted(direct)}
        self.class_names = tuple(classes)
        self._files = [file for files in classes.values() for file in files]
        self._labels = np.repeat(np.arange(len(classes)), [len(f) for f in classes.values()])
        self.census = Census(len(self._files), self.class_names)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        path = self._files[index]
        name = os.fsencode(path).decode(errors="replace")  # file systems do not know UTF-8
        try:
            with open(path, "rb") as file:
                image = file.read()
        except OSError as error:
            return unusable(name, str(error.strerror))
        captions_beside = functools.partial(_captions, os.path.splitext(path)[0])
        return Record(image, int(self._labels[index]), name, captions_beside)


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _images_below(path: str) -> Sequence[str]:
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if _is_image(name)
    )


def _captions(stem: str) -> tuple[str, ...]:
    for extension in captions.PARSERS:
        try:
            with open(f"{stem}.{extension}", "rb") as file:
                return captions.parse(file.read(captions.LARGEST_FILE + 1), extension)
        except FileNotFoundError:
            continue
    return ()
