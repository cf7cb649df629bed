"""`hf:DIR`: a dataset saved by `save_to_disk` of Hugging Face's `datasets`, in Arrow files.

They are mapped into memory as they lie on disk, so that any row is read at once.
"""

import functools
import os
from collections.abc import Iterable
from typing import Any

from maskgil_jax.data.formats import table_columns
from maskgil_jax.data.formats.parquet import need_pyarrow
from maskgil_jax.data.formats.tables import Table, TableFile
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError, Unreadable

_STATE = "state.json"
_SPLITS = "dataset_dict.json"
OPEN_FILES = 512  # each keeps a mapping, and the places of its batches


class Saved(Table):
    """The rows of a saved dataset, with columns as in Parquet.

    Args:
      directory: that `Dataset.save_to_disk` wrote, or the one of a split below that of a
        DatasetDict.

    Raises:
      InputError: no such directory, several splits, damaged files, no images, or no pyarrow.
    """

    def __init__(self, directory: str):
        spec = f"hf:{directory}"
        need_pyarrow(spec)
        directory = os.path.expanduser(directory)
        if os.path.isfile(os.path.join(directory, _SPLITS)):
            content = files.read_json(os.path.join(directory, _SPLITS), {"splits": list})
            splits = ", ".join(f"{spec.rstrip('/')}/{split}" for split in content["splits"])
            raise InputError(f"data source {spec} has several splits: expected {splits}")
        state = os.path.join(directory, _STATE)
        if not os.path.isfile(state):
            raise InputError(
                f"data source {spec}: no {_STATE} there; expected a directory that save_to_disk of "
                "Hugging Face's datasets wrote"
            )
        listed = files.read_json(state, {"_data_files": list})["_data_files"]
        names = [str(file["filename"]) for file in listed]
        opened = [_open(os.path.join(directory, os.path.basename(name))) for name in names]
        if not opened:
            raise InputError(f"data source {spec} has no files")
        super().__init__(spec, opened, _read, _values, mapped=True)


def _open(path: str) -> TableFile:
    name = printable(path)
    try:
        version = os.stat(path).st_mtime_ns
        batches, schema = _batches(path, version)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InputError(
            f"{name} cannot be read as Arrow: {' '.join(str(error).split())}"
        ) from None
    columns = table_columns.columns_of(schema, name)
    return TableFile(path, version, columns, tuple(b.num_rows for b in batches), ())


@functools.lru_cache(OPEN_FILES)
def _batches(path: str, version: int) -> tuple[list[Any], Any]:
    import pyarrow as pa

    # Kept by the process, not by the source, which worker processes get a copy of.
    with pa.ipc.open_stream(pa.memory_map(path)) as stream:
        return list(stream), stream.schema


def _values(file: TableFile, column: str) -> Iterable[Any]:
    batches, _ = _batches(file.path, file.version)
    return [value for batch in batches for value in batch[column].unique().to_pylist()]


def _read(file: TableFile, number: int) -> Any:
    try:
        return _batches(file.path, file.version)[0][number]
    except (OSError, ValueError, IndexError) as error:
        raise Unreadable(f"its file cannot be read: {error}") from None
