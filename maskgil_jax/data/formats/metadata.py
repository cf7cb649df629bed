"""`metadata.csv` and `metadata.jsonl` in a folder: captions and classes, a row for each image.

Source: the convention of ImageFolder in Hugging Face's `datasets`.
"""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from maskgil_jax.data.records import captions, class_labels
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import read_regular_file

FILE_NAME = "file_name"
FIELDS = (FILE_NAME, *captions.FIELDS, *class_labels.FIELDS)  # that are read; others are named
LARGEST = 2**34  # bytes of a file of metadata
LONGEST_FIELD = 2**24  # characters; what is longer is a quote that does not end
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")


class Row(NamedTuple):
    """One row.

    Attributes:
      line: of the file, counted from 1, that it begins on.
      values: by the names of columns; "" and None are nothing.
    """

    line: int
    values: Mapping[str, Any]


class Metadata:
    """What the rows of a folder's metadata say of its images.

    Attributes:
      path: of the file.
      census: rows that cannot be used, and columns that are not read.
      rows: the rows of each file, by its path below the folder.
      has_labels: whether a row says a class.
      class_names: that `classnames.txt` beside it lists, which is read where rows say classes; None
        without that.
      files: paths of what was read.
    """

    def __init__(self, path: str, folder: str, below: str = ""):
        """Read a file of metadata.

        Args:
          path: of the file.
          folder: that its names begin in.
          below: part of the folder that is wanted, with a slash; "": all.

        Raises:
          InputError: it cannot be read, has no row that names a file, or one that names a file
            outside of the folder.
        """
        self.path = path
        self.census = Census()
        self.rows: dict[str, list[Row]] = {}
        self._name = os.path.basename(path)
        read = _READERS[os.path.splitext(path)[1]]
        columns: dict[str, None] = {}
        elsewhere = 0
        for row in self._whole(read(self._content())):
            columns |= dict.fromkeys(row.values)
            if (name := self._place(row, folder)) is None:
                continue
            if not name.startswith(below):
                elsewhere += 1
                continue
            values = {field: row.values[field] for field in FIELDS[1:] if field in row.values}
            self.rows.setdefault(name.removeprefix(below), []).append(Row(row.line, values))
        self._check(columns, elsewhere, below)
        self.has_labels = any(True for _ in self.labels)
        names_file = os.path.join(os.path.dirname(path), class_labels.NAMES_FILE)
        has_names = self.has_labels and os.path.lexists(names_file)
        self.class_names = class_labels.read_names(names_file) if has_names else None
        self.files = (path, names_file) if has_names else (path,)
        self._explain(columns, elsewhere, below)

    def line(self, row: Row) -> str:
        """The name of a row in messages."""
        return f"{self._name}, line {row.line}"

    def texts(self, name: str) -> tuple[str, ...]:
        """The captions of a file in all of its rows, unchecked.

        Raises:
          Unreadable: names the row, which holds something else.
        """
        texts: list[str] = []
        for row in self.rows.get(name, ()):
            try:
                texts += captions.of_fields(row.values, "field")
            except Unreadable as error:
                raise Unreadable(f"{self.line(row)}: {error}") from None
        return tuple(dict.fromkeys(text for text in texts if not captions.is_blank(text)))

    def label(self, name: str) -> Any:
        """The class that the rows of a file say, as it is written there, or None.

        Raises:
          Unreadable: two rows say different classes.
        """
        found = [(row, value) for row in self.rows.get(name, ()) if _given(value := _label(row))]
        for row, value in found[1:]:
            if str(value) != str(found[0][1]):
                first = found[0]
                raise Unreadable(
                    f"{self.line(first[0])} and line {row.line} say different classes, "
                    f"{first[1]!r} and {value!r}"
                )
        return found[0][1] if found else None

    @property
    def labels(self) -> Iterator[Any]:
        """What rows say of classes, as it is written there."""
        rows = (row for of_file in self.rows.values() for row in of_file)
        return filter(_given, map(_label, rows))

    def _content(self) -> bytes:
        try:
            return read_regular_file(self.path, LARGEST)
        except Unreadable as error:
            raise InputError(f"{self.path} {error}") from None

    def _whole(self, rows: Iterator[Row | tuple[int, str]]) -> Iterator[Row]:
        """The rows that can be read; the others are counted."""
        try:
            for row in rows:
                if isinstance(row, Row):
                    yield row
                    continue
                line, fault = row
                name = f"{self._name}, line {line}: {fault}"
                self.census.pass_over(name, "damaged row of metadata", is_data=True)
        except Unreadable as error:
            raise InputError(f"{self.path}: {error}") from None

    def _place(self, row: Row, folder: str) -> str | None:
        """The path below the folder of the file that a row names, or None where it names none."""
        name = row.values.get(FILE_NAME)
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            self.census.pass_over(self.line(row), "row of metadata without a file", is_data=True)
            return None
        if _ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name):
            raise InputError(
                f"{self.path}: line {row.line} names {name!r}, expected a path below the folder of "
                "this file, without .."
            )
        try:
            return _spelled(folder, "/".join(p for p in name.split("/") if p not in ("", ".")))
        except UnicodeEncodeError:
            fault = f"{self.line(row)}: a name with half a character"
            self.census.pass_over(fault, "damaged row of metadata", is_data=True)
            return None

    def _check(self, columns: Mapping[str, None], elsewhere: int, below: str) -> None:
        if self.rows:
            return
        if columns and FILE_NAME not in columns:
            raise InputError(
                f"{self.path}: its rows have {', '.join(map(repr, columns))}, expected {FILE_NAME} "
                f"and, of {', '.join(FIELDS[1:])}, what there is"
            )
        if elsewhere:
            raise InputError(f"{self.path}: none of {elsewhere} rows names a file in {below}")
        reasons = "; ".join(["no rows that can be used", *self.census.summary()[1:]])
        raise InputError(f"{self.path} has {' '.join(reasons.split())}")

    def _explain(self, columns: Mapping[str, None], elsewhere: int, below: str) -> None:
        """Note in the census what of the file is used, and what is not."""
        notes = self.census.notes
        used = [column for column in FIELDS[1:] if column in columns]
        notes.append(
            f"{self._name} says of images: {', '.join(used)}"
            if used
            else f"{self._name} has neither captions nor classes (columns {', '.join(FIELDS[1:])})"
        )
        if unread := [column for column in columns if column not in FIELDS]:
            notes.append(f"columns of {self._name} that are not read: {', '.join(unread)}")
        if several := sum(len(rows) > 1 for rows in self.rows.values()):
            notes.append(f"{several:,} images have several rows in {self._name}, joined to one")
        if elsewhere:
            notes.append(f"{elsewhere:,} rows of {self._name} name files outside of {below}")


