"""Reading and writing the files of foreign checkpoints, whatever their format."""

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import serialization, traverse_util

from maskgil_jax.interop import names, safetensors_files, sources, state_dicts, torch_files
from maskgil_jax.interop.sources import FLAX, TORCH, Weights
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

Tensors = dict[str, np.ndarray]

# Names of a network's shape in config.json files.
SHAPE = {
    "layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth"),
    "heads": ("num_attention_heads", "num_heads", "n_heads", "n_head"),
}


class Content(NamedTuple):
    """What a source holds.

    Attributes:
      tensors: by foreign name.
      metadata: settings of the network and other strings.
      beside: contents of files that a model directory holds unchanged, by name.
    """

    tensors: Tensors
    metadata: Mapping[str, Any]
    beside: Mapping[str, bytes]


def read(source: str, family: Any, weights: str = "") -> Content:
    """The tensors of one or more files, and the strings beside them.

    Args:
      source: .safetensors, whose tensors are taken as they are; .pt, .pth, .ckpt or .bin, whose
        floats become float32; Flax .msgpack, whose names are joined by "/". Several files with
        commas in between, of a directory or of an index are taken together.
      family: module of the format; its STATE_DICT_KEYS are names under which a PyTorch file may
        keep its state dict, in order of preference, its ANCHORS tensors of which it needs one.
      weights: name of the set of weights to take, where a file holds several; "" the usual one.

    Raises:
      InputError: no such file, another format, no such weights, or a file of them that is missing.
    """
    content = read_weights(sources.weights(source), family, weights)
    return content._replace(metadata={**content.metadata, **_shape(source)})


def read_weights(weight_files: Weights, family: Any, weights: str = "") -> Content:
    """The content of these files, as `read` gives it."""
    tensors: Tensors = {}
    metadata: dict[str, str] = {}
    file_of: dict[str, str] = {}
    for path in weight_files.paths:
        read, strings = _read_one(path, family, weights)
        for name in read.keys() & tensors.keys():
            if not _same(read[name], tensors[name]):
                raise InputError(
                    f"source: {name} is both in {file_of[name]} and in {path}, and differs"
                )
        tensors |= read
        metadata |= strings
        file_of |= dict.fromkeys(read, path)
    _check_index(weight_files, file_of)
    return Content(tensors, metadata, {})


def write(
    path: str, tensors: Tensors, keys: Sequence[str], beside: Mapping[str, str] | None = None
) -> None:
    """Write .safetensors, a PyTorch file, or Flax .msgpack where there are no keys.

    PyTorch files have the state dict under `keys[0]`, or bare where that is "". Strings `beside`
    the tensors become safetensors' metadata, or other keys of a PyTorch file whose state dict is
    not bare; other files have no room for them.

    Raises:
      InputError: another suffix, or one that the format does not come in; a file that cannot be
        written.
    """
    suffixes = (".safetensors", ".pt", ".pth") if keys else (".msgpack",)
    if not path.endswith(suffixes):
        raise InputError(f"output={path}: expected {' or '.join(suffixes)}")
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        if path.endswith(".safetensors"):
            safetensors_files.write(temporary, tensors, dict(beside or {}))
        elif path.endswith(".msgpack"):
            tree = traverse_util.unflatten_dict(tensors, sep="/")
            with open(temporary, "wb") as file:
                file.write(serialization.msgpack_serialize(tree))
        else:
            torch_files.write(temporary, tensors, keys[0], beside or {})
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"output={path} cannot be written: {error}") from None
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def holds_strings(path: str, keys: Sequence[str]) -> bool:
    """Whether `write` keeps strings beside the tensors in a file of this name."""
    return path.endswith(".safetensors") or (path.endswith(TORCH) and bool(keys and keys[0]))


def _shape(source: str) -> dict[str, int]:
    """Numbers of layers and heads in the config.json of a directory, by our names."""
    path = sources.members(source).get("config.json")
    settings = sources.read_json(path) if path else {}
    return {
        ours: settings[theirs]
        for ours, spellings in SHAPE.items()
        for theirs in spellings
        if type(settings.get(theirs)) is int
    }


def _read_one(path: str, family: Any, weights: str) -> tuple[Tensors, dict[str, str]]:
    sources.check_beginning(path)
    if path.endswith(TORCH):
        content = torch_files.load(path)
        state = state_dicts.choose(path, content, family, weights)
        strings = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, str)}
        return names.averaged(path, torch_files.to_numpy(path, state), weights), strings
    flax = path.endswith(FLAX)
    tensors, strings = (_read_flax(path), {}) if flax else safetensors_files.read(path)
    names.check_holds(path, tensors, weights)
    return names.averaged(path, tensors, weights), strings


def _read_flax(path: str) -> Tensors:
    data = sources.read_bytes(path)
    try:
        tree = serialization.msgpack_restore(data)
        flat = traverse_util.flatten_dict(tree, sep="/")
    except Exception as error:  # msgpack raises errors of its own and of Python's here
        reason = str(error) or type(error).__name__
        raise InputError(f"source={path} is not readable Flax msgpack: {reason}") from None
    return {name: np.asarray(x) for name, x in flat.items() if hasattr(x, "shape")}


def _check_index(weight_files: Weights, file_of: Mapping[str, str]) -> None:
    """Raise InputError where a file lacks tensors that the index says it holds."""
    if not weight_files.listed:
        return
    read_from = {name: os.path.basename(path) for name, path in file_of.items()}
    known = {names.without_wrappers(name): file for name, file in weight_files.listed.items()}
    wrong = [name for name, file in known.items() if read_from.get(name) != file]
    if wrong:
        raise InputError(
            f"source: by the index {wrong[0]} is in {known[wrong[0]]}, which does not hold it "
            f"({len(wrong)} such tensors)"
        )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
