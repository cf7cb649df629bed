"""Reconstructions of images by a tokenizer, batch by batch on disk: a stop loses one batch.

Letters: N images, B of a batch, H W image, h w grid.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from maskgil_jax.data.images import pixel_levels
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import files, npz, version
from maskgil_jax.runtime.batches import fixed_batches
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.progress import Progress

log = logging.getLogger("maskgil_jax")


class Reconstructions:
    """What a tokenizer reconstructs of images, a file for each batch."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        originals: np.ndarray,
        batch_size: int,
        rounding: str,
        directory: epath.PathLike,
    ):
        """Name the files; nothing is computed yet.

        Args:
          tokenizer: reconstructs.
          originals: uint8 [N, H, W, 3].
          batch_size: images at once.
          rounding: key of data.images.ROUNDINGS.
          directory: for the files; those of other tokenizers or images may lie there too.
        """
        self._network, self._originals = tokenizer.network, originals
        self._batch_size, self._rounding = min(batch_size, len(originals)), rounding
        identity = {
            "tokenizer": tokenizer.fingerprint,
            "dtype": tokenizer.network.config.dtype,
            "originals": hashlib.sha256(originals.tobytes()).hexdigest(),
            "shape": originals.shape,
            "batch_size": self._batch_size,
            "rounding": rounding,
            "code": version.of_code(),
            "device": jax.devices()[0].device_kind,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._directory = epath.Path(directory) / digest[:16]
        self._seconds: list[tuple[float, float]] = []
        self._batches = -(-len(originals) // self._batch_size)
        images = jax.ShapeDtypeStruct((self._batch_size, *originals.shape[1:]), originals.dtype)
        self._encode = self._compiled(
            lambda network, images: network.encode(images / 127.5 - 1.0), images
        )
        codes = jax.eval_shape(self._network.encode, images.update(dtype=jnp.float32))
        self._decode = self._compiled(lambda network, codes: network.decode(codes), codes)

    def _compiled(self, function: Callable[..., jax.Array], like: jax.ShapeDtypeStruct) -> Any:
        return jax.jit(function).lower(self._network, like).compile()

    def compute(self, title: str) -> tuple[np.ndarray, np.ndarray]:
        """Compute what is not there yet.

        Args:
          title: of the progress.

        Returns:
          Reconstructions, uint8 [N, H, W, 3], and codes, int32 [N, h, w].

        Raises:
          InputError: a file that is damaged, or pixels that are not finite.
        """
        images, codes = [], []
        done = len(list(self._directory.glob("*.npz"))) if self._directory.exists() else 0
        if done:
            log.info("%s: %d of %d batches are there", title, done, self._batches)
        with Progress(len(self._originals), "image", f"reconstructing by {title}") as progress:
            for start, count, batch in fixed_batches(self._originals, self._batch_size):
                path = self._directory / f"{start:06}.npz"
                if worked := not path.exists():
                    files.write_npz(path, **self._batch(title, batch))
                arrays = npz.read_kept(str(path))
                images.append(arrays["images"][:count])
                codes.append(arrays["codes"][:count])
                self._seconds.append(tuple(arrays["seconds"].tolist()))
                progress.update(count, worked=worked)
        return np.concatenate(images), np.concatenate(codes)

    def _batch(self, title: str, images: np.ndarray) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        codes = np.asarray(self._encode(self._network, images))
        encoded = time.perf_counter()
        pixels = np.asarray(self._decode(self._network, codes))
        decoded = time.perf_counter()
        if not np.isfinite(pixels).all():
            raise InputError(f"tokenizer {title} gives pixels that are not finite")
        return {
            "images": pixel_levels.to_uint8(pixels, self._rounding),
            "codes": codes,
            "seconds": np.array([encoded - start, decoded - encoded]) / len(images),
        }

    def cost(self) -> dict[str, float]:
        """After `compute`: seconds of an image, the median over batches; memory of a batch."""
        encode, decode = np.median(self._seconds, axis=0).tolist()
        return {
            "encode_seconds": encode,
            "decode_seconds": decode,
            "encode_mebibytes": _mebibytes(self._encode),
            "decode_mebibytes": _mebibytes(self._decode),
        }


def _mebibytes(compiled: Any) -> float:
    memory = compiled.memory_analysis()
    sizes = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
    return sum(sizes) / 2**20
