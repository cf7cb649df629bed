"""Companions of images, such as features and recordings: which file goes with which image."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import EXTENSIONS, Source
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.runtime.errors import InputError, Unreadable


class Naming:
    """The names that a file for an image may have, without its suffix.

    For an image of folder:PATH that is its path below PATH, as cat/0001 for PATH/cat/0001.jpg; of
    tar:DIR/X.tar its path in the tar, with X/ before it or without; of tfds its id. The last of an
    image's names is the one without any folder, which is all that is known of other images.

    Args:
      specs: how the sources are written that the images are of.
    """

    def __init__(self, specs: Sequence[str] = ()):
        kinds_and_paths = [spec.partition(":")[::2] for spec in specs]
        tops = {
            printable(os.path.expanduser(path))
            for kind, path in kinds_and_paths
            if kind in ("folder", "nested")
        }
        # The longest first: a source may lie in a folder of another.
        self._tops = sorted((os.path.join(top, "") for top in tops), key=len, reverse=True)
        suffixes = {os.path.splitext(path)[1] for kind, path in kinds_and_paths if kind == "tar"}
        self._tars = [f"{suffix}/" for suffix in suffixes if suffix]
        self._data_sets = [f"{path}[" for kind, path in kinds_and_paths if kind == "tfds"]

    def of(self, image: str) -> list[str]:
        """The names for the image of this id, the closest first, each once."""
        path = os.path.splitext(image)[0] if image.lower().endswith(EXTENSIONS) else image
        names = [*self._with_folders(path), os.path.basename(path)]
        return list(dict.fromkeys(names))

    def _with_folders(self, path: str) -> list[str]:
        if "/../" in path:  # of a member of a tar, perhaps: no file outside of the folder is meant
            return []
        for top in self._tops:
            if path.startswith(top):
                return [path[len(top) :].lstrip("/")]
        for suffix in self._tars:
            shard, separator, member = path.partition(suffix)
            if separator:
                return [f"{os.path.basename(shard)}/{member.lstrip('/')}", member.lstrip("/")]
        return [path] if any(map(path.startswith, self._data_sets)) else []


class Images:
    """All images that files go with.

    Args:
      specs: how their sources are written.
      opened: these sources, of images or of codes.

    Attributes:
      naming: of their files.
    """

    def __init__(self, specs: Sequence[str], opened: Sequence[Source | CodeShards]):
        self.naming = Naming(tuple(specs))
        self._opened = opened

    def ids(self, step: int = 1) -> Iterator[str]:
        """The id of every `step`-th image; records of codes that can be read are read for theirs.

        Codes take some 100 microseconds each, images less than 3.
        """
        for source in self._opened:
            if not isinstance(source, CodeShards):
                yield from itertools.islice(source.names(), 0, None, step)
                continue
            numbers = range(0, len(source), step)
            for number in tqdm(numbers, "names of images", unit="image", delay=2, disable=None):
                with contextlib.suppress(Unreadable):
                    yield source[number].id

    def few(self, count: int = 100) -> Iterator[str]:
        """Ids of at least so many images that are spread over all, or of all of them."""
        return self.ids(max(1, sum(map(len, self._opened)) // count))

    def check_files(self, what: str, exists: Callable[[str], bool]) -> None:
        """See that no image takes a file by a name that another image has too.

        Ids of codes take long to read: all of them are looked at only if some of a few images have
        files of their names without folders.

        Args:
          what: how the user calls the files.
          exists: whether there is a file of a name.

        Raises:
          InputError: one does; tells the name and both images.
        """
        codes = any(isinstance(source, CodeShards) for source in self._opened)
        if codes and not any(exists(self.naming.of(image)[-1]) for image in self.few()):
            return
        shared = {name for name in self._shared_names() if exists(name)}
        first: dict[str, str] = {}
        taken = set()
        for image in self.ids() if shared else ():
            names = self.naming.of(image)
            taken.add(next(filter(exists, names), ""))
            for name in shared.intersection(names):
                if (other := first.setdefault(name, image)) != image and name in taken:
                    expected = " and ".join(self.naming.of(one)[0] for one in (other, image))
                    raise InputError(
                        f"{what}: {name} fits two images, {other} and {image}: expected one for "
                        f"each, in folders like theirs ({expected})"
                    )

    def _shared_names(self) -> set[str]:
        # Of millions of names only hashes are stored; few belong to two images.
        hashes = (hash(name) for image in self.ids() for name in self.naming.of(image))
        unique, counts = np.unique(np.fromiter(hashes, np.int64), return_counts=True)
        several = set(unique[counts > 1].tolist())
        if not several:
            return set()
        names = (name for image in self.ids() for name in self.naming.of(image))
        return {name for name in names if hash(name) in several}
