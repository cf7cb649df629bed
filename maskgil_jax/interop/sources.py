"""The files that a source stands for: one, several with commas, a directory or an index."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from maskgil_jax.data.images import file_kinds
from maskgil_jax.interop.names import some
from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError

TORCH = (".pt", ".pth", ".ckpt", ".bin")
# Google's Flax files have no suffix, as tokenizer_imagenet256_checkpoint.
FLAX = (".msgpack", "_checkpoint")
KINDS = ((".safetensors",), TORCH, FLAX)  # in order of preference within a directory
INDEX = ".index.json"
NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)")  # as model-00001-of-00002.safetensors
# What stands where weights were not downloaded, as data/images/file_kinds.py calls it.
NOT_WEIGHTS = {
    *("a Git LFS pointer (run git lfs pull)", "an HTML page", "an XML document", "JSON"),
}


class Weights(NamedTuple):
    """The files of tensors of one network.

    Attributes:
      paths: of the files.
      listed: name of a tensor to the file that has to hold it, where an index says so.
    """

    paths: list[str]
    listed: Mapping[str, str]


def members(source: str) -> dict[str, str]:
    """The files that a source stands for, those between its commas or in a directory, by name.

    Raises:
      InputError: no such file, or two of one name.
    """
    if os.path.isdir(source):
        paths = [os.path.join(source, name) for name in _listed(source)]
        paths = [path for path in paths if os.path.isfile(path)]
    else:
        paths = [source] if os.path.isfile(source) else source.split(",")
    by_name: dict[str, str] = {}
    for path in paths:
        check_file(path)
        name = os.path.basename(path)
        if name in by_name:
            raise InputError(f"source={source} has two files {name}: rename one of them")
        by_name[name] = path
    return by_name


def snapshot(source: str) -> str:
    """The source, or the directory of an index, which is a snapshot with all that belongs to it."""
    alone = source.endswith(INDEX) and os.path.isfile(source)
    return os.path.dirname(source) or "." if alone else source


def weights(source: str) -> Weights:
    """The files of tensors that a source stands for.

    Raises:
      InputError: no such file, none of tensors, several of which only one can be meant, or not
        all of a network.
    """
    files_by_name = members(source)
    if "model.json" in files_by_name and os.path.isdir(source):
        raise InputError(f"source={source} is a model directory of this package already")
    known = tuple(suffix for kind in KINDS for suffix in kind)
    for path in [] if os.path.isdir(source) else files_by_name.values():
        if not path.endswith((*known, INDEX)):
            raise InputError(
                f"source={path}: expected a name that ends in .safetensors, {', '.join(TORCH)}, "
                f"{' or '.join(FLAX)}, a directory of such files, or their {INDEX}"
            )
    return weights_among(files_by_name, source)


def weights_among(files_by_name: Mapping[str, str], source: str) -> Weights:
    """The files of tensors among the members of a source; raises as `weights` does."""
    indices = sorted(name for name in files_by_name if name.endswith(INDEX))
    for kind in KINDS:
        indexed = [name for name in indices if name.removesuffix(INDEX).endswith(kind)]
        if indexed:
            return _indexed(files_by_name, indexed, source)
    if indices:
        raise InputError(f"source={source}: {indices[0]} is the index of no known kind of file")
    paths: list[str] = []
    for kind in KINDS:
        of_kind = [path for name, path in files_by_name.items() if name.endswith(kind)]
        if os.path.isdir(source):
            _check_one_network(of_kind, source)
            paths = paths or of_kind
        else:
            paths += of_kind
    if not paths:
        raise InputError(f"source={source} has no file of tensors: {some(files_by_name)}")
    _check_series(paths)
    return Weights(paths, {})


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file; InputError where there is none."""
    check_file(path)
    content: dict[str, Any] = files.read_json(path, {})
    return content


def read_bytes(path: str) -> bytes:
    """The content of a file; InputError where there is none."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"source={path} cannot be read: {error.strerror}") from None


def check_file(path: str) -> None:
    """Raise InputError unless there is this file."""
    if not os.path.isfile(path):
        raise InputError(f"source={path}: there is no such file")


def check_beginning(path: str) -> None:
    """Raise InputError where a file of tensors is empty, or another kind of file in its place."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"source={path} cannot be read: {error.strerror}") from None
    if not start:
        raise InputError(f"source={path} is empty (0 bytes), expected tensors")
    # The first bytes of safetensors are of a number, which text never is: its eighth is zero.
    kind = "" if 0 in start[:8] else file_kinds.kind_of(start)
    if kind in NOT_WEIGHTS:
        raise InputError(f"source={path} is {kind}, expected tensors")


def _indexed(files_by_name: Mapping[str, str], indices: list[str], source: str) -> Weights:
    if len(indices) > 1:
        raise InputError(
            f"source={source} has several indices: give one of {', '.join(indices)} as the source"
        )
    index_path = files_by_name[indices[0]]
    index = read_json(index_path).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise InputError(f"source={index_path}: field 'weight_map' is missing, or holds no names")
    for name, file in index.items():
        if not isinstance(file, str) or os.path.basename(file) != file or file in ("", ".", ".."):
            raise InputError(
                f"source={index_path}: {name} is in {file!r}, expected a file beside it"
            )
    paths = {file: os.path.join(os.path.dirname(index_path), file) for file in index.values()}
    if missing := sorted(file for file, path in paths.items() if not os.path.isfile(path)):
        raise InputError(
            f"source={source} is not complete: {index_path} names {some(missing)}, which are "
            "not there"
        )
    return Weights(sorted(paths.values()), index)


def _check_one_network(paths: list[str], source: str) -> None:
    """Refuse a directory of several networks, of which none is the one to take."""
    matches = [NUMBERED.fullmatch(os.path.basename(path)) for path in paths]
    series = sorted({f"{match[1]}-*{match[4]}" for match in matches if match})
    alone = sorted(
        os.path.basename(path) for path, match in zip(paths, matches, strict=True) if not match
    )
    if series and len(series) + len(alone) > 1:
        several = series + alone
    elif len(alone) > 1 and not alone[0].endswith(".safetensors"):
        several = alone
    else:
        return
    raise InputError(
        f"source={source} holds several sets of weights: {', '.join(several)}; give the files of "
        "one of them as the source, with commas in between"
    )


def _check_series(paths: list[str]) -> None:
    """Refuse numbered files of a series that is not complete."""
    series: dict[tuple[str, str, str], set[int]] = {}
    for path in paths:
        if match := NUMBERED.fullmatch(path):
            series.setdefault((match[1], match[3], match[4]), set()).add(int(match[2]))
    for (name, count, suffix), there in series.items():
        first = min(there | {1})  # some count from 0
        every = range(first, first + int(count)) if int(count) < 100_000 else range(0)
        if missing := sorted(set(every) - there):
            names = [f"{os.path.basename(name)}-{i:05d}-of-{count}{suffix}" for i in missing]
            raise InputError(
                f"source={name}-*-of-{count}{suffix} is not complete: {some(names)} of {count} "
                "files are missing; give their directory, or all of them with commas in between"
            )


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise InputError(f"source={directory} cannot be listed: {error.strerror}") from None
