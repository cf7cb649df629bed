"""What images are requested of a generator: by class ids, prompts, recordings or features."""

import hashlib
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from maskgil_jax.conditioning import choice, speech
from maskgil_jax.data.companions import features
from maskgil_jax.data.formats import coco
from maskgil_jax.data.images import buckets
from maskgil_jax.data.records import captions
from maskgil_jax.data.sound import audio
from maskgil_jax.generation import samplers
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained import class_names
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.prompted import PromptedGenerator
from maskgil_jax.pretrained.text_encoder import TextEncoder
from maskgil_jax.runtime.errors import InputError, Unreadable

log = logging.getLogger("maskgil_jax")


class Request(NamedTuple):
    """Labels, and the conditions that they stand for.

    Attributes:
      labels: int64 [K], class ids or places among prompts, recordings or files.
      conditions: of labels.
      names: of all labels, by label; None: not known.
      negative: conditions of negative prompts; None: the null condition.
      texts: of labels, where they are prompts.
      of_classes: whether the names are those of classes.
    """

    labels: np.ndarray
    conditions: samplers.Conditions
    names: Sequence[str] | None
    negative: samplers.Conditions | None = None
    texts: samplers.Texts | None = None
    of_classes: bool = False

    def names_of(self, count: int) -> list[str]:
        """What so many images show, of the labels in turn: names, or numbers if none are known."""
        labels = self.labels[np.arange(count) % len(self.labels)]
        return [str(label) if self.names is None else self.names[label] for label in labels]


def of_classes(generator: Generator, given: Sequence[int | str]) -> Request:
    """Images of classes, as class_names.ids_of takes them; of all where none are given.

    Raises:
      InputError: the generator has no classes, or not these.
    """
    last = generator.num_classes - 1
    if generator.is_unconditional:
        raise InputError("the generator is unconditional: expected no classes")
    if last < 0:
        kind = "prompts" if isinstance(generator, PromptedGenerator) else "features"
        raise InputError(f"the generator is conditioned on {kind}, not on classes")
    try:
        ids = generator.ids_of_classes(given or [class_names.ALL])
    except InputError as error:
        raise InputError(f"classes: {error}") from None
    classes = np.array(ids, np.int64)
    if not 0 <= min(classes) <= max(classes) <= last:
        raise InputError(f"class ids from {min(classes)} to {max(classes)}, expected 0 to {last}")
    return Request(classes, samplers.by_class, generator.names_of_classes, of_classes=True)


def of_nothing(generator: Generator) -> Request:
    """Images without a condition.

    Raises:
      InputError: the generator has one.
    """
    if not generator.is_unconditional:
        raise InputError("the generator has a condition, none is given")
    return Request(np.zeros(1, np.int64), samplers.by_class, ("unconditional",))


def of_prompts(
    generator: Generator,
    prompts: Sequence[str],
    encoder: str | choice.Encoder = "",
    verify: bool = True,
    negative_prompt: str | None = None,
) -> Request:
    """Images of texts.

    Args:
      generator: the model.
      prompts: one or more.
      encoder: its directory, "" for the generator's own; or the encoder, read already.
      verify: compare the encoder's fingerprint with what is read.
      negative_prompt: for all prompts; None: guidance is against the null condition.

    Raises:
      InputError: the generator is not conditioned on text, or its encoder is not there.
    """

    def texts(labels: np.ndarray) -> list[str]:
        return [prompts[label] for label in labels]

    def against(labels: np.ndarray) -> list[str]:
        return [negative_prompt or ""] * len(labels)

    labels, given = np.arange(len(prompts)), negative_prompt is not None
    of_texts = samplers.Texts(texts, against if given else None)
    if isinstance(generator, PromptedGenerator):
        if encoder:
            raise InputError(f"encoder={encoder}: the generator reads prompts itself")
        generator.ids([*prompts, *against(labels[:1])], generator.grid)
        return Request(labels, texts, prompts, of_texts.negative, of_texts)
    text_encoder = _read_encoder(generator, encoder, verify)
    if not isinstance(text_encoder, TextEncoder):
        raise InputError("prompts: the generator is conditioned on speech, expected recordings")
    tokens = generator.network.config.condition_tokens

    def conditions(labels: np.ndarray) -> Features:
        return text_encoder.features(texts(labels), tokens)

    def negative(labels: np.ndarray) -> Features:
        return text_encoder.features(against(labels), tokens)

    return Request(labels, conditions, prompts, negative if given else None, of_texts)


def of_recordings(
    generator: Generator,
    paths: Sequence[epath.PathLike],
    encoder: str | choice.Encoder = "",
    verify: bool = True,
    names: Sequence[str] | None = None,
) -> Request:
    """Images of speech; a recording is read when its image is generated.

    Args:
      generator: the model.
      paths: of the recordings, all known to be readable.
      encoder, verify: as in `of_prompts`.
      names: classes of each recording; None: not known.

    Raises:
      InputError: the generator is not conditioned on speech, or its encoder is not there.
    """
    speech_encoder = _read_encoder(generator, encoder, verify)
    if isinstance(speech_encoder, TextEncoder):
        raise InputError("speech: the generator is conditioned on text, expected prompts")
    config = generator.network.config

    def conditions(labels: np.ndarray) -> Features:
        waveforms = [audio.decode(audio.read_file(paths[label])) for label in labels]
        return speech.features(
            speech_encoder, waveforms, config.condition_tokens, config.feature_dim
        )

    return Request(np.arange(len(paths)), conditions, names, of_classes=True)


