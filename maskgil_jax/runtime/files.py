"""Files written atomically, and strict JSON, which every reader of JSON takes."""

import contextlib
import json
import math
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from etils import epath

from maskgil_jax.runtime.errors import InputError

DEEPEST = 100  # levels of JSON: nothing of ours comes near, and Python's recursion has its limit
Types = type | tuple[type, ...]
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


class InPieces(NamedTuple):
    """An array for `write_npz` that is never in memory as a whole.

    Attributes:
      shape, dtype: of it.
      pieces: of it, one after another along the first axis.
    """

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    pieces: Iterable[np.ndarray]


def write_npz(path: epath.PathLike, **arrays: Any) -> None:
    """Write an npz atomically, to the bytes that numpy.savez writes.

    Args:
      path: of the file.
      **arrays: by name; arrays, or `InPieces`.
    """
    with (
        _replacing(path) as temporary,
        temporary.open("wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_array(member, array)


def _write_array(file: IO[bytes], array: Any) -> None:
    if not isinstance(array, InPieces):
        np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        return
    descr = np.lib.format.dtype_to_descr(np.dtype(array.dtype))
    header = {"descr": descr, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    rows = 0
    for piece in array.pieces:
        assert piece.shape[1:] == array.shape[1:] and piece.dtype == array.dtype
        file.write(np.ascontiguousarray(piece).data)
        rows += len(piece)
    assert rows == array.shape[0]


def write_json(path: epath.PathLike, content: Any) -> None:
    """Write strict JSON (see `to_json`) atomically."""
    write_bytes(path, (to_json(content, indent=1) + "\n").encode())


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Write a file atomically: one that is there is replaced when the new one is whole."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def _replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """A name to write to, which takes the place of `path`; nothing is left where that fails."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def to_json(content: Any, indent: int | None = None) -> str:
    """Strict JSON: what is not finite becomes "NaN", "Infinity" or "-Infinity".

    JSON has no such numbers, and many readers refuse those that Python would write. As texts they
    lose nothing: `float` of Python and `Number` of JavaScript read them.

    Source: Protocol Buffers, "ProtoJSON format".
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_json(path: epath.PathLike, fields: Mapping[str, Types] | None = None) -> Any:
    """The content of a JSON file.

    Args:
      path: of the file.
      fields: types of the fields that have to be there. Given, even empty, the file has to hold an
        object. Where `float` is expected, an integer is taken too.

    Raises:
      FileNotFoundError: there is no such file.
      InputError: it cannot be read, is no JSON, or lacks these fields; names file and field.
    """
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    content = parse_json(data, str(path))
    if fields is not None:
        check_object(content, fields, str(path))
    return content


def parse_json(data: bytes, where: str) -> Any:
    """The content of JSON in UTF-8, `where` is its name in messages.

    Raises:
      InputError: it is no JSON, or nested more than DEEPEST levels.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise InputError(f"{where} is not readable JSON: {error}") from None
    if _deeper(content, DEEPEST):
        raise InputError(f"{where} is not readable JSON: nested more than {DEEPEST} levels")
    return content


def _deeper(content: Any, levels: int) -> bool:
    if not isinstance(content, dict | list):
        return False
    inner = content.values() if isinstance(content, dict) else content
    return not levels or any(_deeper(value, levels - 1) for value in inner)


def is_number(value: Any) -> bool:
    """Whether JSON content is a number, or one that is not finite as `to_json` writes it."""
    if isinstance(value, str):
        return value in ("NaN", "Infinity", "-Infinity")
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_object(content: Any, fields: Mapping[str, Types], where: str) -> None:
    """Check that JSON content is an object with fields of these types.

    Args:
      content: as `json.loads` gives it.
      fields: name to type, or to several types.
      where: the content's name in messages.

    Raises:
      InputError: it is not; names the field.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where} holds {_json_name(type(content))}, expected an object")
    for field, types in fields.items():
        expected = types if isinstance(types, tuple) else (types,)
        names = " or ".join(map(_json_name, expected))
        if field not in content:
            raise InputError(f"{where} has no field {field!r}, expected {names}")
        value = content[field]
        taken = (*expected, int) if float in expected else expected
        if not isinstance(value, taken) or (isinstance(value, bool) and bool not in expected):
            raise InputError(
                f"{where}: field {field!r} is {_json_name(type(value))}, expected {names}"
            )


def _json_name(kind: type) -> str:
    return _JSON_NAMES.get(kind, kind.__name__)
