"""Reading and writing the files of foreign checkpoints. PyTorch is imported here alone."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from flax import serialization, traverse_util

from maskgil_jax.errors import InputError

Tensors = dict[str, np.ndarray]

TORCH = (".pt", ".pth", ".ckpt", ".bin")
# Google's Flax files have no suffix, as tokenizer_imagenet256_checkpoint.
FLAX = (".msgpack", "_checkpoint")
EMA = "model_ema."  # of the averaged copies in Lightning files; their names have lost all dots


class Content(NamedTuple):
    """What a source holds.

    Attributes:
      tensors: by foreign name.
      metadata: what else it says of the network.
      beside: contents of files that a model directory keeps as they are, by name.
    """

    tensors: Tensors
    metadata: Mapping[str, Any]
    beside: Mapping[str, bytes]


def read(path: str, keys: Sequence[str], weights: str = "") -> Tensors:
    """The tensors of one or more files: of .safetensors as they are, else floats as float32.

    Args:
      path: .safetensors; .pt, .pth, .ckpt or .bin, read with `weights_only=True`; Flax .msgpack,
        whose names are joined by "/". Several files, separated by commas, are taken together.
      keys: names under which a PyTorch file may keep its state dict, in order of preference; a raw
        state dict is taken too.
      weights: which of several sets a file holds: "" (the first of `keys`; averaged copies of
        Lightning files before the raw ones), "ema" or "model".

    Raises:
      InputError: no such file, another format, no such weights, or a pickle that holds more than
        tensors.
    """
    if weights not in ("", "ema", "model"):
        raise InputError(f"--arg=weights={weights}: expected ema or model")
    tensors: Tensors = {}
    for part in path.split(","):
        check_file(part)
        tensors |= _read_one(part, keys, weights)
    return tensors


def members(source: str) -> dict[str, str]:
    """The files that a source stands for, those between its commas or in a directory, by name.

    Raises:
      InputError: no such file.
    """
    paths = source.split(",")
    if os.path.isdir(source):
        inside = (os.path.join(source, name) for name in sorted(os.listdir(source)))
        paths = [path for path in inside if os.path.isfile(path)]
    for path in paths:
        check_file(path)
    return {os.path.basename(path): path for path in paths}


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file; InputError where there is none."""
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise InputError(f"--source={path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"--source={path} holds a {type(content).__name__}, expected an object")
    return content


def read_bytes(path: str) -> bytes:
    """The content of a file; InputError where there is none."""
    check_file(path)
    with open(path, "rb") as file:
        return file.read()


def check_file(path: str) -> None:
    """Raise InputError unless there is this file."""
    if not os.path.isfile(path):
        raise InputError(f"--source={path}: there is no such file")


def metadata(path: str) -> dict[str, str]:
    """Strings that a .safetensors or PyTorch file holds beside its tensors.

    Raises:
      InputError: another format, or no such file.
    """
    check_file(path)
    if path.endswith(".safetensors"):
        with safetensors.safe_open(path, "numpy") as file:
            return file.metadata() or {}
    if not path.endswith(TORCH):
        raise InputError(f"--source={path}: expected .safetensors or {', '.join(TORCH)}")
    content = _torch_load(path)
    return {key: value for key, value in content.items() if isinstance(value, str)}


def write(
    path: str, tensors: Tensors, keys: Sequence[str], beside: Mapping[str, str] | None = None
) -> None:
    """Write .safetensors, a PyTorch file, or Flax .msgpack where there are no keys.

    PyTorch files have the state dict under `keys[0]`, or bare where that is "". Strings `beside`
    the tensors become safetensors' metadata, or other keys of the PyTorch file.

    Raises:
      InputError: another suffix, or one that the format does not come in.
    """
    suffixes = (".safetensors", ".pt", ".pth") if keys else (".msgpack",)
    if not path.endswith(suffixes):
        raise InputError(f"--output={path}: expected {' or '.join(suffixes)}")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.tmp"
    if path.endswith(".safetensors"):
        safetensors.numpy.save_file(tensors, temporary, dict(beside or {}))
    elif path.endswith(".msgpack"):
        content = serialization.msgpack_serialize(traverse_util.unflatten_dict(tensors, sep="/"))
        with open(temporary, "wb") as file:
            file.write(content)
    else:
        torch = _torch()
        state = {name: _torch_tensor(torch, x) for name, x in tensors.items()}
        torch.save({keys[0]: state, **(beside or {})} if keys[0] else state, temporary)
    os.replace(temporary, path)


def _read_one(path: str, keys: Sequence[str], weights: str) -> Tensors:
    if path.endswith(".safetensors"):
        try:
            tensors = safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise InputError(f"--source={path} is not readable safetensors: {error}") from None
    elif path.endswith(FLAX):
        return _read_flax(path)
    elif path.endswith(TORCH):
        content = _torch_load(path)
        tensors = _numpy(_state_dict(path, content, keys, weights))
    else:
        raise InputError(
            f"--source={path}: expected a name that ends in .safetensors, {', '.join(TORCH)} or "
            f"{' or '.join(FLAX)}"
        )
    for prefix in ("module.", "_orig_mod."):  # of DistributedDataParallel and torch.compile
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): x for name, x in tensors.items()}
    return _averaged(path, tensors, weights)


