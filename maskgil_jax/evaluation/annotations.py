"""What a file says of its images: their classes, names and codes, and how they were made.

Letters: N images.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from maskgil_jax.runtime.errors import InputError

KNOWN = ("labels", "class_names", "captions", "names", "codes", "codebook_size", "protocol")


class Annotations(NamedTuple):
    """What a file says of N images.

    Attributes:
      labels: names of their classes, str [N], or None; of images of captions these.
      captions: str [N], or None.
      names: of the images, or None.
      codes: int [N, h, w] that a tokenizer made them from, or None.
      codebook_size: of that tokenizer, 0 without codes.
      protocol: how they were made, or "".
    """

    labels: np.ndarray | None
    captions: np.ndarray | None
    names: Sequence[str] | None
    codes: np.ndarray | None
    codebook_size: int
    protocol: str


def checked(path: str, arrays: Mapping[str, np.ndarray], count: int) -> Annotations:
    """What arrays of a file say of its images.

    Args:
      path: of the file.
      arrays: by name, of KNOWN.
      count: N.

    Raises:
      InputError: they contradict the images or themselves; names the file and the array.
    """
    names = texts(path, "names", arrays["names"], count).tolist() if "names" in arrays else None
    codes, size = None, 0
    if "codes" in arrays:
        size = number(path, "codebook_size", arrays.get("codebook_size"), least=1)
        codes = arrays["codes"]
        if codes.ndim != 3 or len(codes) != count or codes.dtype.kind not in "iu":
            raise InputError(
                f"{path}: codes is {codes.dtype} {codes.shape}, expected integers [{count}, h, w]"
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < size:
            raise InputError(
                f"{path}: codes from {codes.min()} to {codes.max()}, expected 0 to {size - 1} "
                f"(codebook_size = {size})"
            )
    protocol = text(path, "protocol", arrays["protocol"]) if "protocol" in arrays else ""
    if "captions" in arrays:  # classes of these names may be one or several
        captions = texts(path, "captions", arrays["captions"], count)
        return Annotations(captions, captions, names, codes, size, protocol)
    return Annotations(labels_of(path, arrays, count), None, names, codes, size, protocol)


def labels_of(path: str, arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray | None:
    """Names of the classes of images, str [N], or None where a file does not say them.

    Args:
      path: of the file.
      arrays: `labels` [N]: texts, which are the names, or numbers, which are places in
        `class_names` if that is there, or else stand for themselves.
      count: N.

    Raises:
      InputError: labels of other images, or some that have no name.
    """
    labels, names = arrays.get("labels"), arrays.get("class_names")
    if names is not None:
        names = texts(path, "class_names", names)
        if twice := _repeated(names):
            raise InputError(f"{path}: class_names holds {twice!r} twice, expected each name once")
    if labels is None:
        return None
    if labels.shape != (count,):
        raise InputError(f"{path}: labels {labels.shape} of {count} images, expected one each")
    if labels.dtype.kind in "US" and names is None:
        return texts(path, "labels", labels, count)
    expected = "0 or more" if names is None else f"0 to {len(names) - 1} ({len(names)} class_names)"
    if labels.dtype.kind not in "iuf":
        raise InputError(f"{path}: labels are {labels.dtype}, expected whole numbers, {expected}")
    most = 2**53 if names is None else len(names) - 1
    with np.errstate(invalid="ignore"):
        wrong = ~((labels >= 0) & (labels <= most) & (labels == np.floor(labels)))
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(
            f"{path}: label {labels[place]} of image {place}, expected whole numbers, {expected}; "
            f"{wrong.sum()} of {count} are not"
        )
    numbers = labels.astype(np.int64)
    return (numbers if names is None else names[numbers]).astype(str)


def _repeated(names: np.ndarray) -> str | None:
    values, counts = np.unique(names, return_counts=True)
    return str(values[counts > 1][0]) if (counts > 1).any() else None


def texts(path: str, name: str, array: np.ndarray, count: int | None = None) -> np.ndarray:
    """An array of texts as str [n].

    Args:
      path, name: of the file and of the array.
      array: unicode, or bytes in UTF-8.
      count: n, where it is known.

    Raises:
      InputError: something else.
    """
    if array.ndim != 1 or array.dtype.kind not in "US" or count not in (None, len(array)):
        raise InputError(
            f"{path}: {name} is {array.dtype} {array.shape}, expected texts "
            f"[{'classes' if count is None else count}]"
        )
    if array.dtype.kind == "U":
        return array
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {name} holds bytes that are not UTF-8: {error}") from None


def text(path: str, name: str, array: np.ndarray) -> str:
    """An array that is one text; InputError, with path and name, where it is something else."""
    if array.size != 1:
        raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, expected one text")
    return str(texts(path, name, array.reshape(1))[0])


def number(path: str, name: str, array: np.ndarray | None, least: int) -> int:
    """An array that is one whole number.

    Args:
      path, name: of the file and of the array.
      array: None: it is missing.
      least: that it may be.

    Raises:
      InputError: something else.
    """
    if array is None:
        raise InputError(f"{path} has no {name}: expected a whole number, {least} or more")
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, expected a whole number")
    value = array.reshape(()).item()
    if not least <= value < 2**53 or value != int(value):  # no NaN
        raise InputError(f"{path}: {name} = {value}, expected a whole number, {least} or more")
    return int(value)
