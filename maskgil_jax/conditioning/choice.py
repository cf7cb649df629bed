"""Which conditioning a config asks for, and which one a trained generator has."""

from collections.abc import Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.conditioning import prompts, speech
from maskgil_jax.conditioning.base import (
    Conditioning,
    FileReader,
    identity,
    read_class,
    read_nothing,
)
from maskgil_jax.conditioning.text import of_captions
from maskgil_jax.data.companions.features import FeatureFiles
from maskgil_jax.data.companions.pairing import Images
from maskgil_jax.data.companions.recordings import Recordings
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.shards.shard_index import Index
from maskgil_jax.data.shards.shard_reader import CodeShards
from maskgil_jax.pretrained import companions, loading, presets
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.speech_encoder import SpeechEncoder
from maskgil_jax.pretrained.text_encoder import TextEncoder
from maskgil_jax.runtime.errors import InputError

Encoder = TextEncoder | SpeechEncoder | None  # None: log-mel frames


def of_config(
    config: ConfigDict,
    class_names: Sequence[str],
    images: Images,
    grids: Sequence[Size],
    shards: Sequence[Index] = (),
) -> Conditioning:
    """The conditioning that a generator's config asks for.

    Args:
      config: of the stage.
      class_names: of the data.
      images: that are trained on.
      grids: (height, width) in tokens of each size of them.
      shards: indices of the code shards that are trained on; none for images.

    Raises:
      InputError: fields that do not fit together, or shards of another encoder.
    """
    check_fields(config)
    data, tokens, width = config.data, config.model.condition_tokens, config.model.feature_dim
    if presets.reads_prompts(config.model):
        if shards:
            raise InputError(
                f"config.data.source: the code shards of {shards[0].source['name']} keep no "
                f"captions for preset {config.model.preset}: expected images with captions"
            )
        path = config.vocabulary or config.start_from.generator
        return prompts.of_captions(path, tokens, config.model.vocabulary, grids)
    if data.features:
        return Conditioning(FileReader(FeatureFiles(data.features, tokens, width, images)))
    if not config.encoder:
        return Conditioning(read_class if config.model.num_classes else read_nothing)
    encoder = load_encoder(config.encoder)
    if isinstance(encoder, TextEncoder) == bool(data.speech):
        kind = "text" if isinstance(encoder, TextEncoder) else "speech"
        raise InputError(
            f"config.encoder = {config.encoder} is an encoder of {kind}, but config.data.speech = "
            f"{data.speech!r}: expected recordings with an encoder of speech, and with that only"
        )
    if not isinstance(encoder, TextEncoder):
        recordings = _recordings(data.speech, class_names, images, shards)
        return speech.of_recordings(encoder, recordings, tokens, width)
    if encoder.width != width:
        raise InputError(
            f"config.encoder = {config.encoder} gives features of width {encoder.width}, but "
            f"config.model.feature_dim = {width}; if the encoder is right, set "
            f"--config.model.feature_dim={encoder.width}"
        )
    return of_captions(encoder, tokens, shards)


def check_fields(config: ConfigDict) -> None:
    """Raise InputError where a generator's config names no condition, or several."""
    presets.check_recipe(config.model, config.loss)
    data, width = config.data, config.model.feature_dim
    given = [config.encoder, data.features]
    if all(given) or any(given) != bool(width):
        raise InputError(
            f"config.encoder = {config.encoder!r}, config.data.features = {data.features!r} and "
            f"config.model.feature_dim = {width}: expected one of the first two and the width of "
            "its features, or none (conditioned on the class)"
        )
    if data.speech and not config.encoder:
        raise InputError(
            f"config.data.speech = {data.speech!r} without config.encoder: expected an encoder of "
            "speech, or no recordings"
        )


def of_generator(
    generator: Generator, shards: CodeShards, encoder: str = "", recordings: str = ""
) -> Conditioning:
    """The conditioning that a trained generator has, on code shards.

    Args:
      generator: the model.
      shards: these.
      encoder: directory, as `encoder_of` takes it.
      recordings: folder of recordings, for a generator of speech.

    Raises:
      InputError: the model takes features of files, the shards are of another encoder, or the
        recordings are missing.
    """
    if generator.num_classes:
        return Conditioning(read_class)
    loaded, config = encoder_of(generator, encoder), generator.network.config
    if isinstance(loaded, TextEncoder):
        return of_captions(loaded, config.condition_tokens, [shards.index])
    if not recordings:
        raise InputError("the generator is conditioned on speech: expected a folder of recordings")
    images = Images([shards.index.source["name"]], [shards])
    opened = _recordings(recordings, shards.class_names, images, [shards.index])
    return speech.of_recordings(loaded, opened, config.condition_tokens, config.feature_dim)


def _recordings(
    folder: str, class_names: Sequence[str], images: Images, shards: Sequence[Index]
) -> Recordings | None:
    """The recordings in a folder; None for speech.INSIDE, which the images are stored with."""
    if folder != speech.INSIDE:
        return Recordings(folder, class_names, images)
    for index in shards:
        if not index.recordings:
            raise InputError(
                f"the code shards of {index.source['name']} hold no recordings: expected a folder "
                "of them, or shards that maskgil_jax.tokenize made with recordings"
            )
    return None


def encoder_of(generator: Generator, directory: str, verify: bool = True) -> Encoder:
    """The encoder that a generator was trained with.

    Args:
      generator: the model.
      directory: where the encoder is; "": where it was in training.
      verify: as api.load.

    Raises:
      InputError: the generator has none, or it is not there or another.
    """
    known: dict[str, Any] = generator.encoder
    if not known:
        raise InputError("the generator was not trained with an encoder of text or speech")
    path = directory or known["path"]
    if path == known["path"] != speech.LOG_MEL and not epath.Path(path).exists():
        raise companions.lost("encoder", path, generator.path)
    encoder = load_encoder(path, verify)
    provenance = encoder.provenance if encoder else known
    if identity(provenance) != identity(known):
        raise InputError(
            f"encoder {path} is {identity(provenance)}, but the generator "
            f"was trained on features of {identity(known)} (then at {known['path']})"
        )
    return encoder


def load_encoder(directory: str, verify: bool = True) -> Encoder:
    """The encoder in a directory, as api.load; None for speech.LOG_MEL.

    Raises:
      InputError: it holds something else.
    """
    if directory == speech.LOG_MEL:
        return None
    model = loading.load(directory, verify=verify)
    if not isinstance(model, TextEncoder | SpeechEncoder):
        raise InputError(f"{directory} holds a {model.kind}, expected an encoder of text or speech")
    return model