def _state_dict(path: str, content: Any, keys: Sequence[str], weights: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"--source={path} holds a {type(content).__name__}, expected a dict")
    preferred = (weights, *keys) if weights in keys else keys
    for key in preferred:
        if isinstance(content.get(key), dict):
            if weights == "ema" and key != "ema" and not any(EMA in name for name in content[key]):
                raise InputError(f"--arg=weights=ema: --source={path} holds {sorted(content)}")
            return content[key]
    if not any(hasattr(value, "numpy") for value in content.values()):
        raise InputError(
            f"--source={path} holds {sorted(map(str, content))}, expected a state dict, alone or "
            f"under one of {list(keys)}"
        )
    return content


def _averaged(path: str, tensors: Tensors, weights: str) -> Tensors:
    """The averaged copies in place of the raw weights, where a Lightning file has them."""
    copies = [name for name in tensors if name.startswith(EMA)]
    raw = {name: x for name, x in tensors.items() if not name.startswith(EMA)}
    if weights == "model" or not copies:
        return raw
    return {name: tensors.get(EMA + name.replace(".", ""), x) for name, x in raw.items()}


def _numpy(state: dict[str, Any]) -> Tensors:
    return {
        name: (value.float() if value.is_floating_point() else value).cpu().numpy()
        for name, value in state.items()
        if hasattr(value, "numpy")
    }


def _torch_tensor(torch: Any, x: np.ndarray) -> Any:
    if x.dtype != "bfloat16":
        return torch.from_numpy(x.copy())
    return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)


def _read_flax(path: str) -> Tensors:
    with open(path, "rb") as file:
        data = file.read()
    try:
        tree = serialization.msgpack_restore(data)
        flat = traverse_util.flatten_dict(tree, sep="/")
    except Exception as error:  # msgpack raises errors of its own and of Python's here
        raise InputError(f"--source={path} is not readable Flax msgpack: {error}") from None
    return {name: np.asarray(x) for name, x in flat.items() if hasattr(x, "shape")}


def _torch_load(path: str) -> Any:
    torch = _torch()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, EOF and runtime errors of its own here
        raise InputError(
            f"--source={path} is not a PyTorch file of tensors alone: "
            f"{str(error).splitlines()[0]}\n"
            "Files that hold other objects, as some of Lightning do, are refused, since unpickling "
            "them can run code. If you trust this one, write its tensors to another file, which "
            "can be imported:\n"
            f"  python -c \"import torch; state = torch.load('{path}', map_location='cpu', "
            "weights_only=False)['state_dict']; torch.save({'state_dict': state}, 'tensors.pt')\""
        ) from error


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(
            "reading and writing PyTorch files needs PyTorch: pip install 'maskgil_jax[torch]', or "
            "use .safetensors"
        ) from None
    return torch
