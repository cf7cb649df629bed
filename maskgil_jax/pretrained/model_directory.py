"""Model directories, through Orbax: the parameters of a network and what it is.

A model directory holds `params/` (Orbax, a flat dict) and `model.json` (class, constructor
arguments, format version), written last: a directory without it is not a model. Beside them may lie
other files that the model needs, such as a vocabulary. Nothing in it executes.
"""

import contextlib
import gc
import hashlib
import io
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from maskgil_jax.runtime import array_files, directory_swap, paths, processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, check_object, read_json, write_json
from maskgil_jax.runtime.trees import Tree, flatten, unflatten

log = logging.getLogger("maskgil_jax")

FORMAT = 1
NOT_OF_THE_MODEL = ("model.json", "README.md", "grid.png", ".gitattributes")  # as bundles have them


def save_model(
    directory: epath.PathLike,
    description: dict[str, Any],
    params: Any,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model directory; another one that is there is replaced atomically.

    With several processes all of them call this.

    Args:
      directory: where to.
      description: JSON-able; `class` and `arguments` at least.
      params: the module or tree of parameters.
      beside: contents of other files of the directory by name.
    """
    directory = paths.absolute(directory)
    flat, beside = flatten(params), beside or {}
    content = dict(description, format=FORMAT, fingerprint=fingerprint(flat, beside))
    content = json.loads(json.dumps(content))
    there = (directory / "model.json").exists() and read_description(directory) == content
    if processes.total(there):
        return
    # The same name in every process.
    fresh = directory_swap.beside(directory, content["fingerprint"])
    if processes.first() and fresh.exists():
        fresh.rmtree()
    processes.wait("room for the model")
    with array_files.orbax_context():
        ocp.save(fresh / "params", flat)
    if processes.first():
        for name, data in beside.items():
            (fresh / name).write_bytes(data)
        write_json(fresh / "model.json", content)
        directory_swap.replace(fresh, directory, "model.json")
    processes.wait("model is saved")


def copy_model(
    source: epath.Path, target: epath.Path, changes: Mapping[str, Any] | None = None
) -> None:
    """Copy a model directory file by file, with changes of its model.json, which comes last.

    Folders in it other than the parameters', and its card, are not part of the model and stay
    behind.
    """
    beside = [
        path for path in source.iterdir() if path.is_file() and path.name not in NOT_OF_THE_MODEL
    ]
    for path in [*directory_swap.files_below(source / "params"), *beside]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        path.copy(copy)
    write_json(target / "model.json", {**read_description(source), **(changes or {})})


def read_description(directory: epath.PathLike) -> dict[str, Any]:
    """`model.json` of a model directory.

    Raises:
      InputError: no model there, one of a later format, or a damaged file; names the field.
    """
    path = epath.Path(directory) / "model.json"
    if not path.exists():
        message = f"{directory} is not a model directory: it has no model.json"
        if whole := directory_swap.replacement_of(paths.absolute(directory), "model.json"):
            message += (
                f". Its replacement was interrupted: {whole} is whole; run the command that "
                "writes it again, or use that one"
            )
        raise InputError(message)
    description = read_json(path, {"format": int})
    if description["format"] != FORMAT:
        raise InputError(f"{path} has format {description['format']}, this version reads {FORMAT}")
    return checked_description(description, str(path))


def checked_description(description: dict[str, Any], where: str) -> dict[str, Any]:
    """The same; InputError, which names the field of what `where` names, unless it can be used."""
    there = {name: kind for name, kind in _OPTIONAL.items() if name in description}
    check_object(description, {"class": str, "arguments": dict, **there}, where)
    for name in ("tokenizer", "encoder"):
        if description.get(name):  # what the model depends on, by place and fingerprint
            expected: dict[str, Types] = {"path": str, "fingerprint": str}
            check_object(description[name], expected, f"{where}: field {name!r}")
    for name in description.get("class_names", ()):
        if not isinstance(name, str):
            raise InputError(f"{where}: field 'class_names' holds {name!r}, expected texts")
    return description


_OPTIONAL: dict[str, Types] = {
    **dict(kind=str, fingerprint=str, tokenizer=dict, encoder=dict, class_names=list, decoding=dict)
}


def count_parameters(directory: epath.PathLike) -> int | None:
    """Parameters of a model directory, counted without reading them; None where that fails."""
    try:
        arrays = ocp.metadata(epath.Path(directory) / "params").metadata
        return sum(math.prod(array.shape) for array in arrays.values())
    except Exception:  # Orbax raises many kinds
        return None


def load_params(
    directory: epath.PathLike,
    like: Tree,
    expected: str = "",
    beside: Mapping[str, bytes] | None = None,
    layout: Tree | None = None,
) -> Tree:
    """The parameters of a model directory in the shape of `like` (arrays or shapes), on devices.

    A warning names those that are not finite.

    Args:
      directory: of the model.
      like: names, shapes and dtypes.
      expected: the fingerprint that model.json records; "": it is not compared.
      beside: contents of the other files that count in it.
      layout: shardings, in the shape of `like`; None: on one device.

    Raises:
      InputError: the parameters cannot be read, or are not those of `like` or of the fingerprint.
    """
    path = epath.Path(directory) / "params"
    if not path.is_dir():
        raise InputError(f"{directory} is not whole: it has no directory params")
    flat = read_arrays(path, flatten(like), str(directory))
    if expected:
        actual = fingerprint(flat, beside)
        if actual != expected:
            files = ", ".join(["params", *sorted(beside or {})])
            raise InputError(
                f"{directory} is damaged or was changed: its files ({files}) have the fingerprint "
                f"{actual}, but its model.json says {expected}; copy or convert the model again "
                "(training writes its own again once the directory is removed), or read it as it "
                "is with verify=false, which load, sample and evaluate take"
            )
    return placed(directory, flat, like, layout)


def placed(
    directory: epath.PathLike, flat: dict[str, np.ndarray], like: Tree, layout: Tree | None
) -> Tree:
    """Arrays by name in the shape of `like`, on devices; `flat` is emptied, to save memory.

    A warning names those that are not finite, and the directory.
    """
    _warn_of_what_is_not_finite(directory, flat)
    shapes = flatten(like)
    if layout is None:
        places = dict.fromkeys(shapes, jax.local_devices()[0])
    else:
        places = flatten(layout)
    arrays = {
        name: jax.device_put(np.asarray(flat.pop(name), leaf.dtype), places[name])
        for name, leaf in shapes.items()
    }
    return unflatten(like, arrays)


def read_arrays(
    directory: epath.PathLike,
    shapes: Mapping[str, Any],
    where: str,
    others: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Arrays as they are stored, in the host's memory, where they can be checked.

    Args:
      directory: where Orbax wrote them.
      shapes: names, shapes and dtypes.
      where: what messages call it.
      others: read too, by name, of any shape: empty arrays of their dtypes.

    Raises:
      InputError: they cannot be read, or have other shapes.
    """
    like = {name: np.empty(0, leaf.dtype) for name, leaf in shapes.items()}
    try:
        with _without_echoes():
            flat = ocp.load(directory, abstract_state=like | dict(others or {}))
    except MemoryError:
        raise
    # Orbax and TensorStore report damage in many ways, bare exceptions among them.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(
            f"{where} does not hold what its model.json says, or is damaged: {cause}"
        ) from error
    for name, leaf in shapes.items():
        if flat[name].shape != leaf.shape:
            raise InputError(
                f"{where} does not hold what its model.json says: {name} is of shape "
                f"{flat[name].shape}, expected {leaf.shape}"
            )
    return dict(flat)


