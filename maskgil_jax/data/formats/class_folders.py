"""The listing of a folder whose sub-folders are classes, and what of it is not used."""

import collections
import os

from maskgil_jax.data.formats import folder_tree
from maskgil_jax.data.formats.metadata import Metadata
from maskgil_jax.data.records import captions, other_files
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import is_image
from maskgil_jax.runtime.errors import InputError

# Files of captions, as folder.py finds them.
CAPTIONS = tuple(suffix for e in captions.PARSERS for suffix in (f".{e}", f".{e.upper()}"))
MOST_REASONS = 40  # that are counted apart; a folder may have any number of suffixes


class ClassFolders:
    """The images of a folder by the sub-folder of it that they lie in, at any depth.

    Args:
      path: of the folder.
      metadata: of it, if it has any: what that names is an image, whatever its suffix.
      each: whether each folder below is a class of its own, called by its path, rather than a part
        of the sub-folder that it is in.

    Attributes:
      direct: paths of the images in the folder itself, sorted.
      classes: by the names of its sub-folders, the paths of the images below them, sorted. Empty
        lists are those of sub-folders without images.
      nested: paths below the folder of one image of each folder inside a class folder.
      census: what is not used of it all, and the number of images with captions.

    Raises:
      InputError: a folder that cannot be listed, or a link among the sub-folders that leads
        nowhere.
    """

    def __init__(self, path: str, metadata: Metadata | None = None, each: bool = False):
        self._path, self._metadata = path, metadata
        self.census = Census()
        self.census.captioned = 0
        self.direct: list[str] = []
        self.classes: dict[str, list[str]] = {}
        self.nested: list[str] = []
        dangling: list[str] = []
        for level in folder_tree.walk(path):
            images = self._images_of(level)
            name, inside, _ = level.path.partition(os.sep)
            if name and each:
                if images or not (level.folders or level.again):
                    self.classes[level.path] = images
                continue
            if name:
                self.classes[name] += images
                if inside and images:
                    self.nested.append(os.path.join(level.path, os.path.basename(min(images))))
                continue
            self.direct = images
            self.classes = {} if each else {name: [] for name in level.folders}
            dangling = [name for name in level.files if self._leads_nowhere(level, name)]
        for paths in (self.direct, *self.classes.values()):
            paths.sort()
        if dangling and any(self.classes.values()):
            raise InputError(
                f"data source folder:{printable(path)}: {printable(dangling[0])} is a link that "
                "leads nowhere, and may be a class: expected a folder there, or no link"
            )

    def _images_of(self, level: folder_tree.Level) -> list[str]:
        if level.again:
            self._pass_over(level, "", "link to a folder that is read already", False)
        for name in level.hidden:
            self._pass_over(level, name, "hidden folder, or one of the system", False)
        images = {name for name in level.files if is_image(name) or self._is_named(level, name)}
        stems = collections.Counter(os.path.splitext(name)[0] for name in images)
        captioned = set()
        for name in level.files:
            stem, extension = os.path.splitext(name)
            if name in images or self._is_metadata(level, name):
                continue
            if stem in stems and extension in CAPTIONS:
                captioned.add(stem)
            else:
                self._pass_over(level, name, *self._reason(level, name, bool(images)))
        assert self.census.captioned is not None
        self.census.captioned += sum(
            os.path.splitext(name)[0] in captioned or self._has_texts(level, name)
            for name in images
        )
        return [os.path.join(self._path, level.path, name) for name in images]

    def _is_named(self, level: folder_tree.Level, name: str) -> bool:
        rows = self._metadata.rows if self._metadata else {}
        return os.path.join(level.path, name) in rows

    def _is_metadata(self, level: folder_tree.Level, name: str) -> bool:
        path = os.path.join(self._path, level.path, name)
        return self._metadata is not None and path in self._metadata.files

    def _has_texts(self, level: folder_tree.Level, name: str) -> bool:
        rows = self._metadata.rows.get(os.path.join(level.path, name), ()) if self._metadata else ()
        return any(row.values.get(field) for row in rows for field in captions.FIELDS)

    def _reason(self, level: folder_tree.Level, name: str, beside_images: bool) -> tuple[str, bool]:
        if self._leads_nowhere(level, name):
            return "link that leads nowhere", True
        reason, is_data = other_files.reason(name)
        if is_data and name.endswith(CAPTIONS):
            if level.path or beside_images:
                return "captions without an image", True
            is_data = not name.lower().endswith(".txt")  # lists of classes, rather than data
        return reason, is_data

    def _leads_nowhere(self, level: folder_tree.Level, name: str) -> bool:
        path = os.path.join(self._path, level.path, name)
        return not is_image(name) and os.path.islink(path) and not os.path.exists(path)

    def _pass_over(self, level: folder_tree.Level, name: str, reason: str, is_data: bool) -> None:
        known = self.census.passed_over
        if reason not in known and len(known) >= MOST_REASONS:
            reason = "other suffixes"
        self.census.pass_over(printable(os.path.join(level.path, name)), reason, is_data=is_data)
