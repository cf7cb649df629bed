"""Pictures redrawn in part by a masked generator: their codes, of which some are drawn anew.

Letters: N pictures, B batch, h w grid of tokens.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from maskgil_jax.generation import frames, images, samplers
from maskgil_jax.generation.frames import Frame
from maskgil_jax.generation.parts import in_parts
from maskgil_jax.generation.requests import Request
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.pretrained.prompted import PromptedGenerator
from maskgil_jax.runtime.batches import fixed_batches
from maskgil_jax.runtime.errors import InputError

ROOMS = 8  # numbers of masked tokens that programs are compiled for, of each grid


@dataclasses.dataclass(frozen=True)
class Editing:
    """How pictures are redrawn.

    Attributes:
      generator: of masked tokens.
      tokenizer: of its codes.
      request: what is drawn.
      count: pictures of each of its labels.
      decoding: options of decoding by name.
      seed: of all pictures.
      keep: as frames.pasted.
      batch_size: pictures at once, at most.
      memory: bytes of each device to stay within beside the weights; None: what is free there.
    """

    generator: Generator
    tokenizer: Tokenizer
    request: Request
    count: int
    decoding: Mapping[str, Any]
    seed: int
    keep: str = "mask"
    batch_size: int = 8
    memory: float | None = None

    @property
    def labels(self) -> np.ndarray:
        """Of the pictures that are made of one, int64."""
        return np.repeat(self.request.labels, self.count)

    def frame(
        self, picture: np.ndarray, masked: np.ndarray, size: tuple[int, int] | None = None
    ) -> Frame:
        """What the generator sees of a picture; arguments as frames.frame_of."""
        downsample, (height, width) = self.tokenizer.downsample, self.generator.grid
        any_grid = self.generator.network.config.fits_any_grid
        trained = (height * downsample, width * downsample)
        return frames.frame_of(picture, masked, trained, downsample, any_grid, size)


def check(generator: Generator, decoding: Mapping[str, Any], negative: bool = False) -> None:
    """Refuse what no editing with this generator can use.

    Raises:
      InputError: the model is not masked or reads prompts itself, or options that it cannot use.
    """
    if isinstance(generator, PromptedGenerator):
        raise InputError(
            f"{generator.path or 'this model'} reads prompts itself, and cannot redraw a part of "
            "an image: expected a masked model of classes, text features or speech"
        )
    if generator.kind != "masked":
        raise InputError(
            f"{generator.path or 'this model'} is {generator.kind}, and cannot redraw a part of an "
            "image: expected a masked model"
        )
    generator.check_options(samplers.masked_options_of(generator, decoding), negative=negative)


def edit(
    some: Iterable[tuple[int, Frame]], how: Editing
) -> Iterator[tuple[int, Frame, np.ndarray]]:
    """Redraw pictures, as they are asked for.

    Args:
      some: pictures with their numbers, which their random numbers depend on; they are read in
        batches, consecutive ones of one size together.
      how: it is done.

    Yields:
      The number of a picture, its frame, and what was made of it, uint8 [len(how.labels), H, W, 3].
    """
    together = max(1, how.batch_size // len(how.labels))
    for _, group in itertools.groupby(some, key=lambda numbered: numbered[1].size):
        # Consecutive numbers, since what a batch draws is keyed from its first number on.
        for batch in _batches(group, together):
            numbers, kept = zip(*batch, strict=True)
            drawn = _redrawn(kept, numbers[0], how)
            yield from zip(numbers, kept, drawn, strict=True)


def _batches(some: Iterable[tuple[int, Frame]], most: int) -> Iterator[list[tuple[int, Frame]]]:
    """Lists of at most so many, of consecutive numbers each."""
    batch: list[tuple[int, Frame]] = []
    for number, frame in some:
        if batch and (len(batch) == most or number != batch[-1][0] + 1):
            yield batch
            batch = []
        batch.append((number, frame))
    if batch:
        yield batch


def _redrawn(kept: Sequence[Frame], first: int, how: Editing) -> list[np.ndarray]:
    """What is made of each frame of one size, of which `first` is the first one's number."""
    downsample, labels = how.tokenizer.downsample, how.labels
    masks_Nhw = np.stack([frames.masked_tokens(frame, downsample) for frame in kept])
    if not masks_Nhw.any():
        return [np.stack([frame.picture] * len(labels)) for frame in kept]
    seen = np.stack([frames.seen(frame) for frame in kept])
    codes_Nhw = images.encoder(how.tokenizer, min(len(seen), how.batch_size), how.memory)(seen)
    codes_Nhw = np.where(masks_Nhw, how.generator.mask_id, codes_Nhw)
    rows = _rows(np.tile(labels, len(kept)), codes_Nhw.repeat(len(labels), axis=0))
    drawer = in_parts(_drawer(how, codes_Nhw.shape[1:]))
    pixels = images.decoder(how.tokenizer, how.memory)
    size, start = min(len(rows), how.batch_size), first * len(labels)
    drawn = np.concatenate(
        [pixels(drawer(batch, start + at))[:n] for at, n, batch in fixed_batches(rows, size)]
    ).reshape(len(kept), len(labels), *seen.shape[1:])
    return [
        np.stack([_finished(frame, one, how) for one in some])
        for frame, some in zip(kept, drawn, strict=True)
    ]


def _finished(frame: Frame, drawn: np.ndarray, how: Editing) -> np.ndarray:
    if not frame.masked.any():  # beside others that have a mask
        return frame.picture
    return frames.pasted(frame, drawn, how.tokenizer.downsample, how.keep)


def _rows(labels: np.ndarray, codes_Bhw: np.ndarray) -> np.ndarray:
    """Labels with the codes that their pictures begin with: int [B, 1 + h * w]."""
    return np.concatenate([labels[:, None], codes_Bhw.reshape(len(labels), -1)], axis=1)


def _drawer(how: Editing, grid: tuple[int, ...]) -> samplers.Sampler:
    """A sampler of what `_rows` gives."""
    generator, request, most = how.generator, how.request, grid[0] * grid[1]
    options = samplers.masked_options_of(generator, how.decoding)
    step = -(-most // ROOMS)

    def draw(rows: np.ndarray, start: int | np.ndarray) -> Any:
        labels, codes_Bhw = rows[:, 0], rows[:, 1:].reshape(-1, *grid)
        masked = int((codes_Bhw == generator.mask_id).sum(axis=(1, 2)).max())
        return generator.sample(
            request.conditions(labels),
            seed=how.seed,
            negative=request.negative(labels) if request.negative else None,
            codes=codes_Bhw,
            start=start,
            memory=how.memory,
            room=min(most, -(-masked // step) * step),
            **options,
        )

    return draw
