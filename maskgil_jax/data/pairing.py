"""Files that go with images, such as features and recordings: which file an image takes."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from maskgil_jax.data.names import printable
from maskgil_jax.data.records import EXTENSIONS, Source
from maskgil_jax.data.shards import CodeShards
from maskgil_jax.errors import InputError, Unreadable


class Naming:
    """The names that a file for an image may have, without its suffix.

    For an image of folder:PATH that is its path below PATH, as cat/0001 for PATH/cat/0001.jpg; of
    tar:DIR/X.tar its path in the tar, with X/ before it or without; of tfds its id. The last of an
    image's names is the one without any folder, which is all that is known of other images.

    Args:
      specs: how the sources are written that the images are of.
    """

    def __init__(self, specs: Sequence[str] = ()):
        parts = [spec.partition(":")[::2] for spec in specs]
        tops = {printable(os.path.expanduser(path)) for kind, path in parts if kind == "folder"}
        # The longest first: a source may lie in a folder of another.
        self._tops = sorted((os.path.join(top, "") for top in tops), key=len, reverse=True)
        suffixes = {os.path.splitext(path)[1] for kind, path in parts if kind == "tar"}
        self._tars = [f"{suffix}/" for suffix in suffixes if suffix]
        self._data_sets = [f"{path}[" for kind, path in parts if kind == "tfds"]

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
            shard, found, member = path.partition(suffix)
            if found:
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

        Codes take some 20 microseconds each, images less than 3.
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

    def check_files(self, what: str, find: Callable[[str], str | None]) -> None:
        """See that no file goes with two images.

        Args:
          what: how the user calls the files.
          find: gives the file of the image of an id, None where there is none.

        Raises:
          InputError: one does; names it and both images.
        """
        # Of millions of ids only a hash is kept; few names without folders are of two images.
        last = (hash(self.naming.of(image)[-1]) for image in self.ids())
        hashes, counts = np.unique(np.fromiter(last, np.int64), return_counts=True)
        twice = set(hashes[counts > 1].tolist())
        if not twice:
            return
        taken: dict[str, str] = {}
        for image in self.ids():
            if hash(self.naming.of(image)[-1]) not in twice or not (file := find(image)):
                continue
            if (other := taken.setdefault(file, image)) != image:
                name = self.naming.of(image)[-1]
                expected = " and ".join(self.naming.of(one)[0] for one in (other, image))
                raise InputError(
                    f"{what}: {file} fits two images by their name {name}, {other} and {image}: "
                    f"expected one for each, as {expected} in that folder"
                )
