"""Arrays of others: what is true is read, what lies is refused by name."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest

from maskgil_jax.runtime import npy, npz
from maskgil_jax.runtime.errors import InputError, Unreadable


def header(shape="(40, 2)", descr="'|u1'", by_column="False", version=1, pad=0):
    text = f"{{'descr': {descr}, 'fortran_order': {by_column}, 'shape': {shape}, }}".ljust(pad)
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin-1")


def read(data):
    return npy.read_npy(io.BytesIO(data), len(data))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["tench", "Füchse", "😀"]),
        np.array(["a", "b"]).astype(">U1"),
        np.array("net"),
        np.array([True, False]),
        np.zeros((0, 3)),
        np.arange(3, dtype=">f4"),
    ],
)
def test_arrays_are_read_as_numpy_reads_them(array):
    file = io.BytesIO()
    np.save(file, array)
    found = read(file.getvalue())
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_a_header_of_python_2_and_one_of_version_3_are_read():
    assert read(header("(2L, 3L)") + bytes(6)).shape == (2, 3)
    assert read(header("(2,)", version=2) + bytes(2)).shape == (2,)
    assert read(header("(2,)", version=3) + bytes(2)).shape == (2,)


@pytest.mark.parametrize(
    "data, message",
    [
        (header("(40, ") + bytes(80), "a header that is not one of NumPy's"),
        (header("(" * 4000) + bytes(80), "a header that is not one of NumPy's"),
        (header(descr="__import__('os')") + bytes(80), "a header that is not one of NumPy's"),
        (header("(8589934592, 3728)") + bytes(80), "are 32,023,276,158,976 bytes, and holds 80"),
        (header("(10000000000000000000000, 9)"), "bytes, and holds 0"),
        (header("(-1, 2)") + bytes(80), r"shape \(-1, 2\), expected numbers of 0 or more"),
        (header("(40.0, 2)") + bytes(80), "expected numbers of 0 or more"),
        (header("(True,)") + bytes(80), "expected numbers of 0 or more"),
        (header(by_column="0") + bytes(80), "fortran_order 0, expected True or False"),
        (header(descr="'|O'") + bytes(640), "pickled array, which could execute anything; refused"),
        (header(descr="'<V2'") + bytes(160), "dtype |V2, expected numbers or texts"),
        (header(descr="[('a', '<f4')]") + bytes(320), "expected numbers or texts"),
        (header("(999999999999,)", "'<U0'"), "expected numbers or texts"),
        (header("(1,)", "'<U1'") + b"\xff\xff\xff\xff", "texts of characters that there are not"),
        (header() + bytes(79), "are 80 bytes, and holds 79"),
        (header() + bytes(81), "goes on after its 80 bytes"),
        (header()[:30], "ends in its header"),
        (header(pad=20_000) + bytes(80), "a header of 20,000 bytes"),
        (b"\x93NUMPY\7\0" + header()[8:], "version 7 of NumPy's format"),
        (b"", "does not start as an array"),
        (b"\x80\x04\x95pickle", "does not start as an array"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_asked_for(data, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        read(data)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")  # opening it would wait for a writer
    for path, kind in (
        (tmp_path / "pipe.npy", "pipe"),
        (tmp_path, "folder"),
        ("/dev/zero", "device"),
    ):
        with pytest.raises(Unreadable, match=f"is a {kind}, expected a regular file"):
            npy.read_file(path)
        with pytest.raises(InputError, match=f"{path} is a {kind}, expected a regular file"):
            npz.read_arrays(str(path))


GOOD = np.arange(2000, dtype=np.float32)


def saved(path, compressed=False):
    (np.savez_compressed if compressed else np.savez)(path, a=GOOD)
    return bytearray(path.read_bytes())


def patched(path, fields):
    """Bytes at these places of the local and of the central header of the first member."""
    data = saved(path, compressed=True)
    for magic, places in ((b"PK\3\4", 0), (b"PK\1\2", 1)):
        start = data.find(magic)
        for place, value in fields[places]:
            data[start + place : start + place + len(value)] = value
    path.write_bytes(data)


def two(value):
    return struct.pack("<H", value)


LIES = {
    "compression 99": ([[(8, two(99))], [(10, two(99))]], "compressed by method 99, expected 0"),
    "bzip2": ([[(8, two(12))], [(10, two(12))]], "compressed by method 12, expected 0"),
    "encrypted": ([[(6, two(1))], [(8, two(1))]], "a is encrypted"),
    "patched": ([[(6, two(32))], [(8, two(32))]], "compressed patched data"),
    "newer zip": ([[(4, two(99))], [(6, two(99))]], "zip file version 9.9"),
    "checksum": ([[(14, b"abcd")], [(16, b"abcd")]], "Bad CRC-32"),
    "another size": ([[(22, b"\xff\0\0\0")], [(24, b"\xff\0\0\0")]], "Bad CRC-32"),
    "4 GiB": ([[], [(24, b"\xfe\xff\xff\xff")]], "to 4,294,967,294 bytes, which no computed array"),
}


@pytest.mark.parametrize("case", LIES)
def test_members_that_lie_are_refused_with_the_file_and_the_reason(case, tmp_path):
    fields, message = LIES[case]
    patched(tmp_path / "x.npz", fields)
    with pytest.raises(InputError, match=f"x.npz is not an npz that is whole: .*{message}"):
        npz.read_arrays(str(tmp_path / "x.npz"))


def test_what_expands_a_thousandfold_to_gigabytes_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "BOMB_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1 << 21, np.uint8), b=np.zeros(9))
    with pytest.raises(InputError, match=r"x.npz .* a expands from [\d,]+ to 2,097,280 bytes"):
        npz.read_arrays(str(tmp_path / "x.npz"))
    assert npz.read_arrays(str(tmp_path / "x.npz"), ["b"])["b"].shape == (9,)


def test_a_member_twice_and_what_is_no_array(tmp_path):
    file = io.BytesIO()
    np.save(file, GOOD)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", file.getvalue())
        archive.writestr("readme.txt", "no array")
    assert list(npz.read_arrays(str(tmp_path / "x.npz"))) == ["a"]
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "x.npz", "a") as archive,
    ):
        archive.writestr("a.npy", file.getvalue())
    with pytest.raises(InputError, match="x.npz is not an npz that is whole: it holds a.npy 2"):
        npz.read_arrays(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("keep", [0, 3, 100, 4000, 8100, 8200])
def test_a_file_that_was_cut_is_refused(keep, tmp_path):
    (tmp_path / "x.npz").write_bytes(saved(tmp_path / "x.npz")[:keep])
    with pytest.raises(InputError, match="x.npz is not an npz that is whole: "):
        npz.read_arrays(str(tmp_path / "x.npz"))
