"""Images that training passes over, since they cannot be read, are named, counted and limited."""

import logging

import jax
import numpy as np
from etils import epath

from maskgil_jax.data.images import file_kinds
from maskgil_jax.data.records import limits
from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json, write_json
from maskgil_jax.training.dataset import Dataset

log = logging.getLogger("maskgil_jax")


class UnreadableImages:
    """Names each image that cannot be read once, and says when there are too many.

    They are kept in the work directory, in one file for each process, so that running the same
    command again does not forget them; those that were repaired since are forgiven.
    """

    def __init__(self, dataset: Dataset, workdir: epath.Path, limit: float):
        """Begin with those of earlier runs that still cannot be read.

        Args:
          dataset: of the images.
          workdir: where they are kept.
          limit: largest share of images that may be unreadable.
        """
        self._path = workdir / f"unreadable-{jax.process_index()}.json"
        self._dataset, self._limit = dataset, limit
        files = workdir.glob("unreadable-*.json") if workdir.exists() else []
        known = {i for path in files for i in known_unreadable(path, len(dataset))}
        rng = np.random.default_rng(0)
        self.seen = {i for i in known if dataset.load(i, rng)["unreadable"] == i}
        self._common = len(self.seen)
        self._kinds: list[str] = []

    def note(self, indices: np.ndarray | np.generic | None) -> None:
        """Note the `unreadable` field of a batch."""
        if indices is None:
            return
        new = {int(i) for i in np.ravel(indices) if i >= 0} - self.seen
        if new:
            self.seen |= new
            write_json(self._path, sorted(self.seen))
        for index in sorted(new):
            name, kind = self._dataset.name_of(index)
            self._kinds.append(kind or "unreadable")
            log.warning("skipped an image that cannot be read: %s", name)

    def log_kinds(self) -> None:
        """Log how many of each kind this process has met since its start, if there are any."""
        if self._kinds:
            log.warning("skipped, since they cannot be read: %s", file_kinds.counted(self._kinds))

    def too_many(self) -> str:
        """The complaint, or "", of all processes together; all call this."""
        count = self._common + processes.total(len(self.seen) - self._common)
        field = "config.data.bad_image_limit"
        return limits.complaint(count, len(self._dataset), self._limit, field)


def known_unreadable(path: epath.Path, examples: int) -> list[int]:
    """Numbers of images, of so many, that an earlier run wrote down as unreadable.

    Raises:
      InputError: the file holds something else.
    """
    indices = read_json(path)
    if isinstance(indices, list) and all(type(i) is int and 0 <= i < examples for i in indices):
        return indices
    raise InputError(
        f"{path} is damaged, or of other data: expected a list of numbers of images from 0 to "
        f"{examples - 1}. Remove it: images that cannot be read are then looked for again"
    )
