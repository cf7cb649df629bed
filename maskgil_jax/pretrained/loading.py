"""Trained models as a user holds them: `load` gives a Tokenizer, a Generator or an encoder."""

import logging
from collections.abc import Mapping
from typing import Any

from etils import epath

from maskgil_jax.models.encoders.clip import Clip
from maskgil_jax.models.encoders.gemma import Gemma
from maskgil_jax.models.encoders.whisper import Whisper
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.pretrained import (
    clip_encoder,
    companions,
    hub,
    kept_checkpoints,
    model_directory,
    networks,
    prompts,
    speech_encoder,
    text_encoder,
)
from maskgil_jax.pretrained.clip_encoder import ClipEncoder
from maskgil_jax.pretrained.generators import Generator, make_generator
from maskgil_jax.pretrained.networks import Auxiliary
from maskgil_jax.pretrained.prompted import PromptedGenerator, make_prompted
from maskgil_jax.pretrained.speech_encoder import SpeechEncoder
from maskgil_jax.pretrained.text_encoder import TextEncoder
from maskgil_jax.pretrained.tokenizers import Tokenizer
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

# Networks that a file lies beside.
VOCABULARIES = (
    (Gemma, text_encoder.VOCABULARY),
    (Whisper, speech_encoder.VOCABULARY),
    (Clip, clip_encoder.VOCABULARY),
)


def load(
    directory: epath.PathLike, dtype: str | None = None, verify: bool = True, tensor: int = 1
) -> Tokenizer | Generator | TextEncoder | SpeechEncoder | ClipEncoder | Auxiliary:
    """Read a model directory; a warning names weights that are not finite.

    Args:
      directory: written by `maskgil_jax.main` (`RUN/model`) or `maskgil_jax.convert`; a checkpoint
        of a run, RUN@STEP or RUN/checkpoints/STEP; or hf://USER/NAME of the Hugging Face Hub.
      dtype: of the computation, "float32" or "bfloat16". By default a generator computes as it was
        trained, a text encoder as it was released, and a tokenizer in float32, since bfloat16
        changes codes.
      verify: compare the fingerprint of what lies there with the one that was recorded when it was
        saved, at the speed of SHA-256.
      tensor: devices that share the weights, for models that are too large for one.

    Returns:
      A Tokenizer, a Generator, a TextEncoder, a SpeechEncoder or a ClipEncoder, by what the
      directory holds; an Auxiliary for the other networks that training and metrics use.

    Raises:
      InputError: not a model directory, or one that is damaged, was changed, or whose tensors do
        not fit its model.json; or fewer devices.
    """
    directory, description = _opened(directory)
    like = _described(directory, description, dtype)
    beside, recorded = _beside(directory, like), description.get("fingerprint", "")
    layout = sharding.state_shardings(like, sharding.tensor_mesh(tensor)) if tensor != 1 else None
    if kept_checkpoints.is_checkpoint(directory):
        network = kept_checkpoints.load_params(directory, like, verify, layout)
    else:
        if verify and not recorded:
            log.warning("%s/model.json records no fingerprint: nothing is verified", directory)
        expected = recorded if verify else ""
        network = model_directory.load_params(directory, like, expected, beside, layout)
    known = str(directory), recorded or None
    return wrap(network, beside, _provenance(directory, description), *known)


def describe(directory: epath.PathLike) -> dict[str, Any]:
    """What the model.json of a model says, wherever the model is that `load` would read.

    Raises:
      InputError: no model, or one that cannot be used.
    """
    return _opened(directory)[1]


def _opened(directory: epath.PathLike) -> tuple[epath.Path, dict[str, Any]]:
    """Where a model is, and its description."""
    path = kept_checkpoints.located(hub.fetched(directory))
    kept = kept_checkpoints.is_checkpoint(path)
    return path, (kept_checkpoints if kept else model_directory).read_description(path)


def generator_without_weights(directory: epath.PathLike) -> Generator:
    """A generator with shapes in the place of weights, for what is known before these are read.

    Raises:
      InputError: no model directory, or one of something else.
    """
    directory, description = _opened(directory)
    like = _described(directory, description, None)
    known = _provenance(directory, description), str(directory)
    model = wrap(like, _beside(directory, like), *known)
    return _checked_generator(model, directory)


def _beside(directory: epath.Path, network: Any) -> dict[str, bytes]:
    """Contents of the files that belong to a network, by name."""
    names = [name for kind, name in VOCABULARIES if isinstance(network, kind)]
    if kept_checkpoints.is_checkpoint(directory):  # the files lie in what the training ends with
        directory = directory.parent.parent / "model"
    if _reads_prompts(network) and (directory / prompts.VOCABULARY).exists():
        names.append(prompts.VOCABULARY)
    return {name: model_directory.read_beside(directory, name) for name in names}


