"""Recordings that images go with: of the images themselves, or spoken names of their classes."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from maskgil_jax.data.regular import read_regular_file
from maskgil_jax.errors import InputError, Unreadable

EXTENSIONS = (".wav", ".flac", ".mp3", ".ogg")


def find(folder: str) -> list[tuple[pathlib.Path, str]]:
    """Recordings in a folder, with ""; or those in its sub-folders, with that one's name. Sorted.

    Raises:
      InputError: no such folder, or no recordings in it.
    """
    top = _folder(folder)
    found = [(path, "") for path in _recordings_in(top)]
    for inner in [] if found else sorted(path for path in top.iterdir() if path.is_dir()):
        found += [(path, inner.name) for path in _recordings_in(inner)]
    if not found:
        raise InputError(
            f"--speech={folder}: expected recordings ({', '.join(EXTENSIONS)}), or sub-folders of "
            "them; there are none"
        )
    return found


class Recordings:
    """A folder of NAME.wav (.flac, .mp3, .ogg) for the image NAME.jpg; or of CLASS/*.wav.

    With sub-folders, each class has to have one, and an image goes with any recording in it.

    Args:
      folder: of the recordings.
      class_names: of the images.

    Raises:
      InputError: no such folder, no recordings in it, or a class that has none.
    """

    def __init__(self, folder: str, class_names: Sequence[str]):
        self._folder = _folder(folder)
        self._by_name = {path.stem: path for path in _recordings_in(self._folder)}
        self._by_class: list[list[pathlib.Path]] = []
        if self._by_name:
            return
        self._by_class = [_recordings_in(self._folder / name) for name in class_names]
        missing = [n for n, files in zip(class_names, self._by_class, strict=True) if not files]
        if missing or not class_names:
            raise InputError(
                f"recordings (config.data.speech, --speech) in {folder}: expected NAME.wav for "
                "each image NAME.jpg, or a sub-folder of recordings for each class; "
                f"{', '.join(missing[:10])} has none"
            )

    def read(self, name: str, label: int, rng: np.random.Generator) -> bytes:
        """The file that an image goes with.

        Args:
          name: id of the image: a path, of which folders and ending do not count.
          label: class of the image.
          rng: chooses among those of a class.

        Raises:
          Unreadable: there is none, or it cannot be read.
        """
        if self._by_class:
            files = self._by_class[label]
            path = files[rng.integers(len(files))]
        else:
            stem = pathlib.PurePath(name).stem
            if stem not in self._by_name:
                raise Unreadable(f"{self._folder} has no recording {stem}{EXTENSIONS[0]}")
            path = self._by_name[stem]
        try:
            return read_regular_file(path)
        except Unreadable as error:
            raise Unreadable(f"recording {path}: {error}") from None


def _folder(folder: str) -> pathlib.Path:
    path = pathlib.Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(
            f"recordings (config.data.speech, --speech) {folder}: there is no such folder"
        )
    return path


def _recordings_in(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    return [folder / name for name in names if name.lower().endswith(EXTENSIONS)]