def of_folder(path: str, is_split: bool) -> Metadata | None:
    """The metadata of a folder, or None without any.

    Args:
      path: of the folder.
      is_split: whether it is part of a data set, whose metadata may lie in the folder around it.

    Raises:
      InputError: two files of metadata, or as Metadata.
    """
    if (found := _file_in(path)) or not is_split:
        return Metadata(found, path) if found else None
    around, name = os.path.split(os.path.abspath(path))
    found = _file_in(around)
    return Metadata(found, around, f"{name}/") if found else None


def _file_in(folder: str) -> str | None:
    paths = [os.path.join(folder, f"metadata{suffix}") for suffix in _READERS]
    found = [path for path in paths if os.path.isfile(path)]
    if len(found) > 1:
        names = " and ".join(map(os.path.basename, found))
        raise InputError(f"folder {printable(folder)} has {names}: expected one of them")
    return found[0] if found else None


def _label(row: Row) -> Any:
    return next(
        (row.values[field] for field in class_labels.FIELDS if _given(row.values.get(field))), None
    )


def _given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and captions.is_blank(value))


def _spelled(folder: str, name: str) -> str:
    """A name as the file system spells it, where that has a file of it.

    Windows writes backslashes, and macOS accents as characters of their own.
    """
    os.fsencode(name)
    if name.isascii() and "\\" not in name:
        return name  # nearly all, without a look at the disk
    slashed = "/".join(part for part in name.split("\\") if part not in ("", "."))
    spellings = [unicodedata.normalize(form, n) for n in (name, slashed) for form in ("NFC", "NFD")]
    there = (n for n in (name, *spellings) if os.path.lexists(os.path.join(folder, n)))
    return next(there, name)


def _rows_of_csv(data: bytes) -> Iterator[Row | tuple[int, str]]:
    """The rows of a CSV file; of those that cannot be read, the line and why."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"line {line} is not UTF-8; expected CSV in UTF-8") from None
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: Sequence[str] | None = None
    line = 1
    try:
        for fields in reader:
            if not fields:
                pass  # an empty line
            elif header is None:
                header = _header(fields)
            elif len(fields) == len(header):
                yield Row(line, dict(zip(header, fields, strict=True)))
            else:
                yield line, f"{len(fields)} fields, where the first line has {len(header)}"
            line = reader.line_num + 1
    except csv.Error as error:
        raise Unreadable(f"what begins on line {line} is no CSV: {error}") from None


def _header(fields: Sequence[str]) -> list[str]:
    names = [field.strip() for field in fields]
    if FILE_NAME not in names:
        raise Unreadable(
            f"there is no column {FILE_NAME}, but {', '.join(map(repr, names))}: expected "
            f"{FILE_NAME} and, of {', '.join(FIELDS[1:])}, what there is, with commas between them"
        )
    for field in FIELDS:
        if names.count(field) > 1:
            raise Unreadable(f"column {field!r} comes twice")
    return names


def _rows_of_json(data: bytes) -> Iterator[Row | tuple[int, str]]:
    """The rows of a file of JSON lines; of those that cannot be read, the line and why."""
    for line, text in enumerate(data.split(b"\n"), 1):
        if not text.strip():
            continue
        try:
            content = captions.load_json(text, FIELDS)
        except Unreadable as error:
            yield line, str(error)
            continue
        if isinstance(content, dict):
            yield Row(line, content)
        else:
            yield line, f"a {type(content).__name__}, expected an object"


_READERS = {".csv": _rows_of_csv, ".jsonl": _rows_of_json}
