"""Reading and writing the files of foreign checkpoints. PyTorch is imported here alone."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors.numpy

from maskgil_jax.errors import InputError

Tensors = dict[str, np.ndarray]


def read(path: str, keys: Sequence[str]) -> Tensors:
    """The tensors of a .safetensors or a PyTorch file, as float32 (or integers as they are).

    Args:
      path: .safetensors, .pt, .pth or .ckpt; the latter are read with `weights_only=True`.
      keys: names under which a PyTorch file may keep its state dict, in order of preference; a raw
        state dict is taken too.

    Raises:
      InputError: no such file, another format, or a pickle that holds more than tensors.
    """
    if not os.path.isfile(path):
        raise InputError(f"--source={path}: there is no such file")
    if path.endswith(".safetensors"):
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise InputError(f"--source={path} is not readable safetensors: {error}") from None
    if not path.endswith((".pt", ".pth", ".ckpt")):
        raise InputError(f"--source={path}: expected .safetensors, .pt, .pth or .ckpt")
    content = _torch_load(path)
    for key in keys:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {name: value for name, value in content.items() if hasattr(value, "numpy")}
    if not tensors:
        raise InputError(
            f"--source={path} holds {sorted(content)}, expected a state dict, alone or under one "
            f"of {list(keys)}"
        )
    return {
        name: (value.float() if value.is_floating_point() else value).cpu().numpy()
        for name, value in tensors.items()
    }


def write(path: str, tensors: Tensors, key: str) -> None:
    """Write .safetensors, or a PyTorch file with the state dict under `key`."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.tmp"
    if path.endswith(".safetensors"):
        safetensors.numpy.save_file(tensors, temporary)
    elif path.endswith((".pt", ".pth")):
        torch = _torch()
        state = {name: torch.from_numpy(x.copy()) for name, x in tensors.items()}
        torch.save({key: state}, temporary)
    else:
        raise InputError(f"--output={path}: expected .safetensors, .pt or .pth")
    os.replace(temporary, path)


def _torch_load(path: str) -> Any:
    torch = _torch()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, EOF and runtime errors of its own here
        raise InputError(
            f"--source={path} is not a PyTorch file of tensors alone: {str(error).splitlines()[0]} "
            "(files that hold other objects are refused, since unpickling them can run code; save "
            "their state dict as .safetensors)"
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
