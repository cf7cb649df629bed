"""Code shards: what is damaged, or cannot be, is left out and named; few files are open at once."""

import json
import os
import pickle
import re
import resource
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from maskgil_jax.conditioning.base import read_class
from maskgil_jax.data import pipeline
from maskgil_jax.data.formats import array_records
from maskgil_jax.data.shards import code_records, shard_index, shard_reader
from maskgil_jax.runtime.errors import InputError, Unreadable
from tests.helpers import tiny_shards
from tests.helpers.tiny_shards import record

TEXT = dict(
    encoder=dict(path="/gemma", fingerprint="1" * 16, width=3),
    caption_tokens=5,
    features="bfloat16",
)


def captioned(number, **changes):
    ids = (np.arange(4, dtype=np.int32), np.arange(2, dtype=np.int32))
    features = tuple(np.ones((len(caption), 3), jnp.bfloat16) for caption in ids)
    return record(number, **(dict(captions=ids, features=features) | changes))


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """300 shards of 2 records."""
    return tiny_shards.write(tmp_path_factory.mktemp("many"), 300, 2)


@pytest.fixture
def few_descriptors():
    """A limit of 64 descriptors beyond those that are open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 64, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_300_shards_are_read_under_a_low_limit(many, few_descriptors):
    before = open_descriptors()
    codes = shard_reader.CodeShards(str(many))
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(600), 3))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: codes[i].id, order))
    assert found == [f"images/{i}.png" for i in order]
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert open_descriptors() - before <= limit // 4 + 1


def test_too_many_open_files_are_no_damage(many):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = many / shard_index.read_index(many)[0].shards[0]
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(InputError, match="Too many open files.*ulimit -n"):
            array_records.count(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_parts_of_files_are_read_under_a_low_limit(many, few_descriptors):
    before = open_descriptors()
    index, _ = shard_index.read_index(many)
    paths = [str(many / name) for name in index.shards]
    parts = pickle.loads(pickle.dumps(array_records.RecordRanges([(path, 1, 1) for path in paths])))
    ids = [msgpack.unpackb(parts[i])["id"] for i in range(300)]
    assert ids == [f"images/{2 * i + 1}.png" for i in range(300)] and len(parts) == 300
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert open_descriptors() - before <= limit // 4 + 1
    with pytest.raises(IndexError):
        parts[300]


def test_shards_are_read_by_other_processes_and_after_they_were_replaced(tmp_path):
    tiny_shards.write(tmp_path, 1, 4)
    first = shard_reader.CodeShards(str(tmp_path))
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(copy[3].codes, first[3].codes)
    tiny_shards.write(tmp_path, records=[[record(7)]])
    assert [r.id for r in map(shard_reader.CodeShards(str(tmp_path)).__getitem__, [0])] == [
        record(7).id
    ]


def test_records_come_back_as_they_were_written(tmp_path):
    names = [captioned(0, id=os.fsdecode(b"\xff.png")), captioned(1)]
    tiny_shards.write(tmp_path, records=[names], **TEXT)
    codes = shard_reader.CodeShards(str(tmp_path))
    for written, found in zip(names, map(codes.__getitem__, range(2)), strict=True):
        np.testing.assert_array_equal(found.codes, written.codes)
        assert (found.label, found.id, found.size) == written[1:4]
        for a, b in zip(written[4] + written[5], found[4] + found[5], strict=True):
            np.testing.assert_array_equal(a, b)


def raw(base, **changes):
    """The bytes of a record with other fields; None drops one."""
    content = msgpack.unpackb(code_records.pack(base))
    changed = {k: v for k, v in (content | changes).items() if v is not None}
    return msgpack.packb(changed)


def uint16s(*values):
    return np.resize(np.array(values, np.uint16), 16).tobytes()


DAMAGED = {
    "not msgpack": b"\xc1garbage",
    "not msgpack (Unpack failed": raw(record(3))[:-5],
    "not msgpack (unpack(b) received extra data": raw(record(3)) + b"x",
    "a list, expected fields by name": msgpack.packb([1, 2]),
    "a int, expected fields": b"\x01",
    "codes is missing": raw(record(3), codes=None),
    "codes is a str, expected bytes": raw(record(3), codes="x" * 32),
    "30 bytes of codes, expected 32": raw(record(3), codes=bytes(30)),
    "64 bytes of codes, expected 32": raw(record(3), codes=bytes(64)),
    "codes from 0 to 60000, expected 0 to 63": raw(record(3), codes=uint16s(0, 60000)),
    "codes from 0 to 64, expected 0 to 63": raw(record(3), codes=uint16s(0, 64)),
    "class 99999, expected 0 to 9": raw(record(3), label=99999),
    "class 10, expected 0 to 9": raw(record(3), label=10),
    "class -1, expected 0 to 9": raw(record(3), label=-1),
    "label is a float": raw(record(3), label=3.0),
    "label is a bool": raw(record(3), label=True),
    "label is a NoneType": msgpack.packb(msgpack.unpackb(raw(record(3))) | {"label": None}),
    "grid [2, 8], expected [4, 4]": raw(record(3), grid=[2, 8]),
    "grid [4, [4]], expected [4, 4]": raw(record(3), grid=[4, [4]]),
    "id is a int": raw(record(3), id=7),
    "size [8], expected": raw(record(3), size=[8]),
    "size [0, 8], expected": raw(record(3), size=[0, 8]),
    "size ['9', 8], expected": raw(record(3), size=["9", 8]),
    "1 captions, expected none": raw(record(3), captions=[bytes(4)]),
    "features of 1 captions, expected of 0": raw(record(3), features=[bytes(4)]),
}
DAMAGED_TEXT = {
    "0 captions, expected some": raw(captioned(3), captions=[], features=[]),
    "a caption is 7 bytes, expected ids of 4": raw(captioned(3), captions=[bytes(7), bytes(8)]),
    "a caption is 0 bytes": raw(captioned(3), captions=[bytes(16), b""]),
    "a caption is 24 bytes, expected ids of 4 bytes each, 20": raw(
        captioned(3), captions=[bytes(24), bytes(8)]
    ),
    "a caption is a str": raw(captioned(3), captions=["text", bytes(8)]),
    "a caption has token id -5": raw(
        captioned(3), captions=[bytes(16), np.array([0, -5], np.int32).tobytes()]
    ),
    "features of 1 captions, expected of 2": raw(captioned(3), features=[bytes(24)]),
    "features of a caption are 22 bytes, expected 24": raw(
        captioned(3), features=[bytes(22), bytes(12)]
    ),
    "features of a caption are a NoneType": raw(captioned(3), features=[None, bytes(12)]),
    "features of a caption are not finite": raw(
        captioned(3), features=[b"\x80\xff" * 12, bytes(12)]
    ),
}


@pytest.mark.parametrize(
    ("make", "reason", "data", "changes"),
    [(record, reason, data, {}) for reason, data in DAMAGED.items()]
    + [(captioned, reason, data, TEXT) for reason, data in DAMAGED_TEXT.items()],
    ids=[*DAMAGED, *DAMAGED_TEXT],
)
def test_a_record_that_cannot_be_is_named_with_its_shard(make, reason, data, changes, tmp_path):
    tiny_shards.write(tmp_path, records=[[make(0)], [make(1), make(2), make(3)]], **changes)
    path = tmp_path / "codes-00001-of-00002.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for content in (raw(make(1)), data, raw(make(3))):
        writer.write(content)
    writer.close()
    codes = shard_reader.CodeShards(str(tmp_path))
    with pytest.raises(Unreadable, match=re.escape(f"{path}, record 1: {reason}")):
        codes[2]
    assert [codes[i].id for i in (0, 1, 3)] == [make(i).id for i in (0, 1, 3)]
    assert codes.lost == 0


def test_codes_of_a_large_codebook_are_checked_too(tmp_path):
    tokenizer = tiny_shards.index().tokenizer | {"codebook_size": 100_000}
    records = [
        record(0, codes=np.full((1, 4, 4), code, np.int32)) for code in (99_999, 100_000, -1)
    ]
    tiny_shards.write(tmp_path, records=[records], tokenizer=tokenizer, dtype="int32")
    codes = shard_reader.CodeShards(str(tmp_path))
    assert codes[0].codes.min() == 99_999
    for number, found in ((1, "from 100000 to 100000"), (2, "from -1 to -1")):
        with pytest.raises(Unreadable, match=f"codes {found}, expected 0 to 99999"):
            codes[number]


def test_random_bytes_are_never_more_than_unreadable():
    rng = np.random.default_rng(0)
    unpacker, whole = code_records.Unpacker(tiny_shards.index(**TEXT)), raw(captioned(3))
    read = 0
    for _ in range(3000):
        data = bytearray(rng.bytes(rng.integers(0, 40)) if rng.random() < 0.3 else whole)
        for _ in range(rng.integers(0, 4)):
            if data:
                data[rng.integers(len(data))] = rng.integers(256)
        try:
            unpacker.record(bytes(data), tiny_shards.GRID)
            read += 1
        except Unreadable:
            pass
    assert 100 < read < 2900


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


LOST = {
    "half": lambda data: data[: len(data) // 2],
    "one byte less": lambda data: data[:-1],
    "empty": lambda data: b"",
    "text": lambda data: b"no shard\n" * 20000,
    "zeros": lambda data: bytes(len(data)),
    "page of a proxy": lambda data: b"<html>",
    "flipped bit of the index": lambda data: flipped(data, len(data) - 65536 + 40),
}


@pytest.mark.parametrize("damage", [*LOST, "missing", "folder"])
def test_a_shard_that_cannot_be_opened_is_left_out_counted_and_named(damage, tmp_path, caplog):
    tiny_shards.write(tmp_path, 3, 64)
    path = tmp_path / "codes-00001-of-00003.array_record"
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(LOST[damage](data))
    codes = shard_reader.CodeShards(str(tmp_path))
    assert len(codes) == 192 and codes.lost == 64
    assert f"{path}: none of 64 examples is used: " in caplog.text
    for i in range(64, 128):
        with pytest.raises(Unreadable, match=re.escape(f"{path}, record {i - 64}: ")):
            codes[i]
    assert codes[63].id == record(63).id and codes[128].id == record(128).id
    assert codes.name(70) == f"{path}, record 6"


def test_a_flipped_bit_costs_one_record(tmp_path):
    tiny_shards.write(tmp_path, 1, 64)
    path = tmp_path / "codes-00000-of-00001.array_record"
    data = path.read_bytes()
    path.write_bytes(flipped(data, data.index(b"images/7.png")))
    codes = shard_reader.CodeShards(str(tmp_path))
    with pytest.raises(Unreadable, match=f"{path}, record 7: .*hash mismatch"):
        codes[7]
    assert [codes[i].id for i in range(64) if i != 7] == [record(i).id for i in range(64) if i != 7]


def npy(header, data=bytes(128)):
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


GRIDS = {
    "50 of 64": (np.zeros(50, np.uint16), "is of 50 records, but codes-.* has 64"),
    "70 of 64": (np.zeros(70, np.uint16), "is of 70 records, but codes-.* has 64"),
    "of another grid": (np.full(64, 1, np.uint16), "has grid 1, but index.json has 1"),
    "int64": (np.zeros(64, np.int64), "is damaged, expected uint16"),
    "two axes": (np.zeros((64, 1), np.uint16), "is damaged, expected uint16"),
    "empty": (b"", "is damaged"),
    "cut": (npy("{'descr': '<u2', 'fortran_order': False, 'shape': (64,)}")[:-1], "is damaged"),
    "text": (b"hello", "is damaged"),
    "29 TiB": (npy("{'descr': '<u2', 'fortran_order': False, 'shape': (2**44,)}"), "is damaged"),
    "numbers": (npy("{'descr': '<u2', 'fortran_order': False, 'shape': (9**13,)}"), "is damaged"),
    "negative": (npy("{'descr': '<u2', 'fortran_order': False, 'shape': (-1,)}"), "is damaged"),
    "nested": (npy("(" * 99), "is damaged"),
    "pickle": (npy("{'descr': '|O', 'fortran_order': False, 'shape': (64,)}"), "is damaged"),
}


@pytest.mark.parametrize("damage", GRIDS)
def test_numbers_of_grids_that_do_not_fit_are_refused(damage, tmp_path):
    tiny_shards.write(tmp_path, 2, 64)
    content, message = GRIDS[damage]
    path = tmp_path / "codes-00001-of-00002.array_record.grids.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(InputError, match=f"{path} {message}.*maskgil_jax.tokenize again"):
        shard_reader.CodeShards(str(tmp_path))


def test_the_count_of_the_index_is_compared_with_the_shards(tmp_path):
    tiny_shards.write(tmp_path, 2, 4)
    content = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(content | {"examples": 9}))
    with pytest.raises(InputError, match="'examples' is 9, but the shards hold 8"):
        shard_reader.CodeShards(str(tmp_path))


SANE = {
    "grids": [[], [[4]], [[3, 4]], [[4, 0]], [[4, "4"]], [[4, 4.0]], [[2, 8]], "4x4"],
    "dtype": ["uint8", "float32", "", 2],
    "class_names": [{}, ["a", 1], "names", None],
    "shards": [[], ["../x"], ["a/b"], ["/etc/passwd"], ["x", "x"], [".."], ["a\0"], [1], {}],
    "tokenizer": [{}, [], {"path": "/vq", "fingerprint": "0"}],
    "features": ["int8", "float32"],
    "views": [0, -1, 1.5, "1", None, True],
    "image_size": [0, "8", 1e400],
    "examples": [-1, "8", None, 8.0],
    "complete": ["yes", 1, None],
    "source": [{}, "folder:x"],
    "encoder": [[], {"width": 3}, None],
}


@pytest.mark.parametrize("field", SANE)
def test_an_index_that_cannot_be_is_refused_with_its_field(field, tmp_path):
    tiny_shards.write(tmp_path, 2, 4)
    path = tmp_path / "index.json"
    content = json.loads(path.read_text())
    for value in SANE[field]:
        path.write_text(json.dumps(content | {field: value}))
        with pytest.raises(InputError, match=f"{path}.*'{field}'"):
            shard_reader.CodeShards(str(tmp_path))
    path.write_text(json.dumps({k: v for k, v in content.items() if k != field}))
    with pytest.raises(InputError, match=f"{path} has no field '{field}'"):
        shard_reader.CodeShards(str(tmp_path))


def test_a_lost_shard_of_many_records_does_not_end_training(tmp_path):
    """The next readable example may be thousands of records away."""
    tiny_shards.write(tmp_path, 2, 300)
    (tmp_path / "codes-00000-of-00002.array_record").write_bytes(b"")
    codes = shard_reader.CodeShards(str(tmp_path))
    load = pipeline.code_loader(codes, codes.grids, read_class)
    found = [load(i, np.random.default_rng(0)) for i in range(600)]
    unreadable = [int(example["unreadable"]) for example in found]
    assert unreadable == [*range(300), *[-1] * 300]
    again = load(5, np.random.default_rng(0))
    np.testing.assert_array_equal(again["codes"], found[5]["codes"])
    assert len({example["codes"].tobytes() for example in found[:300]}) > 100


def test_a_size_of_which_nothing_can_be_read_is_an_error(tmp_path):
    grids = ((4, 4), (2, 8))
    records = [[record(0)], [record(1, (2, 8)), record(2, (2, 8))]]
    tiny_shards.write(tmp_path, records=records, grids=grids, buckets="lumina")
    (tmp_path / "codes-00001-of-00002.array_record").write_bytes(b"")
    codes = shard_reader.CodeShards(str(tmp_path))
    load = pipeline.code_loader(codes, codes.grids, read_class)
    assert load(0, np.random.default_rng(0))["unreadable"] == -1
    with pytest.raises(InputError, match="2 examples of one size cannot be read.*00001-of-00002"):
        load(1, np.random.default_rng(0))


def test_what_can_be_read_is_given_and_the_rest_named(tmp_path, caplog):
    records = [record(0), record(1, label=10), record(2)]
    tiny_shards.write(tmp_path, records=[records])
    codes = shard_reader.CodeShards(str(tmp_path))
    assert [index for index, _ in shard_reader.readable(codes, [0, 1, 2])] == [0, 2]
    assert "record 1: class 10" in caplog.text
    with pytest.raises(InputError, match="none of 1 examples can be read, .* record 1"):
        shard_reader.readable(codes, [1])


def test_a_file_is_read_as_it_was_opened(tmp_path):
    tiny_shards.write(tmp_path, 1, 2)
    path = str(tmp_path / "codes-00000-of-00001.array_record")
    assert array_records.count(path) == 2
    with pytest.raises(Unreadable, match="out? of range|of range"):
        array_records.read(path, "a", 2)
    with pytest.raises(Unreadable, match="No such file"):
        array_records.count(f"{path}.gone")
