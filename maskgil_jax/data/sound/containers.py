"""Audio containers checked for what libsndfile passes over: unset sizes, cuts and joined files.

libsndfile reads up to where a header says that a file ends, and ignores what comes behind.
"""

import struct
from collections.abc import Callable, Iterator

ENDLESS = 0x7FFF0000  # from here on: what writers of streams say, who do not know the size
CHUNK = 8  # bytes before the content of a chunk: its name and size
HEADER = 24  # bytes that hold the sizes below

# Bytes that a file should have, of kinds that say so at their beginning: AIFF, AU, W64.
WRITTEN_SIZES: dict[bytes, Callable[[bytes], int]] = {
    b"FORM": lambda data: CHUNK + int.from_bytes(data[4:8], "big"),
    b".snd": lambda data: sum(struct.unpack_from(">II", data, 4)),
    b"riff": lambda data: int.from_bytes(data[16:24], "little"),
}


def streams(data: bytes) -> list[bytes]:
    """Files of which each is one whole stream of sound; most files are one already.

    Raises:
      ValueError: a file that is cut, or that goes on behind its end; says so.
    """
    kind = data[:4]
    if kind in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return [_wav(data)]
    if kind in WRITTEN_SIZES and len(data) >= HEADER:
        _check_size(data, WRITTEN_SIZES[kind](data))
    if kind == b"OggS":
        return list(_links(data))
    if kind == b"fLaC" and (second := data.find(b"fLaC", 4)) > 0:
        raise ValueError(f"several files joined to one: the second starts at byte {second:,}")
    _check_mp3(data)
    return [data]


def _check_size(data: bytes, size: int) -> None:
    if len(data) + 1 < size < ENDLESS:  # some leave the last byte of padding out
        raise ValueError(f"truncated: {len(data)} bytes of {size}")


def _wav(data: bytes) -> bytes:
    """The same sound as RIFF, with sizes in its header that are true."""
    content, large = bytearray(data), 0
    size = int.from_bytes(data[4:8], "little")
    if data.startswith(b"RIFF"):
        _check_size(data, size + CHUNK)
    at = 12
    while at + CHUNK <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"ds64" and at + 24 <= len(data):  # the 64 bit sizes of RF64
            (large,) = struct.unpack_from("<Q", data, at + CHUNK + 8)
            content[at : at + 4] = b"JUNK"
        if name == b"data":
            size = _size_of_sound(data, at + CHUNK, large if size == 0xFFFFFFFF and large else size)
            struct.pack_into("<I", content, at + 4, size)
            break
        at += CHUNK + size + size % 2
    content[:8] = b"RIFF" + struct.pack("<I", min(len(data) - CHUNK, 0xFFFFFFFF))
    return bytes(content)


def _size_of_sound(data: bytes, start: int, claimed: int) -> int:
    rest = len(data) - start
    if claimed >= ENDLESS and claimed > rest:
        return rest
    if claimed > rest:
        raise ValueError(f"truncated: {rest} bytes of sound of {claimed}")
    behind = data[start + claimed + claimed % 2 :]
    if len(behind) <= max(claimed, CHUNK) or _is_chunk(behind):
        return claimed
    if claimed:
        raise ValueError(f"says {claimed} bytes of sound, behind which are {len(behind)} others")
    return rest


def _is_chunk(data: bytes) -> bool:
    name, size = struct.unpack_from("<4sI", data)
    return name.rstrip(b" ").isalnum() and size <= len(data) - CHUNK


def _links(data: bytes) -> Iterator[bytes]:
    """The streams of a chained Ogg file, one after the other (RFC 3533, 4)."""
    start, ended, only_beginnings = 0, False, True
    at = 0
    while at >= 0:
        flags, end = _page(data, at)
        if flags & 2 and not only_beginnings:
            if not ended:
                raise ValueError("truncated: Ogg that goes on without the last page of its stream")
            yield data[start:at]
            start, ended, only_beginnings = at, False, True
        only_beginnings = only_beginnings and bool(flags & 2)
        ended = bool(flags & 4) and end <= len(data)
        at = data.find(b"OggS", end)
    if not ended:
        raise ValueError(f"truncated: {len(data)} bytes of Ogg without its last page")
    yield data[start:]


def _page(data: bytes, at: int) -> tuple[int, int]:
    """Flags of a page, and where it ends: beyond the data where it is cut (RFC 3533, 6)."""
    header = data[at : at + 27]
    segments = data[at + 27 : at + 27 + header[26]] if len(header) == 27 else b""
    if len(header) < 27 or len(segments) < header[26]:
        return 0, len(data) + 1
    return header[5], at + 27 + len(segments) + sum(segments)


def _check_mp3(data: bytes) -> None:
    """Refuse MP3 files that were joined, of which the first says how long it is."""
    start = 0
    if data.startswith(b"ID3") and len(data) > 10:
        size = 0
        for byte in data[6:10]:
            size = size << 7 | byte & 0x7F
        start = 10 + size
    tag = max(data.find(name, start, start + 64) for name in (b"Xing", b"Info"))
    if data[start : start + 1] != b"\xff" or tag < 0 or tag + 16 > len(data):
        return
    flags, *values = struct.unpack_from(">3I", data, tag + 4)
    if flags & 3 == 3 and _is_frame(data, end := start + values[1]):
        raise ValueError(f"several files joined to one: the second starts at byte {end:,}")


def _is_frame(data: bytes, at: int) -> bool:
    return data[at : at + 3] == b"ID3" or (data[at : at + 1] == b"\xff" and data[at + 1] >= 0xE0)
