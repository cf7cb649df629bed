"""Recordings that go with images: descriptions of them, or spoken names of their classes."""

import collections
import logging
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from maskgil_jax.data.companions.pairing import Images, Naming
from maskgil_jax.data.formats import folder_tree
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import RECORDINGS
from maskgil_jax.data.records.other_files import APPLE_DOUBLE
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import read_regular_file

log = logging.getLogger("maskgil_jax")

WHAT = "recordings (config.data.speech, or speech)"


def find(folder: str) -> list[tuple[pathlib.Path, str]]:
    """Recordings in a folder, with ""; or those in its sub-folders, with that one's name. Sorted.

    Raises:
      InputError: no such folder, or no recordings in it.
    """
    top = _folder(folder)
    paths = sorted(_recordings_below(top), key=lambda path: path.split(os.sep))
    if not paths:
        raise InputError(
            f"speech={folder}: expected recordings ({', '.join(RECORDINGS)}), or sub-folders of "
            "them; there are none"
        )
    if direct := [path for path in paths if os.sep not in path]:
        if unused := len(paths) - len(direct):
            log.warning(
                "speech=%s: %d recordings in sub-folders are not used, since %d lie beside these",
                *(folder, unused, len(direct)),
            )
        return [(top / path, "") for path in direct]
    return [(top / path, printable(path.partition(os.sep)[0])) for path in paths]


class Recordings:
    """A folder of NAME.wav (.flac, .mp3, .ogg) for the image NAME.jpg; or of CLASS/*.wav.

    NAME is one of pairing.Naming, so that the recordings may lie in folders like those of the
    images. If they lie in sub-folders and most images have none of their own, the sub-folders are
    taken for classes: each class has to have one, and an image goes with any recording in it.

    Args:
      folder: of the recordings.
      class_names: of the images.
      images: that they go with; None: their names without folders tell them apart.

    Raises:
      InputError: no such folder, no recordings in it, two of one name, one that fits two images, or
        a class that has none.
    """

    def __init__(self, folder: str, class_names: Sequence[str], images: Images | None = None):
        self._folder = _folder(folder)
        self._naming = images.naming if images else Naming()
        paths = _recordings_below(self._folder)
        self._by_name = {_name(path): path for path in paths}
        self._by_class: list[list[str]] = []
        if self._of_images(paths, images):
            self._check_names(paths)
            if images:
                images.check_files(f"{WHAT} in {folder}", self._by_name.__contains__)
            return
        by_class = collections.defaultdict(list)
        for path in paths:
            by_class[printable(path.partition(os.sep)[0])].append(path)
        self._by_class = [by_class[name] for name in class_names]
        missing = [n for n, files in zip(class_names, self._by_class, strict=True) if not files]
        if missing or not class_names:
            raise InputError(
                f"{WHAT} in {folder}: expected NAME.wav for each image NAME.jpg, or a sub-folder "
                f"of recordings for each class; {', '.join(missing[:10])} has none"
            )

    def _of_images(self, paths: Sequence[str], images: Images | None) -> bool:
        """Whether the recordings are of images, rather than of classes."""
        if any(os.sep not in path for path in paths):
            return True
        few = list(images.few()) if paths and images else []
        own = sum(self._find(image) is not None for image in few)
        if own:
            which = "their own recordings" if 2 * own > len(few) else "any recording of their class"
            log.info(
                "%s in %s: images go with %s, since of %d images %d have one of their own path",
                *(WHAT, self._folder, which, len(few), own),
            )
        return 2 * own > len(few)

    def _check_names(self, paths: Sequence[str]) -> None:
        for path in paths:
            if (other := self._by_name[_name(path)]) != path:
                raise InputError(
                    f"{WHAT} in {self._folder}: {path} and {other} are both of the name "
                    f"{_name(path)}: expected one for an image"
                )

    def _find(self, image: str) -> str | None:
        return next((self._by_name[n] for n in self._naming.of(image) if n in self._by_name), None)

    def read(self, name: str, label: int, rng: np.random.Generator) -> bytes:
        """The file that an image goes with.

        Args:
          name: id of the image.
          label: class of the image.
          rng: chooses among those of a class.

        Raises:
          Unreadable: there is none, or it cannot be read.
        """
        if self._by_class:
            files = self._by_class[label]
            path = files[rng.integers(len(files))]
        elif not (path := self._find(name) or ""):
            names = " or ".join(f"{known}{RECORDINGS[0]}" for known in self._naming.of(name))
            raise Unreadable(f"{self._folder} has no recording {names}")
        try:
            return read_regular_file(self._folder / path)
        except Unreadable as error:
            raise Unreadable(f"recording {self._folder / path}: {error}") from None


def _name(path: str) -> str:
    return printable(os.path.splitext(path)[0])


def _folder(folder: str) -> pathlib.Path:
    path = pathlib.Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f"{WHAT} {folder}: there is no such folder")
    return path


def _recordings_below(top: pathlib.Path) -> list[str]:
    """Paths of recordings below a folder, at any depth, sorted."""
    return sorted(
        os.path.join(level.path, name)
        for level in folder_tree.walk(str(top))
        for name in level.files
        if _is_recording(name)
    )


def _is_recording(name: str) -> bool:
    return name.lower().endswith(RECORDINGS) and not name.startswith(APPLE_DOUBLE)
