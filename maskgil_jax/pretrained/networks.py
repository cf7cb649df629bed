"""The kinds of network that a model directory may hold."""

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from etils import epath

from maskgil_jax.models.encoders.clip import Clip, ClipConfig
from maskgil_jax.models.encoders.gemma import Gemma, GemmaConfig
from maskgil_jax.models.encoders.whisper import Whisper, WhisperConfig
from maskgil_jax.models.perceptual import discriminator
from maskgil_jax.models.perceptual.inception import Inception, InceptionConfig
from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.models.token_models.bert import Bert, BertConfig
from maskgil_jax.models.token_models.halton import HaltonConfig, HaltonTransformer
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained import model_directory
from maskgil_jax.runtime.errors import InputError

# Name in model.json: what makes the module from its config and a key, and the config.
NETWORKS: dict[str, tuple[Any, Any]] = {
    "vq": (VQTokenizer, VQConfig),
    "llama": (Llama, LlamaConfig),
    "bert": (Bert, BertConfig),
    "halton": (HaltonTransformer, HaltonConfig),
    "gemma": (Gemma, GemmaConfig),
    "whisper": (Whisper, WhisperConfig),
    "clip": (Clip, ClipConfig),
    "lpips": (LPIPS, LPIPSConfig),
    "inception": (Inception, InceptionConfig),
    "discriminator": (discriminator.make, discriminator.DiscriminatorConfig),
}


def init_network(config: Any, key: jax.Array) -> Any:
    """The network that a config dataclass describes, with random weights."""
    return NETWORKS[class_of(config)][0](config, key)


def class_of(config: Any) -> str:
    """Name in model.json of the network of this config."""
    return next(name for name, (_, kind) in NETWORKS.items() if isinstance(config, kind))


def config_of(name: str, arguments: Mapping[str, Any], where: str) -> Any:
    """The config of a network as model.json describes it.

    Args:
      name: key of NETWORKS.
      arguments: of the config.
      where: the name of both in messages.

    Raises:
      InputError: an unknown network, or arguments that its config does not take.
    """
    if name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise InputError(f"{where}: field 'class' is {name[:40]!r}, this version knows {known}")
    kind = NETWORKS[name][1]
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    for argument, value in arguments.items():
        if argument not in types or not _fits(value, types[argument]):
            expected = _type_name(types[argument]) if argument in types else f"one of {[*types]}"
            raise InputError(
                f"{where}: field 'arguments' has {argument} = {str(value)[:40]!r}, expected "
                f"{expected}"
            )
    try:
        return kind(**arguments)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None


def shapes_of(config: Any, where: str) -> Any:
    """The network of a config with shapes in the place of arrays; InputError if there is none."""
    try:
        return _shapes_of(config)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{where} describes no network: {error}") from None


@functools.lru_cache(64)
def _shapes_of(config: Any) -> Any:
    # Kept, since tracing a network takes as long as reading a small one.
    return jax.eval_shape(lambda: init_network(config, jax.random.key(0)))


def _fits(value: Any, kind: Any) -> bool:
    """Whether JSON content can be an argument of this type."""
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    if kind in (bool, str):
        return isinstance(value, kind)
    inner = typing.get_args(kind)[0]  # of a tuple
    return isinstance(value, list | tuple) and all(_fits(part, inner) for part in value)


def _type_name(kind: Any) -> str:
    return kind.__name__ if kind in (int, float, bool, str) else f"{kind}"


def save(
    directory: epath.PathLike,
    kind: str,
    network: Any,
    known: dict[str, Any] | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model directory; `known` goes into its model.json too, files `beside` next to it."""
    model_directory.save_model(directory, description(kind, network, known), network, beside)


def description(kind: str, network: Any, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """What model.json says of a network besides the fingerprint of its weights."""
    return {
        "kind": kind,
        "class": class_of(network.config),
        "arguments": dataclasses.asdict(network.config),
        **(known or {}),
    }


class PretrainedNetwork:
    """A network, and the files that belong to it, that shards and generators name by fingerprint.

    Attributes:
      kind: in model.json.
      network: the module itself.
    """

    kind: str

    def __init__(
        self,
        network: Any,
        path: str,
        fingerprint: str | None,
        beside: Mapping[str, bytes] | None = None,
    ):
        """Take a network.

        Args:
          network: the module.
          path: where it was read, or "".
          fingerprint: of a directory; None: it is computed when it is asked for.
          beside: contents of its other files by name.
        """
        self.network = network
        self._path = path
        self._fingerprint = fingerprint
        self._beside = beside or {}

    def __repr__(self) -> str:
        return representation(self, path=self._path)

    @property
    def fingerprint(self) -> str:
        """Names the weights, and the files beside them."""
        if self._fingerprint is None:
            self._fingerprint = model_directory.fingerprint(self.network, self._beside)
        return self._fingerprint

    @property
    def provenance(self) -> dict[str, Any]:
        """What code shards and generators record of what they depend on."""
        return {"path": self._path, "fingerprint": self.fingerprint}

    @property
    def description(self) -> dict[str, Any]:
        """What model.json says of it besides the fingerprint."""
        return description(self.kind, self.network)

    def save(self, directory: epath.PathLike) -> None:
        """Write a model directory."""
        save(directory, self.kind, self.network, beside=self._beside)


class Auxiliary:
    """A network that training or metrics use: LPIPS, Inception, a discriminator.

    Attributes:
      network: the module itself.
      kind: "lpips", "inception" or "discriminator".
    """

    def __init__(self, network: Any):
        self.network = network
        self.kind = class_of(network.config)

    def __repr__(self) -> str:
        return representation(self, self.kind)

    def save(self, directory: epath.PathLike) -> None:
        """Write a model directory."""
        save(directory, self.kind, self.network)


def representation(model: Any, *facts: str, path: str = "") -> str:
    """What `repr` says of a model: its class, size and these facts, and where it was read."""
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model.network))
    unit = next((u for u in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if count >= u[0]), (1, ""))
    size = f"{count / unit[0]:.3g}{unit[1]} parameters"
    known = [size, *facts, *([f"from {path}"] if path else [])]
    return f"{type(model).__name__}({', '.join(known)})"


def images_of(shape: tuple[int, ...]) -> str:
    """Images of codes [B, h, w], in words."""
    images, height, width = shape
    return f"{images} image{'s' * (images != 1)} of {height} x {width} tokens"


def checked_codes(codes: npt.ArrayLike, size: int) -> jax.Array:
    """Codes as int32; InputError unless integers [B, h, w], in 0 .. size - 1 outside jit."""
    traced = isinstance(codes, jax.core.Tracer)
    array: Any = codes if traced else np.asarray(codes)
    if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"codes are {array.dtype} {array.shape}, expected integers [B, h, w]")
    if not traced and array.size and not 0 <= array.min() <= array.max() < size:
        raise InputError(f"codes from {array.min()} to {array.max()}, expected 0 to {size - 1}")
    return jnp.asarray(array, jnp.int32)
