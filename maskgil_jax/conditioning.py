"""What generators are conditioned on: how it is read with an image, and how the model gets it.

An example has either the class itself (`label`), or features that were computed beforehand
(`features`, `mask`), or what a frozen encoder makes features of in the step (`prompt`, the token
ids of a caption; `mask`).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from maskgil_jax import api
from maskgil_jax.data.features import FeatureFiles, padded
from maskgil_jax.data.records import Record, captions_of
from maskgil_jax.data.shards import CodeRecord, Index
from maskgil_jax.errors import InputError
from maskgil_jax.generators import Generator
from maskgil_jax.models.conditions import Condition, Features
from maskgil_jax.text_encoders import TextEncoder, Vocabulary

Example = dict[str, np.ndarray | np.generic]
# The condition's part of an example; Unreadable where the image has none that can be used.
Read = Callable[[Record | CodeRecord, np.random.Generator], Example]


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Where a generator's condition comes from.

    Attributes:
      read: reads it with each image; goes to worker processes, and so holds no network.
      name: what `read` gives of an image with the same random numbers, in words.
      network: the frozen encoder of prompts, for `condition_of`; None where there are none.
      provenance: what a generator keeps of the encoder that it depends on.
    """

    read: Read
    name: Callable[[Record | CodeRecord, np.random.Generator], str]
    network: Any = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def chosen(config: ConfigDict, shards: Sequence[Index] = ()) -> Conditioning:
    """The conditioning that a generator's config asks for.

    Args:
      config: of the stage.
      shards: indices of the code shards that are trained on; none for images.

    Raises:
      InputError: fields that do not fit together, or shards of another encoder.
    """
    given = [name for name in ("encoder", "data.features") if _value(config, name)]
    if len(given) > 1 or bool(given) != bool(config.model.feature_dim):
        raise InputError(
            f"config.encoder = {config.encoder!r}, config.data.features = "
            f"{config.data.features!r} and config.model.feature_dim = {config.model.feature_dim}: "
            "expected one of the first two and the width of its features, or none (conditioned on "
            "the class)"
        )
    tokens, width = config.model.condition_tokens, config.model.feature_dim
    if config.data.features:
        files = FeatureFiles(config.data.features, tokens, width)
        return Conditioning(FileReader(files), name_of_image)
    if not config.encoder:
        return Conditioning(read_class, name_of_image)
    encoder = api.load_text_encoder(config.encoder)
    if encoder.width != width:
        raise InputError(
            f"config.encoder = {config.encoder} gives features of width {encoder.width}, but "
            f"config.model.feature_dim = {width}; if the encoder is right, set "
            f"--config.model.feature_dim={encoder.width}"
        )
    return of_captions(encoder, tokens, shards)


def of_generator(generator: Generator, shards: Index, encoder: str = "") -> Conditioning:
    """The conditioning that a trained generator has, on code shards.

    Args:
      generator: the model.
      shards: their index.
      encoder: directory, as `encoder_of` takes it.

    Raises:
      InputError: the model takes features of files, or the shards are of another encoder.
    """
    if generator.num_classes:
        return Conditioning(read_class, name_of_image)
    tokens = generator.network.config.condition_tokens
    return of_captions(encoder_of(generator, encoder), tokens, [shards])


def of_captions(encoder: TextEncoder, tokens: int, shards: Sequence[Index]) -> Conditioning:
    """Captions as a condition of some tokens.

    Args:
      encoder: of them.
      tokens: T.
      shards: indices of the code shards that hold them; none for images.

    Raises:
      InputError: shards of another encoder, or that keep less of each caption.
    """
    for index in shards:
        _check_captions(index, encoder, tokens)
    beforehand = bool(shards) and all(index.features for index in shards)
    reader = CaptionReader(encoder.vocabulary, tokens, features=beforehand)
    return Conditioning(
        reader,
        reader.caption,
        None if beforehand else encoder.network,
        encoder.provenance,
    )


def _value(config: ConfigDict, name: str) -> Any:
    section, _, field = name.rpartition(".")
    return (config[section] if section else config)[field]