@contextlib.contextmanager
def _without_echoes() -> Iterator[None]:
    """Keep from the terminal what follows where Orbax fails to read.

    It gives up at the first tensor that cannot be read; each of the others that it had begun to
    read then prints a traceback, by asyncio when it is collected and by TensorStore when it ends.
    """
    asyncio_log = logging.getLogger("asyncio")
    level, printed = asyncio_log.level, io.StringIO()
    asyncio_log.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stderr(printed):
            try:
                yield
            except BaseException:
                before = -1
                while before != (before := printed.tell()):
                    time.sleep(0.2)
                gc.collect()
                raise
    finally:
        asyncio_log.setLevel(level)
    sys.stderr.write(printed.getvalue())


def _warn_of_what_is_not_finite(directory: epath.PathLike, flat: Mapping[str, np.ndarray]) -> None:
    # A sum reads the values at the memory's speed; it may overflow though all of them are finite.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = {name: np.sum(value, dtype=np.float32) for name, value in flat.items()}
    suspects = [name for name, value in sums.items() if not np.isfinite(value)]
    wrong = {name: int((~np.isfinite(flat[name])).sum()) for name in suspects}
    names = [f"{name} ({count:,} of {flat[name].size:,})" for name, count in wrong.items() if count]
    if names:
        more = f" and {len(names) - 4} more tensors" if len(names) > 4 else ""
        log.warning(
            "%s has weights that are not finite (NaN or infinity), which draw or measure nothing "
            "of use: %s%s",
            directory,
            ", ".join(names[:4]),
            more,
        )


def read_beside(directory: epath.PathLike, name: str) -> bytes:
    """One of the other files of a model directory; InputError where it is not there."""
    path = epath.Path(directory) / name
    if not path.exists():
        raise InputError(f"{directory} is not whole: it has no {name}")
    return path.read_bytes()


def fingerprint(params: Any, beside: Mapping[str, bytes] | None = None) -> str:
    """Sixteen hex digits that name the parameters' values, whatever their order in memory.

    The contents of the files `beside` them count too.
    """
    digest = hashlib.sha256()
    flat = params if isinstance(params, dict) else flatten(params)
    for name in sorted(flat):
        value = processes.whole(flat[name])
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    for name, data in sorted((beside or {}).items()):
        digest.update(f"{name} {len(data)}".encode() + data)
    return digest.hexdigest()[:16]
