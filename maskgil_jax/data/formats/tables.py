"""Tables of images with their classes and captions, in blocks of rows that are read whole.

A block is a row group of a Parquet file, or a record batch of an Arrow file.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskgil_jax.data.formats import table_columns
from maskgil_jax.data.formats.table_columns import Columns
from maskgil_jax.data.records import captions, class_labels
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import Blocks, Record, unusable
from maskgil_jax.runtime.errors import InputError, Unreadable

NO_BYTES = (
    "it has no bytes, and files outside the table are not read; push_to_hub and save_to_disk of "
    "`datasets` put them into it"
)


class TableFile(NamedTuple):
    """One file, as it was when it was opened.

    Attributes:
      path, version: of the file.
      columns: of it that are read.
      rows, sizes: number of rows and bytes in memory of each of its blocks.
    """

    path: str
    version: int
    columns: Columns
    rows: tuple[int, ...]
    sizes: tuple[int, ...]


class Table:
    """The rows of files, one after the other.

    Args:
      spec: how the source is written.
      files: one or more; of one layout.
      read_block: (file, number) -> its pyarrow table or batch; Unreadable where it is damaged.
      values: (file, name of a column) -> the values that occur in it.
      mapped: whether blocks lie in memory as they lie in the file, so that any row is read at once.

    Attributes:
      blocks: of rows that are best read together; None where any row is read at once.

    Raises:
      InputError: files of different columns or classes, or classes that cannot be.
    """

    def __init__(
        self,
        spec: str,
        files: Sequence[TableFile],
        read_block: Callable[[TableFile, int], Any],
        values: Callable[[TableFile, str], Iterable[Any]],
        mapped: bool,
    ):
        self._files, self._read_block = files, read_block
        self._columns = files[0].columns
        for file in files:
            _check_alike(files[0], file)
        self._blocks = [(f, n) for f, file in enumerate(files) for n in range(len(file.rows))]
        rows = [count for file in files for count in file.rows]
        self._ends = np.cumsum(rows, dtype=np.int64)
        self._firsts = np.concatenate([np.cumsum((0, *file.rows))[:-1] for file in files])
        sizes = np.array([size for file in files for size in file.sizes], np.int64)
        self.blocks = None if mapped else Blocks(self._ends, sizes)
        self._take_classes(spec, values)
        self.census = Census(len(self), self.class_names)
        self.census.captioned = None if self._columns.captions else 0
        self._explain(files)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def names(self) -> Iterator[str]:
        """Ids of all records: file and row."""
        for file in self._files:
            name = printable(file.path)
            yield from (f"{name}[{row}]" for row in range(sum(file.rows)))

    def __getitem__(self, index: int) -> Record:
        block = int(np.searchsorted(self._ends, index, side="right"))
        number, place = self._blocks[block], index - int(self._ends[block - 1] if block else 0)
        file = self._files[number[0]]
        name = f"{printable(file.path)}[{int(self._firsts[block]) + place}]"
        try:
            rows, columns = self._read_block(file, number[1]), self._columns
            image = table_columns.image_bytes(rows[columns.image], place, columns.in_struct)
            beside = {name: rows[name][place].as_py() for name in columns.beside_image}
            if not image:
                raise Unreadable(NO_BYTES)
            label = self._label(beside.get(columns.label)) if self._classes else 0
        except Unreadable as error:
            return unusable(name, str(error))
        return Record(image, label, name, functools.partial(captions.of_fields, beside, "column"))

    def _take_classes(self, spec: str, values: Callable[[TableFile, str], Iterable[Any]]) -> None:
        columns = self._columns
        self._classes: class_labels.Classes | None = None
        self.class_names: tuple[str, ...] = (printable(os.path.basename(spec.rstrip("/"))),)
        if not columns.label:
            return
        where = f"data source {spec}: column {columns.label}"
        if columns.class_names:
            self._classes = class_labels.Classes(columns.class_names, {})
        else:
            found = [v for file in self._files for v in values(file, columns.label)]
            if any(value is not None for value in found):
                self._classes = class_labels.of_column(found, None, where)
        if self._classes:
            self.class_names = tuple(map(printable, self._classes.names))

    def _label(self, value: Any) -> int:
        assert self._classes
        if value is None:
            raise Unreadable("no class, as other images have")
        label, last = self._classes.of(value), len(self.class_names) - 1
        if label > last:
            raise Unreadable(f"its class is {label}, expected 0 to {last}")
        return label

    def _explain(self, files: Sequence[TableFile]) -> None:
        columns, census = self._columns, self.census
        used = ", ".join([columns.image, *columns.beside_image])
        census.notes.append(f"columns that are read: {used}")
        if columns.unread:
            census.notes.append(f"columns that are not read: {', '.join(columns.unread)}")
        if columns.label and not self._classes:
            census.pass_over(columns.label, "column of classes that says none", is_data=True)
        for file in files:
            if not sum(file.rows):
                census.pass_over(printable(file.path), "file without rows", is_data=False)


def _check_alike(first: TableFile, other: TableFile) -> None:
    for what, ours, theirs in zip(
        ("image column", "kind of images", "classes in column", "names of classes", "captions"),
        first.columns,
        other.columns,
        strict=False,
    ):
        if ours != theirs:
            raise InputError(
                f"{other.path} has {what} {theirs!r:.80}, but {first.path} {ours!r:.80}: expected "
                "the same in all files"
            )