def check_recordings(paths: Sequence[epath.PathLike]) -> list[str]:
    """The hashes of recordings; InputError where one cannot be read, before anything is drawn."""
    digests = []
    for path in paths:
        try:
            content = audio.read_file(path)
            audio.decode(content)
        except Unreadable as error:
            raise InputError(f"speech={path}: {error}") from None
        digests.append(hashlib.sha256(content).hexdigest())
    return digests


def _read_encoder(
    generator: Generator, encoder: str | choice.Encoder, verify: bool
) -> choice.Encoder:
    if isinstance(encoder, str):
        return choice.encoder_of(generator, encoder, verify)
    return encoder


def read_features(generator: Generator, paths: Sequence[str]) -> Features:
    """Features of these files, as the generator takes them.

    Raises:
      InputError: it is conditioned on classes, or takes other features.
    """
    config = generator.network.config
    if generator.is_unconditional:
        raise InputError("the generator is unconditional: expected no features")
    if generator.num_classes:
        raise InputError("the generator is conditioned on classes, not on features: expected ids")
    if isinstance(generator, PromptedGenerator):
        raise InputError("the generator reads prompts itself, not features: expected prompts")
    try:
        arrays = [
            features.read_file(path, config.condition_tokens, config.feature_dim) for path in paths
        ]
    except Unreadable as error:
        raise InputError(f"features: {error}") from None
    return Features(*(jnp.stack(rows) for rows in zip(*arrays, strict=True)))


def of_features(table: Features, names: Sequence[str]) -> Request:
    """Images of rows of features."""
    return Request(np.arange(len(names)), samplers.rows_of(table), names)


def grid_of(size: str, downsample: int) -> tuple[int, int]:
    """The grid, (height, width) in tokens, of images of WIDTHxHEIGHT pixels.

    Raises:
      InputError: no size, or one that is not in whole tokens.
    """
    width, height = pixels_of(size, "size")
    if width % downsample or height % downsample:
        raise InputError(
            f"size={size}, expected multiples of {downsample} (the tokenizer's downsampling)"
        )
    return height // downsample, width // downsample


def pixels_of(text: str, name: str) -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT; InputError where it is none, which calls it `name`."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise InputError(f"{name}={text}, expected WIDTHxHEIGHT in pixels, such as 512x256")
    return int(sides[0]), int(sides[1])


def check_prompted(generator: Generator, prompts: Sequence[str], size: str) -> None:
    """Refuse, before weights are read, what a generator that reads prompts itself would refuse.

    Args:
      generator: of any kind; without weights.
      prompts: for it; none where something else is given.
      size: of the images, as in `grid_of`; "": the generator's own.

    Raises:
      InputError: a size that is not listed, or as PromptedGenerator.ids.
    """
    if not isinstance(generator, PromptedGenerator):
        return
    pixels = generator.network.config.sequence.PIXELS
    grid = grid_of(size, pixels) if size else generator.grid
    if size:
        check_listed(generator, size, grid)
    if prompts:
        generator.ids(prompts, grid)


def check_listed(generator: PromptedGenerator, size: str, grid: tuple[int, int]) -> None:
    """Raise InputError where a size is none of those that a model was tuned on.

    Args:
      generator: the model.
      size: as the user gave it.
      grid: of it, (height, width) in tokens.
    """
    pixels = generator.network.config.sequence.PIXELS
    side = pixels * max(generator.grid)
    grids = buckets.named("lumina", side, pixels).grids(pixels)
    if grid in grids:
        return

    def distance(other: tuple[int, int]) -> float:
        return sum(abs(math.log(a / b)) for a, b in zip(grid, other, strict=True))

    nearest = [f"{w * pixels}x{h * pixels}" for h, w in sorted(grids, key=distance)[:3]]
    raise InputError(
        f"size={size} is none of the {len(grids)} sizes about {side}x{side} pixels that the model "
        f"was tuned on, the nearest are {', '.join(nearest)}"
    )


def read_prompts(path: str) -> list[str]:
    """The lines of a file of prompts, without the blank ones; of a JSON file those of coco.prompts.

    Messages name lines by their numbers in the file, and where blank lines lie between prompts,
    the log says on which lines these are.

    Raises:
      InputError: no such file, not UTF-8, no prompt in it, or one that is too long.
    """
    if path.endswith(".json"):
        prompts, what = coco.prompts(path)
        log.info("%s: %s", path, "\n".join(what))
        return prompts
    if path.endswith(".jsonl"):
        raise InputError(
            f"prompts={path}: lines of JSON go with layout=geneval of maskgil_jax.sample, expected "
            "a file with a prompt a line"
        )
    try:
        lines = captions.lines(captions.decode(epath.Path(path).read_bytes()))
    except (OSError, Unreadable) as error:
        raise InputError(f"prompts={path}: {error}") from None
    prompts = []
    numbers: list[int] = []
    for number, line in enumerate(lines, 1):
        if captions.is_blank(line):
            continue
        prompts.append(check_prompt(line, f"prompts={path}: line {number}"))
        numbers.append(number)
    if not prompts:
        raise InputError(f"prompts={path}: no line of it is a prompt")
    if numbers[-1] > len(numbers):
        log.info("%s: %d prompts, on lines %s", path, len(prompts), _ranges(numbers))
    return prompts


def check_prompt(text: str, where: str) -> str:
    """A prompt without space around it; InputError, which begins with `where`, if it is none."""
    try:
        return captions.checked([text])[0]
    except Unreadable as error:
        raise InputError(f"{where}: {error}") from None


def _ranges(numbers: Sequence[int], most: int = 20) -> str:
    """Ascending numbers such as 1-3, 7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [f"{first}-{last}" if last > first else f"{first}" for first, last in ranges[:most]]
    return ", ".join(texts) + (", ..." if len(ranges) > most else "")
