"""Headers of tar files, honest ones against the standard library, and others."""

import io
import os
import tarfile

import numpy as np
import pytest

from maskgil_jax.data import sources
from maskgil_jax.data.formats.tar_headers import FILE, members
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError, Unreadable

FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
# Without AREGTYPE, which tarfile takes for a folder where a long name is cut after a slash.
TYPES = [
    tarfile.REGTYPE,
    tarfile.CONTTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
]


def read(path):
    """The members of a tar."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(members(descriptor))
    finally:
        os.close(descriptor)


def random_name(rng):
    letters = list("abc 1.-_é日\\")
    parts = ["".join(rng.choice(letters, rng.integers(1, 30))) for _ in range(rng.integers(1, 9))]
    return "/".join(part.replace(".", "x.", 1) for part in parts)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", range(8))
def test_random_tars_are_read_as_tarfile_reads_them(tmp_path, form, seed):
    rng = np.random.default_rng(seed)
    encoding = ["utf-8", "latin-1"][seed % 2]
    path = tmp_path / "a.tar"
    with tarfile.open(
        path, "w", format=FORMATS[form], encoding=encoding, errors="replace"
    ) as archive:
        for _ in range(60):
            info = tarfile.TarInfo(random_name(rng))
            info.type = TYPES[rng.choice(len(TYPES), p=[0.5, *[0.5 / 6] * 6])]
            if info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
                info.linkname = random_name(rng)
            data = rng.bytes(rng.choice([0, 1, 511, 512, 513, 5000])) if info.isreg() else b""
            info.size = len(data)
            if form == "pax" and rng.random() < 0.3:
                info.pax_headers = {"comment": "a=b\n" * rng.integers(300)}
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # too long a name for ustar
                continue
    found = read(path)
    with tarfile.open(path) as archive:  # UTF-8, other bytes as os.fsdecode keeps them
        expected = list(archive)
    assert len(found) == len(expected) > 10
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.name == theirs.name and ours.target == theirs.linkname
        assert (ours.kind == FILE) == theirs.isreg()
        if theirs.isreg():
            assert (ours.start, ours.size) == (theirs.offset_data, theirs.size)


def member(
    name=b"0.png", data=b"image", kind=b"0", size=None, magic=b"ustar\0" + b"00", signed=False
):
    """A header with these fields, and its data; a size in bytes is taken as it is."""
    size = b"%011o\0" % len(data) if size is None else size
    fields = [
        (0, name),
        (100, b"0000644\0"),
        (124, size),
        (148, b" " * 8),
        (156, kind),
        (257, magic),
    ]
    header = bytearray(512)
    for start, value in fields:
        header[start : start + len(value)] = value
    total = sum(byte - 256 * (signed and byte > 127) for byte in header)
    header[148:156] = b"%06o\0 " % total
    return bytes(header) + data + bytes(-len(data) % 512)


def pax(*records, kind=b"x"):
    data = b""
    for record in records:
        length = len(record) + 2  # with its blank and newline
        length += len(str(length + len(str(length))))
        data += b"%d %s\n" % (length, record)
    return member(b"PaxHeaders/0", data, kind)


END = bytes(1024)


def opened(folder, *parts):
    (folder / "a.tar").write_bytes(member(b"first.png") + b"".join(parts) + END)
    return sources.open_source(f"tar:{folder}/a.tar")


@pytest.mark.parametrize(
    "parts, name",
    [
        ([member()], "0.png"),
        ([member(magic=b"")], "0.png"),  # of V7
        ([member(kind=b"\0")], "0.png"),
        ([member(kind=b"7")], "0.png"),
        ([member(size=b"        5 \0")], "0.png"),
        ([member(size=b"5\0rubbish")], "0.png"),
        ([member(size=b"\x80" + bytes(10) + b"\5")], "0.png"),
        ([member(name=b"\xe9.png", signed=True)], r"\\xe9.png"),
        ([member(name=b"0.png\0rubbish.txt")], "0.png"),
        ([member(b"././@LongLink", b"long.png\0rubbish", b"L"), member()], "long.png"),
        ([pax(b"path=long.png"), member()], "long.png"),
        ([pax(b"path=long.png", kind=b"X"), member()], "long.png"),
        ([pax(b"path=a\0b.png"), member()], r"a\\x00b.png"),
        ([pax(b"hdrcharset=BINARY", b"path=\xe9.png"), member()], r"\\xe9.png"),
        ([pax(b"path=", b"size="), member()], "0.png"),
        ([pax(b"size=5"), member(size=b"0" * 11 + b"\0")], "0.png"),
        ([pax(b"comment=2f3a", b"mtime=-1.5", kind=b"g"), member()], "0.png"),
    ],
)
def test_unusual_headers_are_read(tmp_path, parts, name):
    source = opened(tmp_path, *parts, member(b"last.png"))
    assert [source[i].image for i in range(3)] == [b"image"] * 3 and len(source) == 3
    assert source[1].id.endswith(f"a.tar/{name}".replace("\\\\", "\\"))


@pytest.mark.parametrize(
    "parts, message",
    [
        ([member(size=b"-0000000005\0")], "no header of a member"),
        ([member(size=b"0000000_5\0")], "no header of a member"),
        ([member(size=b"00000000009\0")], "no header of a member"),
        ([member(size=b"\xff" * 12)], "no header of a member"),
        ([member(size=b"\x80" + b"\x7f" * 11)], "a member of [0-9,]+ bytes is cut off"),
        ([member(size=b"77777777777\0")], "a member of 8,589,934,591 bytes is cut off"),
        ([pax(b"size=9"), member()], "a member of 9 or of 5 bytes: its headers differ"),
        ([pax(b"size=0"), member()], "a member of 0 or of 5 bytes: its headers differ"),
        ([pax(b"size=-5"), member()], "with b'-5' as a size"),
        ([pax(b"size=5.0"), member()], "as a size"),
        ([pax(b"size=" + b"9" * 5000), member()], "as a size"),
        ([pax(b"size=99999999999"), member(size=b"0\0")], "is cut off"),
        ([member(b"x", b"99 path=0.png\n", b"x"), member()], "a broken extended header"),
        ([member(b"x", b"5 path=0.png\n", b"x"), member()], "a broken extended header"),
        ([member(b"x", b"-9 path=a\n", b"x"), member()], "a broken extended header"),
        ([member(b"x", b"9" * 5000 + b" path=a\n", b"x"), member()], "a broken extended header"),
        ([member(b"x", b"no record", b"x"), member()], "a broken extended header"),
        ([member(b"x", b"11 path=a.pngb", b"x"), member()], "a broken extended header"),
        ([pax(b"path=x.png"), bytes(512)], "an extended header without a member"),
        ([pax(b"path=x.png", kind=b"g"), member()], "gives all members one name"),
        ([pax(b"size=7", kind=b"g"), member()], "gives all members one name or size"),
        ([member(b"x", bytes(2**20 + 1), b"x"), member()], "an extended header of 1048577 bytes"),
    ],
)
def test_members_of_headers_that_lie_are_left_out_and_the_others_are_read(tmp_path, parts, message):
    source = opened(tmp_path, *parts, member(b"last.png"))
    found = {source[i].id.removeprefix(f"{tmp_path}/a.tar/"): i for i in range(len(source))}
    assert list(found)[:2] == ["first.png", "last.png"] and len(found) == 3
    assert source[0].image == source[1].image == b"image"
    with pytest.raises(Unreadable, match=f"a.tar: damaged at byte [0-9,]+: .*{message}"):
        image_records.image_of(source[2])


@pytest.mark.parametrize("cut", [1024 + 100, 1024, 2**20 - 700])
def test_a_tar_joined_with_one_that_was_cut_off_is_found(tmp_path, cut):
    large = member(data=bytes(2**20))
    first = (member(b"first.png") + member(b"lost.txt") + large)[:cut]
    (tmp_path / "a.tar").write_bytes(
        first + bytes(100) + member(b"a.png") + member(b"last.png") + END
    )
    source = sources.open_source(f"tar:{tmp_path}/a.tar")
    images = {source[i].id.rpartition("/")[2]: source[i] for i in range(len(source))}
    assert images["first.png"].image == images["last.png"].image == b"image"
    assert images["a.tar"].fault.startswith("damaged at byte")


def test_a_tar_that_begins_with_a_lie_is_read_from_the_next_header_on(tmp_path):
    data = pax(b"size=77") + member() + member(b"last.png") + END
    (tmp_path / "a.tar").write_bytes(data)
    source = sources.open_source(f"tar:{tmp_path}/a.tar")
    assert source[0].image == b"image" and "headers differ" in source[1].fault


def sparse_map(*, more):
    """A GNU header of an old sparse member, and the blocks of its map that follow."""
    header = bytearray(member(b"0.png", b"", b"S", magic=b"ustar  \0"))
    header[482] = more
    header[124:136] = b"%011o\0" % 5
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    blocks = b"".join(bytes(504) + bytes([i + 1 < more]) + bytes(7) for i in range(more))
    return bytes(header[:512]) + blocks + b"image" + bytes(507)


@pytest.mark.parametrize(
    "parts, fault",
    [
        ([sparse_map(more=0)], "a sparse file"),
        ([sparse_map(more=1)], "a sparse file"),
        ([sparse_map(more=3)], "a sparse file"),
        ([pax(b"GNU.sparse.major=1", b"GNU.sparse.name=0.png"), member(b"x/0")], "a sparse file"),
        ([member(kind=b"M")], "a rest of a file that another volume begins"),
        ([member(kind=b"Z")], "a member of kind b'Z'"),
        ([member(kind=b"6", data=b"", size=b"777\0")], "a pipe"),
    ],
)
def test_images_of_other_kinds_are_left_out_and_what_follows_is_read(tmp_path, parts, fault):
    source = opened(tmp_path, *parts, member(b"last.png"))
    assert len(source) == 3 and source[2].image == b"image"
    with pytest.raises(Unreadable, match=f"a.tar/0.png: {fault}$"):
        image_records.image_of(source[1])


def test_folders_of_old_tars_are_folders(tmp_path):
    source = opened(tmp_path, member(b"0.png/", b"", b"\0"), member(b"0.png/1.png"))
    assert [source[i].image for i in range(len(source))] == [b"image"] * 2


def test_random_bytes_in_headers_never_escape(tmp_path):
    rng = np.random.default_rng(0)
    whole = b"".join(
        [member(b"0.png"), pax(b"path=1.png", b"size=5"), member(), member(b"0.cls", b"1"), END]
    )
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 8)):
            data[place] = rng.integers(256)
        for start in range(0, len(data) - 511, 512):  # so that the checksums are right
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        (tmp_path / "a.tar").write_bytes(data[: rng.integers(1, len(data) + 1)])
        try:
            source = sources.open_source(f"tar:{tmp_path}/a.tar")
        except InputError:
            continue
        for i in range(len(source)):
            record = source[i]
            record.id.encode()
            assert record.fault or record.image is not None
