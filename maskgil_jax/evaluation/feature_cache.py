"""Features of many images, in a file for each block of them, so that a stop loses one block.

Processes that share the directory share the work, block by block; any number of them may resume it.
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
from maskgil_jax.evaluation.image_sets import BLOCK, Block, ImageSet
from maskgil_jax.runtime import files, npz, processes
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


class CachedFeatures:
    """The features of a set of images, on disk.

    Attributes:
      names: of the features.
    """

    def __init__(
        self,
        images: ImageSet,
        networks: Sequence[FeatureNetwork],
        wanted: Iterable[str],
        directory: epath.PathLike,
    ):
        """Name the files; nothing is computed yet.

        Args:
          images: to compute features of.
          networks: that compute them.
          wanted: names of the features to write, where a network gives them.
          directory: for the files; those of other images or networks may lie there too.
        """
        self._images, self._networks = images, networks
        given = {name for network in networks for name in network.names}
        self.names = tuple(sorted({*wanted} & given))
        identity = {
            "images": images.identity,
            "networks": [network.identity for network in networks],
            "features": self.names,
            "size": BLOCK,
            "format": 3,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._directory = epath.Path(directory) / digest[:16]
        self._count = -(-len(images) // BLOCK)

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
            log.info("%s: %d of %d blocks are there", title, len(mine) - len(todo), len(mine))
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            total = sum(len(self._range(i)) for i in todo)
            disabled = True if not processes.first() else None
            with tqdm.tqdm(total=total, unit="image", desc=title, disable=disabled) as bar:
                for i, block in self._read_ahead(todo):
                    files.write_npz(self._path(i), **self._arrays(block))
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

    def _read_ahead(self, todo: Sequence[int]) -> Iterator[tuple[int, Block]]:
        """Images of these blocks; the next are read while the features of one are computed."""
        with ThreadPoolExecutor(1) as pool:
            following = [pool.submit(self._read, i) for i in todo[:1]]
            for i, after in itertools.zip_longest(todo, todo[1:]):
                block = following.pop().result()
                if after is not None:
                    following.append(pool.submit(self._read, after))
                yield i, block

    def _read(self, i: int) -> Block:
        indices = self._range(i)
        return self._images.read(indices.start, indices.stop)

    def _arrays(self, block: Block) -> dict[str, Any]:
        """The content of a block's file."""
        digest = hashlib.sha256(block.images.tobytes()).digest()
        arrays: dict[str, Any] = {"sha256": np.frombuffer(digest, np.uint8)}
        if block.labels is not None:
            arrays["labels"] = block.labels
        for network in self._networks if len(block.images) else ():
            for name, values in network.compute(block).items():
                if name in self.names:
                    arrays[name] = _finite(np.asarray(values), name, network)
        arrays["count"] = np.int64(len(block.images))
        arrays["left_out"] = np.array(block.left_out, str).reshape(
            -1, len(image_records.Named._fields)
        )
        return arrays

    def reader(self, name: str) -> Callable[[], Iterator[np.ndarray]]:
        """What reads a feature of all images, [n, D], block by block in their order."""
        return lambda: (block[name] for block in self._each("count", name) if block["count"])

    def labels(self) -> np.ndarray | None:
        """Names of the classes of all images, str [N], or None where they are not known."""
        labels = [block["labels"] for block in self._each("labels") if "labels" in block]
        return np.concatenate(labels) if len(labels) == self._count else None

    def count(self) -> int:
        """Images that could be read."""
        return sum(int(block["count"]) for block in self._each("count"))

    def left_out(self) -> list[image_records.Named]:
        """The images that cannot be read, with the reasons."""
        return [
            image_records.Named(*texts)
            for block in self._each("left_out")
            for texts in block["left_out"].tolist()
        ]

    def sha256(self) -> str:
        """Of the digests of the pixels of each block, in hex."""
        digests = (block["sha256"].tobytes() for block in self._each("sha256"))
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def _each(self, *names: str) -> Iterator[dict[str, np.ndarray]]:
        for i in range(self._count):
            yield npz.read_kept(str(self._path(i)), only=names)

    def _range(self, i: int) -> range:
        return range(i * BLOCK, min((i + 1) * BLOCK, len(self._images)))

    def _path(self, i: int) -> epath.Path:
        return self._directory / f"{i:05}.npz"


def _finite(values: np.ndarray, name: str, network: FeatureNetwork) -> np.ndarray:
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        raise InputError(
            f"features {name!r} of {network.about}: {wrong.sum()} of {len(values)} images have "
            "values that are not finite"
        )
    return values
