"""`parquet:PATTERN`: Parquet files in the layout of Hugging Face, read by row groups.

Opening reads the footers alone. A row group is read and decoded whole, so those that were read last
are kept, as many as CACHE bytes hold; two may always be, whatever their size. `order.py` draws
examples of a few row groups at a time, so that each is decoded once an epoch by each process.
"""

import collections
import functools
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from maskgil_jax.data.formats import patterns, table_columns
from maskgil_jax.data.formats.tables import Table, TableFile
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import CACHE
from maskgil_jax.runtime.errors import InputError, Unreadable

OPENERS = 16  # threads, which wait for slow disks together


class Parquet(Table):
    """Files with a column of images (a struct of bytes and path), and of classes and captions.

    Classes are those of `label`, `cls` or `class`: numbers with the names that the schema lists
    (ClassLabel), numbers alone, or names, in the order of code points. Captions are the texts, or
    lists of texts, in `caption`, `captions` and `text`.

    Args:
      pattern: of paths, with `*`, `?`, `[...]`, `{a,b}` and `{000..099}`.

    Raises:
      InputError: no such file, no Parquet, no images, or no pyarrow.
    """

    def __init__(self, pattern: str):
        need_pyarrow(f"parquet:{pattern}")
        if os.path.isdir(os.path.expanduser(pattern)):
            raise InputError(
                f"data source parquet:{pattern} is a folder, expected a pattern of files, such as "
                f"'parquet:{pattern.rstrip('/')}/train-*.parquet'"
            )
        paths = patterns.files(pattern)
        with ThreadPoolExecutor(OPENERS) as pool:
            footers = pool.map(_open, paths)
            bar = tqdm(footers, "reading footers", len(paths), unit="file", delay=2, disable=None)
            files = list(bar)
        super().__init__(f"parquet:{pattern}", files, read_row_group, _values, mapped=False)


def need_pyarrow(spec: str) -> None:
    """Raise InputError unless pyarrow is there to read a source."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError(f"data source {spec} needs pyarrow: pip install pyarrow") from None


def read_row_group(file: TableFile, number: int) -> Any:
    """A row group as a pyarrow table; Unreadable where it is damaged."""
    return _row_groups.get(file, number)


def _open(path: str) -> TableFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = printable(path)
    try:
        version = os.stat(path).st_mtime_ns
        with pq.ParquetFile(path) as file:
            schema, footer = file.schema_arrow, file.metadata
            groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as Parquet: {_reason(error)}") from None
    return TableFile(
        path,
        version,
        table_columns.columns_of(schema, name),
        tuple(group.num_rows for group in groups),
        tuple(group.total_byte_size for group in groups),
    )


def _values(file: TableFile, column: str) -> Iterable[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        values: list[Any] = pq.read_table(file.path, columns=[column])[column].unique().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{printable(file.path)}: column {column}: {_reason(error)}") from None
    return values


def _read(file: TableFile, number: int) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One file object for each read, since none is safe to share among threads.
        with pq.ParquetFile(file.path, metadata=_footer(file.path, file.version)) as opened:
            table = opened.read_row_group(number, columns=file.columns.read)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Unreadable(f"its row group is damaged: {_reason(error)}") from None
    if table.num_rows != file.rows[number]:
        raise Unreadable(f"its row group has {table.num_rows} rows, not {file.rows[number]}")
    return table.combine_chunks()


@functools.lru_cache(4096)
def _footer(path: str, version: int) -> Any:
    import pyarrow.parquet as pq

    return pq.read_metadata(path)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


class _RowGroups:
    """The row groups of this process that were read last, decoded; each is decoded by one thread.

    Kept by the process, not by the source, which worker processes get a copy of.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[tuple[str, int, int], tuple[Future, int]]
        self._kept = collections.OrderedDict()

    def get(self, file: TableFile, number: int) -> Any:
        key = file.path, file.version, number
        with self._lock:
            mine = key not in self._kept
            if mine:
                self._keep(key, Future(), file.sizes[number])
            self._kept.move_to_end(key)
            future, _ = self._kept[key]
        if mine:
            try:
                table = _read(file, number)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(table)
                with self._lock:  # again, since the footer says what it takes in the file
                    self._keep(key, future, table.nbytes)
        return future.result()

    def _keep(self, key: tuple[str, int, int], future: Future, size: int) -> None:
        self._kept[key] = future, size
        while len(self._kept) > 2 and sum(size for _, size in self._kept.values()) > CACHE:
            self._kept.popitem(last=False)


_row_groups = _RowGroups()