def _check_captions(index: Index, encoder: TextEncoder, tokens: int) -> None:
    where = f"the code shards of {index.source['name']}"
    if identity(index.encoder) != identity(encoder.provenance):
        found = f"captions for {identity(index.encoder)}" if index.encoder else "no captions"
        raise InputError(
            f"{where} hold {found}, but the encoder here is {identity(encoder.provenance)}: "
            f"tokenize with --encoder={encoder.provenance['path']}"
        )
    if index.caption_tokens < tokens:
        raise InputError(
            f"{where} keep {index.caption_tokens} tokens of a caption, but "
            f"the model takes condition_tokens = {tokens}: expected as many or fewer"
        )


def name_of_image(record: Record | CodeRecord, rng: np.random.Generator) -> str:
    """The name of the image's file."""
    return pathlib.PurePath(record.id).stem


def read_class(record: Record | CodeRecord, rng: np.random.Generator) -> Example:
    """`label`, int32."""
    return {"label": np.int32(record.label)}


@dataclasses.dataclass(frozen=True)
class FileReader:
    """`features`, float32 [T, C], and `mask`, bool [T], of a file for each image."""

    files: FeatureFiles

    def __call__(self, record: Record | CodeRecord, rng: np.random.Generator) -> Example:
        """The part of an example, see Read."""
        return self.files[record.id]._asdict()


@dataclasses.dataclass(frozen=True)
class CaptionReader:
    """One of the captions of an image, drawn anew each time.

    Attributes:
      vocabulary: of the encoder; code shards hold ids of it already.
      tokens: T; longer captions lose their end.
      features: take `features`, [T, C], which the code shards hold, and not `prompt`, int32 [T].
    """

    vocabulary: Vocabulary
    tokens: int
    features: bool

    def __call__(self, record: Record | CodeRecord, rng: np.random.Generator) -> Example:
        """The part of an example, see Read."""
        if isinstance(record, Record):
            captions = captions_of(record)
            ids_BT, mask_BT = self.vocabulary.tokenize(
                [captions[rng.integers(len(captions))]], self.tokens
            )
            return {"prompt": ids_BT[0], "mask": mask_BT[0]}
        name, kept = ("features", record.features) if self.features else ("prompt", record.captions)
        values, mask_T = padded(kept[rng.integers(len(kept))], self.tokens)
        return {name: values, "mask": mask_T}

    def caption(self, record: Record | CodeRecord, rng: np.random.Generator) -> str:
        """The caption that is drawn with these random numbers."""
        if isinstance(record, Record):
            captions = captions_of(record)
            return captions[rng.integers(len(captions))]
        return self.vocabulary.text(record.captions[rng.integers(len(record.captions))])


def condition_of(batch: Mapping[str, jax.Array], encoder: Any) -> Condition:
    """What the model takes of the examples of a batch, on the device.

    Args:
      batch: as `Conditioning.read` makes its examples.
      encoder: `Conditioning.network`.
    """
    if "label" in batch:
        return batch["label"]
    if "features" in batch:
        return Features(batch["features"], batch["mask"])
    return Features(encoder.features(batch["prompt"], batch["mask"]), batch["mask"])


PARTS = ("label", "features", "prompt", "mask")  # of an example, that are its condition's


ENCODED_AT_ONCE = 64  # prompts


def stacked(examples: Sequence[Example], conditioning: Conditioning) -> Condition:
    """The condition of examples that are not in a batch yet, as NumPy arrays."""
    encode, parts = jax.jit(condition_of), []
    for start in range(0, len(examples), ENCODED_AT_ONCE):
        part = examples[start : start + ENCODED_AT_ONCE]
        batch = {name: np.stack([e[name] for e in part]) for name in PARTS if name in part[0]}
        parts.append(jax.device_get(encode(batch, conditioning.network)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def encoder_of(generator: Generator, directory: str) -> TextEncoder:
    """The text encoder that a generator was trained with.

    Args:
      generator: the model.
      directory: where the encoder is; "": where it was in training.

    Raises:
      InputError: the generator is not of text, or the encoder is not there or another.
    """
    known = generator.encoder
    if not known:
        raise InputError("--model was not trained with an encoder, so that it takes no prompts")
    encoder = api.load_text_encoder(directory or known["path"])
    if identity(encoder.provenance) != identity(known):
        raise InputError(
            f"--encoder={directory or known['path']} is {identity(encoder.provenance)}, but "
            f"--model was trained on features of {identity(known)} (then at {known['path']})"
        )
    return encoder


def identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree of an encoder; where it lies need not."""
    return {name: value for name, value in provenance.items() if name != "path"}