def _provenance(directory: epath.Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """What a Generator keeps of what it was trained with."""
    located = {
        name: companions.located(directory, description.get(name, {})) for name in companions.NAMES
    }
    return {
        **located,
        "class_names": tuple(description.get("class_names", ())),
        "decoding": description.get("decoding", {}),
    }


def _described(directory: epath.Path, description: Mapping[str, Any], dtype: str | None) -> Any:
    """The shapes of the network that a model.json describes, in the network's class."""
    name, where = description["class"], f"{directory}/model.json"
    arguments = dict(description["arguments"])
    for of_training in ("remat", "unroll"):
        arguments.pop(of_training, None)
    if dtype is not None:
        arguments["dtype"] = dtype
    elif name == "vq":
        arguments["dtype"] = "float32"
    return networks.shapes_of(networks.config_of(name, arguments, where), where)


def _reads_prompts(network: Any) -> bool:
    return isinstance(network, Llama) and bool(network.config.vocabulary)


def wrap(
    network: Any,
    beside: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, Any] | None = None,
    path: str = "",
    fingerprint: str | None = None,
) -> Tokenizer | Generator | TextEncoder | SpeechEncoder | ClipEncoder | Auxiliary:
    """A network as `load` would give it.

    Args:
      network: of any kind.
      beside: contents of the files that belong to it, by name.
      provenance: what a Generator keeps of what it was trained with.
      path, fingerprint: of its directory.
    """
    beside, provenance = beside or {}, dict(provenance or {})
    known, decoding = (path, fingerprint), provenance.pop("decoding", {})
    if isinstance(network, VQTokenizer):
        return Tokenizer(network, *known)
    if isinstance(network, Gemma):
        return TextEncoder(network, beside[text_encoder.VOCABULARY], *known)
    if isinstance(network, Whisper):
        return SpeechEncoder(network, beside[speech_encoder.VOCABULARY], *known)
    if isinstance(network, Clip):
        return ClipEncoder(network, beside[clip_encoder.VOCABULARY], *known)
    if _reads_prompts(network):
        vocabulary = beside.get(prompts.VOCABULARY, b"")
        prompted: PromptedGenerator = make_prompted(
            network, **provenance, path=path, fingerprint=fingerprint, vocabulary=vocabulary
        )
        prompted.decoding = decoding
        return prompted
    if hasattr(network, "classify"):
        generator = make_generator(network, **provenance, path=path, fingerprint=fingerprint)
        generator.decoding = decoding
        return generator
    return Auxiliary(network)


def load_tokenizer(
    directory: epath.PathLike, verify: bool = True, dtype: str | None = None
) -> Tokenizer:
    """Read a tokenizer directory, as `load`; InputError where it holds something else."""
    model = load(directory, dtype, verify)
    if not isinstance(model, Tokenizer):
        raise InputError(f"{directory} holds a {model.kind}, expected a tokenizer")
    return model


def load_generator(
    directory: epath.PathLike, verify: bool = True, tensor: int = 1, dtype: str | None = None
) -> Generator:
    """Read a generator directory, as `load`; InputError where it holds something else."""
    return _checked_generator(load(directory, dtype, verify, tensor), directory)


def _checked_generator(model: Any, directory: epath.PathLike) -> Generator:
    if not isinstance(model, Generator):
        raise InputError(f"{directory} holds a {model.kind}, expected a generator")
    return model


def load_text_encoder(directory: epath.PathLike) -> TextEncoder:
    """Read the directory of a text encoder; InputError where it holds something else."""
    model = load(directory)
    if not isinstance(model, TextEncoder):
        raise InputError(f"{directory} holds a {model.kind}, expected a text encoder")
    return model


def load_clip(directory: epath.PathLike) -> ClipEncoder:
    """Read the directory of a CLIP; InputError where it holds something else."""
    model = load(directory)
    if not isinstance(model, ClipEncoder):
        raise InputError(f"{directory} holds a {model.kind}, expected a CLIP")
    return model


def load_auxiliary(directory: epath.PathLike, kind: str, dtype: str | None = None) -> Any:
    """The network of a directory of this kind; InputError where it holds something else."""
    model = load(directory, dtype)
    if model.kind != kind:
        raise InputError(f"{directory} holds a {model.kind}, expected {kind}")
    return model.network


def load_pair(
    model: epath.PathLike, tokenizer: epath.PathLike, verify: bool = True, tensor: int = 1
) -> tuple[Generator, Tokenizer]:
    """A Generator and the Tokenizer that it was trained with.

    Args:
      model: directory of the generator.
      tokenizer: of the tokenizer; "": the one that the generator names.
      verify: compare fingerprints with what is read, as `load`.
      tensor: devices that share the generator's weights, as `load`.

    Raises:
      InputError: another kind of model, or a tokenizer with other weights.
    """
    generator = generator_without_weights(model)
    known = generator.tokenizer
    tokenizer = tokenizer or known.get("path", "")
    if not tokenizer:
        raise InputError(f"{model} does not name its tokenizer; give tokenizer=DIR")
    if tokenizer == known.get("path") and not epath.Path(tokenizer).exists():
        raise companions.lost("tokenizer", tokenizer, generator.path)
    decoder = load_tokenizer(tokenizer, verify)
    if known and decoder.fingerprint != known["fingerprint"]:
        raise InputError(
            f"tokenizer={tokenizer} has weights {decoder.fingerprint}, but {model} was trained "
            f"on codes of {known['fingerprint']} (then at {known['path']})"
        )
    if decoder.codebook_size != generator.codebook_size:
        raise InputError(
            f"tokenizer={tokenizer} has {decoder.codebook_size} codes, but {model} has "
            f"{generator.codebook_size}"
        )
    return load_generator(model, verify, tensor), decoder
