"""Reconstructions of images by a tokenizer, batch by batch on disk: a stop loses one batch.

Each device reconstructs a batch at a time, each process every so-manieth; their number changes
neither what is computed nor the files. Letters: N images, B of a batch, H W image, h w grid.
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
from maskgil_jax.generation.parts import in_parts
from maskgil_jax.generation.placing import Devices
from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import device_memory, each_device, files, npz, processes, version
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.progress import Progress

log = logging.getLogger("maskgil_jax")


class Reconstructions:
    """What a tokenizer reconstructs of images, a file for each batch."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        originals: np.ndarray,
        rounding: str,
        directory: epath.PathLike,
        devices: Devices,
        memory: float | None = None,
    ):
        """Name the files; nothing is computed yet.

        Args:
          tokenizer: reconstructs; on any device.
          originals: uint8 [N, H, W, 3].
          rounding: key of data.images.ROUNDINGS.
          directory: for the files; those of other tokenizers or images may lie there too.
          devices: where it reconstructs, and how many images at once.
          memory: bytes of each device to stay within beside the weights; None: what is free there.
        """
        self._originals, self._rounding, self._devices = originals, rounding, devices
        identity = {
            "tokenizer": tokenizer.fingerprint,
            "dtype": tokenizer.network.config.dtype,
            "originals": hashlib.sha256(originals.tobytes()).hexdigest(),
            "shape": originals.shape,
            "batch_size": devices.rows,
            "rounding": rounding,
            "code": version.of_code(),
            "device": jax.devices()[0].device_kind,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._directory = epath.Path(directory) / digest[:16]
        self._seconds: list[tuple[float, float]] = []
        network = devices.placed(tokenizer).network
        images = jax.ShapeDtypeStruct(
            (devices.count * devices.rows, *originals.shape[1:]), np.uint8
        )
        codes = jax.eval_shape(network.encode, images.update(dtype=jnp.float32))
        self._encode = _Program(_encode, "encoding", network, images, devices.count, memory)
        self._decode = _Program(_decode, "decoding", network, codes, devices.count, memory)

    def compute(self, title: str) -> None:
        """Compute what is not there yet; with several processes all of them call this.

        Args:
          title: of the progress.

        Raises:
          InputError: pixels that are not finite.
        """
        starts = self._starts()
        mine = starts[jax.process_index() :: jax.process_count()]
        todo = [start for start in mine if not self._path(start).exists()]
        if len(todo) < len(mine):
            log.info("%s: %d of %d batches are there", title, len(mine) - len(todo), len(mine))
        rows, count = self._devices.rows, self._devices.count
        with Progress(len(todo) * rows, "image", f"reconstructing by {title}") as progress:
            for at in range(0, len(todo), count):
                together = todo[at : at + count]
                filled = together + together[:1] * (count - len(together))
                indices = (np.array(filled)[:, None] + np.arange(rows)).ravel()
                batch = self._batch(title, self._originals[indices % len(self._originals)])
                for i, start in enumerate(together):
                    part = {name: x[i * rows : (i + 1) * rows] for name, x in batch.items()}
                    files.write_npz(self._path(start), **part)
                progress.update(len(together) * rows)
        processes.wait(f"reconstructions by {title}")

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """After `compute`: reconstructions, uint8 [N, H, W, 3], and codes, int32 [N, h, w].

        Raises:
          InputError: a file that is damaged, or that is not there.
        """
        images, codes = [], []
        for start in self._starts():
            arrays = npz.read_kept(str(self._path(start)))
            count = min(self._devices.rows, len(self._originals) - start)
            images.append(arrays["images"][:count])
            codes.append(arrays["codes"][:count])
            self._seconds.append(tuple(arrays["seconds"][0].tolist()))
        return np.concatenate(images), np.concatenate(codes)

    def _starts(self) -> list[int]:
        """The first image of each batch."""
        return list(range(0, len(self._originals), self._devices.rows))

    def _path(self, start: int) -> epath.Path:
        return self._directory / f"{start:06}.npz"

    def _batch(self, title: str, images: np.ndarray) -> dict[str, np.ndarray]:
        """Of each image: its reconstruction, its codes, and seconds of a device for both ways."""
        start = time.perf_counter()
        codes = self._encode(images)
        encoded = time.perf_counter()
        pixels = self._decode(codes)
        decoded = time.perf_counter()
        if not np.isfinite(pixels).all():
            raise InputError(f"tokenizer {title} gives pixels that are not finite")
        seconds = np.array([encoded - start, decoded - encoded]) / self._devices.rows
        return {
            "images": pixel_levels.to_uint8(pixels, self._rounding),
            "codes": codes,
            "seconds": np.tile(seconds, (len(images), 1)),
        }

    def cost(self) -> dict[str, float]:
        """After `read`: seconds of an image, the median over batches; memory of a batch."""
        encode, decode = np.median(self._seconds, axis=0).tolist()
        return {
            "encode_seconds": encode,
            "decode_seconds": decode,
            "encode_mebibytes": self._encode.mebibytes(),
            "decode_mebibytes": self._decode.mebibytes(),
        }


class _Program:
    """A function of a network and a batch, in parts where the memory asks for it."""

    def __init__(
        self,
        function: Callable[..., Any],
        doing: str,
        network: VQTokenizer,
        like: jax.ShapeDtypeStruct,
        devices: int,
        memory: float | None,
    ):
        """Take a function of jax.jit, and the shape of a batch."""
        self._function, self._doing, self._memory = function, doing, memory
        self._network, self._like = network, like
        self._in_parts = in_parts(self._whole, devices)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self._in_parts(batch, 0)

    def _whole(self, batch: np.ndarray, start: object) -> np.ndarray:
        like = self._like.update(shape=(len(batch), *self._like.shape[1:]))
        what = f"{self._doing} {len(batch)} images"
        program = self._program(len(batch))
        result = device_memory.run_within(self._memory, what, program, self._network, batch)
        self._like = like
        return np.asarray(result)

    def _program(self, rows: int) -> Callable[..., Any]:
        layout = each_device.WHOLE, each_device.ROWS
        return each_device.of(self._network, rows, self._function, layout, each_device.ROWS)[0]

    def mebibytes(self) -> float:
        """Of a device, for what is done at once, weights included, by the compiler."""
        program: Any = self._program(self._like.shape[0])
        memory = program.lower(self._network, self._like).compile().memory_analysis()
        sizes = (
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes,
            memory.temp_size_in_bytes,
        )
        return sum(sizes) / 2**20


@jax.jit
def _encode(network: VQTokenizer, images: jax.Array) -> jax.Array:
    return network.encode(images / 127.5 - 1.0)


@jax.jit
def _decode(network: VQTokenizer, codes: jax.Array) -> jax.Array:
    return network.decode(codes)
