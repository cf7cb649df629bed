"""The tensors of .safetensors, of every dtype that NumPy or ml_dtypes have."""

import json
import logging
import os
import struct
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

Tensors = dict[str, np.ndarray]

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "I64": np.int64,
    "U64": np.uint64,
    "I32": np.int32,
    "U32": np.uint32,
    "I16": np.int16,
    "U16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: str) -> tuple[Tensors, dict[str, str]]:
    """The tensors and the strings beside them.

    Raises:
      InputError: another or a damaged file, or a dtype that NumPy does not have.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:  # checks the header
            metadata = file.metadata() or {}
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        # Mapped: a tensor is read when it is used, and takes no memory that others need.
        data = np.memmap(path, np.uint8, "r")[8 + size :]
        tensors = {name: _tensor(path, data, name, x) for name, x in header.items()}
    except (safetensors.SafetensorError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"source={path} is not readable safetensors: {error}") from None
    if small := sum(x["dtype"].startswith("F8") for x in header.values()):
        log.info("%s: %d tensors are float8, taken as they are, without scales", path, small)
    return tensors, metadata


def write(path: str, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write a file, with the permissions that new files have (the library makes them private).

    Raises:
      OSError: it cannot be written.
    """
    with open(path, "wb") as file:
        mode = os.fstat(file.fileno()).st_mode
    try:
        safetensors.numpy.save_file(tensors, path, metadata)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from None
    os.chmod(path, mode)


def _tensor(path: str, data: np.ndarray, name: str, about: dict[str, Any]) -> np.ndarray:
    if about["dtype"] not in DTYPES:
        raise InputError(
            f"source={path}: {name} is {about['dtype']}, expected one of {', '.join(DTYPES)}"
        )
    dtype, (begin, end) = np.dtype(DTYPES[about["dtype"]]), about["data_offsets"]
    return np.asarray(data[begin:end]).view(dtype).reshape(about["shape"])
