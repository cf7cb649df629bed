"""Images that are generated while they are measured."""

import functools
import hashlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from maskgil_jax.evaluation import image_sets
from maskgil_jax.evaluation.image_sets import Block
from maskgil_jax.generation import placing
from maskgil_jax.generation.images import decoder, generate_images
from maskgil_jax.generation.passes import PassCount
from maskgil_jax.generation.samplers import Sampler
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.batches import even_batch, fixed_batches

TIMED = 3  # batches, of which the fastest counts


class Models:
    """A generator and its tokenizer on every device of this process, ready to be measured.

    Attributes:
      generator, tokenizer: copies whose weights all these devices hold.
    """

    def __init__(self, generator: Generator, tokenizer: Tokenizer):
        """Place the weights."""
        self.generator, self.tokenizer = map(placing.over_devices, (generator, tokenizer))

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of both, by name."""
        return {
            "generator": self.generator.fingerprint,
            "tokenizer": self.tokenizer.fingerprint,
        }


class GeneratedImages:
    """One image for each label; none is ever written as a file."""

    def __init__(
        self,
        sampler: Sampler,
        models: Models,
        labels: np.ndarray,
        *,
        names: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
        batch_size: int,
        path: str = "samples",
        about: dict[str, Any] | None = None,
        passes: PassCount | None = None,
    ):
        """Nothing is generated yet.

        Args:
          sampler: of the models' generator and of placing.split_over_devices of conditions.
          models: the generator and its tokenizer.
          labels: int [N], class ids or rows, as the sampler takes them.
          names: of the class of each label, by label; None: not known.
          captions: that images are generated of, by label; None: of something else.
          batch_size: images generated at once, at most, spread over the devices of this process.
          path: how messages call the set.
          about: JSON-able: what they depend on beside the models: seed, options, conditions.
          passes: which the sampler counts with; None: it does not.
        """
        generator, self._tokenizer = models.generator, models.tokenizer
        self.path = path
        self._sampler, self._labels = sampler, labels
        self.passes = passes
        self._mesh = sharding.local_mesh()
        total = min(image_sets.BLOCK, len(labels))
        self._batch_size = even_batch(batch_size, total, self._mesh.size)
        height, width = generator.grid
        self._size = height * self._tokenizer.downsample, width * self._tokenizer.downsample
        self._names = None if names is None else np.array(names)
        self._captions, self.captioned = captions, captions is not None
        self.about: dict[str, Any] = {
            "path": path,
            "count": len(labels),
            **(about or {}),
            **models.fingerprints,
        }
        digest = hashlib.sha256(np.asarray(labels, np.int64).tobytes()).hexdigest()
        self.identity = {**self.about, "labels": digest}

    names = None  # of the images

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._size

    def read(self, start: int, stop: int) -> Block:
        """Generate images start .. stop - 1; which are generated together makes no difference."""
        labels = self._labels[start:stop]
        with jax.set_mesh(self._mesh):
            images = generate_images(
                lambda batch, at: self._sampler(batch, start + at),
                self._tokenizer,
                labels,
                self._batch_size,
                self._mesh.size,
            )
        captions = self._captions
        return Block(
            images,
            None if self._names is None else self._names[labels],
            read_captions=None if captions is None else lambda: [captions[i] for i in labels],
        )

    def seconds_per_image(self) -> float:
        """Of sampling the codes of a batch, at its fastest; `timing` says so."""
        return self.timed(0)[0]

    def timed(self, count: int) -> tuple[float, np.ndarray]:
        """`seconds_per_image`, and the first images, of the batch that was timed where it has them.

        Args:
          count: images that are given, at most.

        Returns:
          Seconds, and uint8 [N, H, W, 3].
        """
        _, real, batch = next(fixed_batches(self._labels, self._batch_size))
        with jax.set_mesh(self._mesh):
            codes = jax.block_until_ready(self._sampler(batch, 0))
            times = []
            for _ in range(TIMED):
                start = time.perf_counter()
                jax.block_until_ready(self._sampler(batch, 0))
                times.append(time.perf_counter() - start)
            seconds = min(times) / len(batch)  # other work on the machine only adds to it
            if not count:
                return seconds, np.zeros((0, *self.size, 3), np.uint8)
            if count > real:
                return seconds, self.read(0, min(count, len(self))).images
            return seconds, decoder(self._tokenizer, devices=self._mesh.size)(codes)[:count]

    @property
    def timing(self) -> str:
        """What seconds_per_image is of, for results."""
        return (
            f"codes alone, the fastest of {TIMED} batches of {self._batch_size} after one that "
            "compiles, on "
            f"{self._mesh.size} x {jax.local_devices()[0].device_kind}"
        )


def balanced(count: int, classes: int) -> np.ndarray:
    """Class ids of `count` images, as many of each, in turn: int64 [count]."""
    return np.arange(count) % classes
