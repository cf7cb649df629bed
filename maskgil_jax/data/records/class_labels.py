"""Classes of images as text says them: whole numbers, or names of a list."""

import collections
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from maskgil_jax.data.records import captions
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.runtime.errors import InputError, Unreadable

FIELDS = ("label", "cls", "class")  # of JSON
NAMES_FILE = "classnames.txt"  # line k + 1 names class k
MOST_CLASSES = 100_000  # ImageNet-21k has 21,841
_NUMBER = re.compile(r"([0-9]{1,9})(\.0+)?")  # 3.0 is what data frames make of 3
_MENTIONS = tuple(f'"{field}"'.encode() for field in FIELDS)


def of_text(data: bytes, ids: Mapping[str, int]) -> int:
    """The class that a file of nothing else says.

    Args:
      data: of the file.
      ids: of classes, by their names.

    Raises:
      Unreadable: shows what it says instead.
    """
    try:
        return of_value(data.decode("utf-8-sig"), ids)
    except UnicodeDecodeError as error:
        raise Unreadable(f"its class is not UTF-8 at byte {error.start}") from None


def of_json(data: bytes, ids: Mapping[str, int]) -> int | None:
    """The class in the first of FIELDS that says one, or None without such a field.

    Args:
      data: of the file.
      ids: of classes, by their names.

    Raises:
      Unreadable: what these fields hold is no class, or the file is no JSON; shows what it says.
    """
    # Most JSON holds captions alone, and takes long to parse; NUL is in UTF-16, not in JSON.
    if not any(field in data for field in _MENTIONS) and b"\0" not in data:
        return None
    if len(data) > captions.LARGEST_FILE:
        raise Unreadable(f"its JSON takes more than {captions.LARGEST_FILE:,} bytes")
    content = captions.load_json(data, FIELDS)
    fields = content if isinstance(content, dict) else {}
    values = [fields[field] for field in FIELDS if fields.get(field) is not None]
    fault = None
    for value in values:
        try:
            return of_value(value, ids)
        except Unreadable as error:
            fault = fault or error
    if fault:
        raise fault
    return None


def read_names(path: str) -> tuple[str, ...]:
    """Names of classes, of which line k, counted from 0, names class k.

    Raises:
      FileNotFoundError: there is no such file.
      InputError: it is not UTF-8, or a line before the last name is blank.
    """
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 at byte {error.start}, expected a name of a class in each line"
        ) from None
    if "\0" in text:
        raise InputError(f"{path} holds NUL characters, expected UTF-8")
    names = [line.strip() for line in captions.lines(text)]
    while names and captions.is_blank(names[-1]):
        names.pop()
    for number, name in enumerate(names, 1):
        if captions.is_blank(name):
            raise InputError(
                f"{path}: line {number} is blank, but line k + 1 is the name of class k; expected "
                "a name in each"
            )
    return tuple(names)


def ids_of(names: Sequence[str]) -> dict[str, int]:
    """The class of each name that only one has."""
    counts = collections.Counter(names)
    return {name: number for number, name in enumerate(names) if counts[name] == 1}


class Classes(NamedTuple):
    """The classes of a column of labels.

    Attributes:
      names: one per class.
      ids: of classes, by their names as `_normal` writes them, where labels may be names.
    """

    names: tuple[str, ...]
    ids: Mapping[str, int]

    def of(self, value: Any) -> int:
        """The class that a label of the column says; Unreadable as `of_value`."""
        return of_value(_normal(value), self.ids)


def of_column(values: Iterable[Any], names: Sequence[str] | None, where: str) -> Classes:
    """The classes that the labels of a column say: whole numbers, or names.

    Names that nothing lists stand in the order of code points; labels that are neither, such as
    -1 and 3.5, are of no class.

    Args:
      values: the labels, each once at least.
      names: that `classnames.txt` lists, or None.
      where: the column's name in messages.

    Raises:
      InputError: no label, numbers beside names that nothing lists, or a number without a name.
    """
    ids = {_normal(name): number for name, number in ids_of(names or ()).items()}
    numbers, texts = dict[int, Any](), dict[str, Any]()
    for value in values:
        try:
            numbers.setdefault(of_value(_normal(value), ids), value)
        except Unreadable:
            if names is None and _may_be_name(value):
                texts.setdefault(_normal(value), value)
    if numbers and texts:
        number, text = next(iter(numbers.values())), next(iter(texts.values()))
        raise InputError(
            f"{where} holds numbers, as {number!r}, and names, as {text!r}: expected one of both, "
            f"or the names of all classes in {NAMES_FILE}"
        )
    if len(texts) > MOST_CLASSES:
        raise InputError(f"{where} holds {len(texts):,} names, expected at most {MOST_CLASSES:,}")
    if texts:
        ordered = sorted(texts)
        return Classes(tuple(map(printable, ordered)), {t: i for i, t in enumerate(ordered)})
    if not numbers:
        raise InputError(f"{where} holds no class: expected names, or whole numbers from 0 on")
    last = max(numbers)
    if names is None:
        return Classes(tuple(map(str, range(last + 1))), {})
    if last >= len(names):
        raise InputError(f"{NAMES_FILE} names {len(names)} classes, but {where} has class {last}")
    return Classes(tuple(names), ids)


def of_value(value: Any, ids: Mapping[str, int]) -> int:
    """The class that a value says: a whole number, or a name.

    Args:
      value: of JSON, or a text.
      ids: of classes, by their names.

    Raises:
      Unreadable: shows what it says instead.
    """
    label = value.strip() if isinstance(value, str) else value
    number = _NUMBER.fullmatch(label) if isinstance(label, str) else None
    if number:
        label = int(number[1])
    elif isinstance(label, float) and label.is_integer():
        label = int(label)
    if type(label) is int and 0 <= label < MOST_CLASSES:
        return label
    if isinstance(label, str) and label in ids:
        return ids[label]
    text = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    names = ", and no name of classnames.txt" if ids else ""
    raise Unreadable(f"its class {text} is no whole number below {MOST_CLASSES:,}{names}")


def _normal(value: Any) -> Any:
    """A name as it is compared: stripped, and an accent always in its letter (Unicode's NFC)."""
    return unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else value


def _may_be_name(value: Any) -> bool:
    if not isinstance(value, str) or captions.is_blank(value):
        return False
    try:
        value.encode()
        float(value)
    except UnicodeEncodeError:  # half a character
        return False
    except ValueError:
        return True
    return False
