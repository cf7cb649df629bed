"""Records of ArrayRecord files by their number, with a bounded number of files open.

ArrayRecord keeps a checksum of each record and of what finds them, so that damage is noticed.
"""

import bisect
import collections
import errno
import itertools
import os
import resource
import threading
import uuid
from collections.abc import Sequence

from array_record.python.array_record_module import ArrayRecordReader

from maskgil_jax.runtime.errors import InputError, Unreadable

MOST_OPEN = 4096  # files; each takes some 50 KB of memory
FOR_OTHERS = 512  # descriptors


def read(path: str, version: str, number: int) -> bytes:
    """One record, from any thread.

    Args:
      path: of the file.
      version: of the file; one that was opened as another version is opened again.
      number: of the record.

    Raises:
      Unreadable: it is damaged, or the file is.
      InputError: the process has too many files open.
    """
    reader = _readers.get(path, version)  # held until the read is done, or it may be closed
    try:
        return reader.read(number, number + 1)[0]  # faster than read([number])
    except (RuntimeError, IndexError) as error:
        raise Unreadable(_reason(error)) from None


def count(path: str) -> int:
    """Number of records of a file.

    Raises:
      Unreadable: there is no such file, it is something else, or what finds its records is damaged.
    """
    return _open(path).num_records()


class RecordRanges:
    """Records of ranges of several files, one after the other.

    Args:
      ranges: path of a file, number of its first record, and number of records, of each.
    """

    def __init__(self, ranges: Sequence[tuple[str, int, int]]):
        self._ranges = ranges
        self._ends = list(itertools.accumulate(count for _, _, count in ranges))
        self._version = uuid.uuid4().hex  # what is opened from now on

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """A record; Unreadable as `read`."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        path, first, count = self._ranges[number]
        return read(path, self._version, first + index - (self._ends[number] - count))


def _open(path: str) -> ArrayRecordReader:
    # No readahead: records are read in any order.
    reader = ArrayRecordReader(
        path, options="readahead_buffer_size:0", file_reader_buffer_size=32768
    )
    if reader.ok():
        return reader
    reason = ""
    try:
        reader.close()  # which tells what is wrong, if not always
    except RuntimeError as error:
        reason = _reason(error)
    if os.strerror(errno.EMFILE) in reason:  # which says nothing of this file
        raise InputError(f"{path}: {reason}; allow more (ulimit -n)")
    raise Unreadable(reason or "not a complete ArrayRecord file")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


class _Readers:
    """The files of this process that were read last.

    FOR_OTHERS descriptors of those that the process may have, or three quarters of few, are left
    for everything else; what is evicted is closed once no thread reads it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[tuple[str, str], ArrayRecordReader]
        self._open = collections.OrderedDict()

    def get(self, path: str, version: str) -> ArrayRecordReader:
        key = path, version
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        opened = _open(path)
        with self._lock:
            reader = self._open.setdefault(key, opened)
            while len(self._open) > _bound():
                self._open.popitem(last=False)
            return reader


def _bound() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_OPEN
    return min(max(limit - FOR_OTHERS, limit // 4, 1), MOST_OPEN)


_readers = _Readers()  # of the process, since so is the limit; worker processes have their own
