"""Features of many images, in files of a few each, so that work that was cut short goes on.

Processes that share the directory share the work, part by part; any number of them may go on.
"""

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import tqdm
from etils import epath

from maskgil_jax.data.records import image_records
from maskgil_jax.evaluation.feature_networks import FeatureNetwork
from maskgil_jax.evaluation.image_sets import PART, ImageSet, Piece
from maskgil_jax.runtime import files, npz, processes
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


class Parts:
    """The features of a set of images, on disk.

    Attributes:
      kept: their names.
    """

    def __init__(
        self,
        images: ImageSet,
        networks: Sequence[FeatureNetwork],
        keep: Iterable[str],
        directory: epath.PathLike,
    ):
        """Name the files; nothing is computed yet.

        Args:
          images: to compute features of.
          networks: that compute them.
          keep: names of the features that are kept, where a network gives them.
          directory: for the files; those of other images or networks may lie there too.
        """
        self._images, self._networks = images, networks
        given = {name for network in networks for name in network.names}
        self.kept = tuple(sorted({*keep} & given))
        identity = {
            "images": images.identity,
            "networks": [network.identity for network in networks],
            "features": self.kept,
            "size": PART,
            "format": 3,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._directory = epath.Path(directory) / digest[:16]
        self._count = -(-len(images) // PART)

    def compute(self, title: str) -> None:
        """Compute what is not there yet; with several processes all of them call this.

        Args:
          title: of the progress bar.

        Raises:
          InputError: no image can be read, features that are not finite, or a directory that
            cannot be written.
        """
        mine = range(jax.process_index(), self._count, jax.process_count())
        todo = [i for i in mine if not self._path(i).exists()]
        if len(todo) < len(mine):
            log.info("%s: %d of %d parts are there", title, len(mine) - len(todo), len(mine))
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            total = sum(len(self._range(i)) for i in todo)
            disabled = True if not processes.first() else None
            with tqdm.tqdm(total=total, unit="image", desc=title, disable=disabled) as bar:
                for i, piece in self._read_ahead(todo):
                    files.write_npz(self._path(i), **self._features(piece))
                    bar.update(len(self._range(i)))
        except OSError as error:
            raise InputError(f"{self._directory} cannot be written: {error}") from None
        processes.wait(f"features of {title}")
        if not self.count():
            raise InputError(
                image_records.none_readable(
                    self._images.path, len(self._images), [image.name for image in self.left_out()]
                )
            )

    def _read_ahead(self, todo: Sequence[int]) -> Iterator[tuple[int, Piece]]:
        """Images of these parts; the next are read while the features of some are computed."""
        with ThreadPoolExecutor(1) as pool:
            following = [pool.submit(self._read, i) for i in todo[:1]]
            for i, after in itertools.zip_longest(todo, todo[1:]):
                piece = following.pop().result()
                if after is not None:
                    following.append(pool.submit(self._read, after))
                yield i, piece

    def _read(self, part: int) -> Piece:
        indices = self._range(part)
        return self._images.read(indices.start, indices.stop)

    def _features(self, piece: Piece) -> dict[str, Any]:
        digest = hashlib.sha256(piece.images.tobytes()).digest()
        kept: dict[str, Any] = {"sha256": np.frombuffer(digest, np.uint8)}
        if piece.labels is not None:
            kept["labels"] = piece.labels
        for network in self._networks if len(piece.images) else ():
            for name, values in network.compute(piece.images).items():
                if name in self.kept:
                    kept[name] = _finite(np.asarray(values), name, network)
        kept["count"] = np.int64(len(piece.images))
        kept["left_out"] = np.array(piece.left_out, str).reshape(
            -1, len(image_records.Named._fields)
        )
        return kept

    def reader(self, name: str) -> Callable[[], Iterator[np.ndarray]]:
        """What gives a kept feature of all images, [n, D], part by part in their order."""
        return lambda: (part[name] for part in self._each("count", name) if part["count"])

    def labels(self) -> np.ndarray | None:
        """Names of the classes of all images, str [N], or None where they are not known."""
        found = [part["labels"] for part in self._each("labels") if "labels" in part]
        return np.concatenate(found) if len(found) == self._count else None

    def count(self) -> int:
        """Images that could be read."""
        return sum(int(part["count"]) for part in self._each("count"))

    def left_out(self) -> list[image_records.Named]:
        """The images that cannot be read, with the reasons."""
        return [
            image_records.Named(*texts)
            for part in self._each("left_out")
            for texts in part["left_out"].tolist()
        ]

    def sha256(self) -> str:
        """Of the digests of the pixels of every PART images, in hex."""
        digests = (part["sha256"].tobytes() for part in self._each("sha256"))
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def _each(self, *names: str) -> Iterator[dict[str, np.ndarray]]:
        for i in range(self._count):
            yield npz.read_kept(str(self._path(i)), only=names)

    def _range(self, part: int) -> range:
        return range(part * PART, min((part + 1) * PART, len(self._images)))

    def _path(self, part: int) -> epath.Path:
        return self._directory / f"{part:05}.npz"


def _finite(values: np.ndarray, name: str, network: FeatureNetwork) -> np.ndarray:
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        raise InputError(
            f"features {name!r} of {network.about}: {wrong.sum()} of {len(values)} images have "
            "values that are not finite"
        )
    return values
