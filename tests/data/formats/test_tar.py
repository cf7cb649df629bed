import gzip
import io
import json
import logging
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data import sources
from maskgil_jax.data.formats import tar_shard
from maskgil_jax.data.images import image_decoder
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError, Unreadable


def picture(shade):
    file = io.BytesIO()
    Image.new("L", (8 + int(shade), 9), int(shade)).save(file, "PNG")
    return file.getvalue()


def write(path, members, **options):
    """A tar file of (name, content) members."""
    with tarfile.open(path, "w", **options) as file:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def pairs(first, count):
    """An image, a caption and a class for each number."""
    for i in range(first, first + count):
        yield from [(f"{i:04}.png", picture(i)), (f"{i:04}.txt", f"number {i}")]
        yield f"{i:04}.cls", str(i % 3)


@pytest.fixture
def shards(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i:03}.tar", pairs(5 * i, 5))
    return f"{tmp_path}/{{000..002}}.tar"


def test_images_come_with_captions_and_classes_from_all_shards(shards):
    source = sources.open_source(f"tar:{shards}")
    assert len(source) == 15 and source.class_names == ("0", "1", "2")
    for i in range(15):
        record = source[i]
        assert record.image == picture(i) and record.label == i % 3
        assert image_records.captions_of(record) == (f"number {i}",)
        assert record.id.endswith(f"{i // 5:03}.tar/{i:04}.png")
    with pytest.raises(IndexError):
        source[15]


def test_threads_and_copies_of_the_source_read_the_same(shards):
    source = sources.open_source(f"tar:{shards}")
    order = np.random.default_rng(0).integers(15, size=500)
    copy = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as pool:
        for found in (source, copy):
            read = pool.map(lambda i, s=found: s[i].image, order.tolist())
            assert list(read) == [picture(i) for i in order]


def test_names_of_classes_lie_beside_the_shards(shards, tmp_path):
    (tmp_path / "classnames.txt").write_text("cat\ndog\ngreat white shark\n")
    source = sources.open_source(f"tar:{shards}")
    assert source.class_names == ("cat", "dog", "great white shark")
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="names 2 classes, but an image has class 2"):
        sources.open_source(f"tar:{shards}")


def test_members_of_one_name_belong_together_wherever_they_lie(tmp_path):
    members = [
        ("v1.0/a.png", picture(1)),
        ("v1.0/b.PNG", picture(2)),
        ("v1.0/._a.png", b"what macOS adds"),
        ("v1.0/c.wav", b"no image"),
        ("v2.0/a.png", picture(3)),
        ("v1.0/a.txt", "one"),  # apart from its image, as `tar -r` leaves it
        ("v2.0/a.txt", "three"),
    ]
    source = sources.open_source(f"tar:{write(tmp_path / 'a.tar', members)}")
    assert [source[i].image for i in range(len(source))] == [picture(i) for i in (1, 2, 3)]
    assert image_records.captions_of(source[0]) == ("one",)
    assert image_records.captions_of(source[2]) == ("three",)
    assert source.class_names == (tmp_path.name,)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "f" * 80 + "/", "g" * 50 + "/" + "h" * 90 + "/", "größe/"])
def test_every_form_of_tar_is_read(tmp_path, form, folder):
    members = [(folder + name, content) for name, content in pairs(0, 3)]
    path = write(tmp_path / "a.tar", members, format=form, encoding="utf-8")
    source = sources.open_source(f"tar:{path}")
    assert [source[i].id for i in range(3)] == [f"{path}/{folder}{i:04}.png" for i in range(3)]
    assert source[2].image == picture(2) and image_records.captions_of(source[2]) == ("number 2",)


def test_names_of_any_length_and_a_size_in_a_pax_header(tmp_path):
    name = "d/" * 300 + "x.png"
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo(name)
        info.size = len(picture(5))
        info.pax_headers = {"size": str(info.size), "comment": "two\nlines = one value"}
        file.addfile(info, io.BytesIO(picture(5)))
    source = sources.open_source(f"tar:{tmp_path}/a.tar")
    assert source[0].id.endswith(name) and source[0].image == picture(5)


@pytest.mark.parametrize("said", [2, 2.0, 2e0, "2", " 2\n", "2.0", "002"])
@pytest.mark.parametrize("field", ["label", "cls", "class"])
def test_classes_of_json_are_numbers_however_they_are_written(tmp_path, field, said):
    content = json.dumps({field: said})
    for data in (content.encode(), b"\xef\xbb\xbf" + content.encode()):
        path = write(tmp_path / "a.tar", [("x.png", picture(0)), ("x.json", data)])
        source = sources.open_source(f"tar:{path}")
        assert source[0].label == 2 and source[0].image == picture(0)


@pytest.mark.parametrize("said", [b"2", b"2\n", b" 2.0\r\n", b"\xef\xbb\xbf2"])
def test_classes_of_cls_are_numbers_however_they_are_written(tmp_path, said):
    path = write(tmp_path / "a.tar", [("x.png", picture(0)), ("x.cls", said)])
    assert sources.open_source(f"tar:{path}")[0].label == 2


def test_a_class_may_be_said_by_its_name(tmp_path):
    (tmp_path / "classnames.txt").write_text("cat\ndog\ncrane\ncrane\n")
    members = [("0.png", picture(0)), ("0.json", '{"label": "dog"}')]
    members += [("1.png", picture(1)), ("1.cls", "crane")]  # which of the two?
    source = sources.open_source(f"tar:{write(tmp_path / 'a.tar', members)}")
    assert source[0].label == 1 and source.class_names == ("cat", "dog", "crane", "crane")
    with pytest.raises(Unreadable, match="its class 'crane' is .*, and no name of classnames.txt"):
        image_records.image_of(source[1])


def test_one_unusable_class_does_not_take_the_images_without_any(tmp_path):
    members = [("x.png", picture(0)), ("x.json", '{"class": "cat"}'), ("y.png", picture(1))]
    source = sources.open_source(f"tar:{write(tmp_path / 'a.tar', members)}")
    assert source[1].label == 0 and source[1].image == picture(1)
    with pytest.raises(Unreadable, match="a.tar/x.png: x.json: its class 'cat'"):
        image_records.image_of(source[0])


@pytest.mark.parametrize(
    "content, expected",
    [
        ("\ufefftench\ngoldfish\n".encode(), ("tench", "goldfish")),
        (b"tench\r\ngoldfish\r\n", ("tench", "goldfish")),
        (b"tench\rgoldfish", ("tench", "goldfish")),
        ("tench\u2028a\n goldfish\n\n\n".encode(), ("tench\u2028a", "goldfish")),
    ],
)
def test_names_of_classes_are_lines(tmp_path, content, expected):
    (tmp_path / "classnames.txt").write_bytes(content)
    path = write(tmp_path / "a.tar", [("0.png", picture(0)), ("0.cls", "1")])
    assert sources.open_source(f"tar:{path}").class_names == expected


@pytest.mark.parametrize(
    "content, message",
    [
        ("Kätzchen\nHund\n".encode("latin-1"), "is not UTF-8 at byte 1"),
        ("tench\ngoldfish\n".encode("utf-16"), "is not UTF-8 at byte 0"),
        ("tench\ngoldfish\n".encode("utf-16-le"), "holds NUL characters"),
        (b"tench\n\ngoldfish\n", "line 2 is blank"),
        ("\u200b\ngoldfish\n".encode(), "line 1 is blank"),
    ],
)
def test_names_of_classes_that_would_shift_or_are_no_text_are_refused(tmp_path, content, message):
    (tmp_path / "classnames.txt").write_bytes(content)
    path = write(tmp_path / "a.tar", [("0.png", picture(0)), ("0.cls", "0")])
    with pytest.raises(InputError, match=f"classnames.txt.*{message}"):
        sources.open_source(f"tar:{path}")


def test_names_of_classes_that_no_image_has_are_counted(tmp_path):
    (tmp_path / "classnames.txt").write_text("tench\n")
    source = sources.open_source(f"tar:{write(tmp_path / 'a.tar', [('0.png', picture(0))])}")
    assert source.census.missed() == 1


@pytest.mark.parametrize("field", ["label", "cls", "class"])
def test_json_holds_captions_and_classes(tmp_path, field):
    content = {"caption": "a cat", "url": "u", field: 4}
    path = write(tmp_path / "a.tar", [("x.png", picture(0)), ("x.json", json.dumps(content))])
    source = sources.open_source(f"tar:{path}")
    assert source[0].label == 4 and source.class_names == tuple("01234")
    assert image_records.captions_of(source[0]) == ("a cat",)


@pytest.mark.parametrize(
    "members, reason",
    [
        ([], "no class, as other images have"),
        ([("x.cls", "")], "x.cls: its class '' is no whole number below 100,000"),
        ([("x.cls", "cat")], "x.cls: its class 'cat' is no whole number"),
        ([("x.cls", "-1")], "its class '-1' is no whole number"),
        ([("x.cls", "99999999999999999999")], "its class '9999.*9' is no whole number"),
        ([("x.cls", "1\n2")], "is no whole number"),
        ([("x.cls", "1.5")], "its class '1.5' is no whole number"),
        ([("x.cls", b"\xff\xfe3\0")], "x.cls: its class is not UTF-8 at byte 0"),
        ([("x.json", '{"label": 1.5, "class": "cat"}')], "x.json: its class 1.5 is no whole"),
        ([("x.json", '{"label": 100000}')], "its class 100000 is no whole number"),
        ([("x.json", '{"label": 1e400}')], "its class inf is no whole number"),
        ([("x.json", '{"label": NaN}')], "its class nan is no whole number"),
        ([("x.json", '{"label": true}')], "its class True is no whole number"),
        ([("x.json", '{"cls": [1]}')], r"its class \[1\] is no whole number"),
        ([("x.json", '{"label": null}')], "no class, as other images have"),
        ([("x.json", '{"label": ')], "x.json: its JSON is broken"),
        ([("x.json", '{"label": 1, "label": 2}')], "its JSON is broken: field 'label' comes twice"),
        ([("x.json", '{"label": 1}'.encode("utf-16"))], "x.json: not UTF-8 at byte 0"),
        ([("x.json", '{"label": 1}'.encode("utf-16-le"))], "its JSON is broken"),
        ([("x.json", '{"label": 1}' + " " * 2**20)], "its JSON takes more than 1,048,576 bytes"),
    ],
)
def test_an_image_without_a_usable_class_is_unreadable(tmp_path, members, reason):
    members = [("x.png", picture(0)), *members, ("y.png", picture(1)), ("y.cls", "1")]
    source = sources.open_source(f"tar:{write(tmp_path / 'a.tar', members)}")
    with pytest.raises(Unreadable, match=f"a.tar/x.png: .*{reason}"):
        image_records.image_of(source[0])
    assert source[1].label == 1 and len(source.class_names) == 2


def test_empty_members_are_unreadable_images_and_missing_captions(tmp_path):
    members = [("x.png", b""), ("y.png", picture(1)), ("y.txt", b"")]
    source = sources.open_source(f"tar:{write(tmp_path / 'a.tar', members)}")
    with pytest.raises(Unreadable, match="x.png: an empty file"):
        image_records.image_of(source[0])
    with pytest.raises(Unreadable, match="y.png: it has no caption"):
        image_records.captions_of(source[1])


def block(number):
    return 512 * number  # a header is one block, and so is each image here


def overwrite(content):
    return content[: block(6)] + b"x" * 512 + content[block(7) :]


@pytest.mark.parametrize(
    "damage, whole, message",
    [
        (
            lambda c: c[: block(7) + 3],
            [0, 1, 2],
            "damaged at byte 3,072: a member of .* bytes is cut off",
        ),
        (
            lambda c: c[: block(6) + 3],
            [0, 1, 2],
            "damaged at byte 3,072: no header of a member there",
        ),
        (lambda c: c[: block(6)], [0, 1, 2], "damaged at byte 3,072: it ends without the end mark"),
        (overwrite, [0, 1, 2, 4, 5], "damaged at byte 3,072: no header of a member there"),
        (
            lambda c: c[: block(6)] + bytes(2**21),
            [0, 1, 2],
            "an end mark with 2,097,152 bytes after it",
        ),
    ],
)
def test_what_is_not_damaged_is_used_and_the_rest_is_one_unreadable_image(
    tmp_path, caplog, damage, whole, message
):
    path = write(tmp_path / "a.tar", [(f"{i}.png", picture(i)) for i in range(6)])
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        source = sources.open_source(f"tar:{path}")
    assert [r.message for r in caplog.records if str(path) in r.message]
    assert [source[i].image for i in range(len(whole))] == [picture(i) for i in whole]
    assert len(source) == len(whole) + 1
    with pytest.raises(Unreadable, match=f"a.tar: .*{message}"):
        image_records.image_of(source[len(whole)])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda c: b"", "is empty"),
        (lambda c: c[:300], "no header of a member"),
        (lambda c: b"PK\3\4" + c, "no header of a member"),
        (lambda c: c[: block(1) + 20], "a member of .* bytes is cut off"),
        (gzip.compress, r"is compressed \(gzip\).* unpacked first: run gunzip"),
        (lambda c: bytes(10240), "has no images"),
        (lambda c: b"<html>404</html>" * 99, "no header of a member"),
    ],
)
def test_what_is_no_tar_is_refused_by_name(shards, tmp_path, damage, message):
    path = write(tmp_path / "a.tar", [("0.png", picture(0))])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"a.tar.*{message}"):
        sources.open_source(f"tar:{path}")


def test_a_shard_that_was_cut_after_opening_gives_unreadable_images(tmp_path):
    path = write(tmp_path / "a.tar", [(f"{i}.png", picture(i)) for i in range(3)])
    source = sources.open_source(f"tar:{path}")
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(Unreadable, match="a.tar/2.png: "):
        image_records.image_of(source[2])


def test_more_shards_than_open_files(tmp_path, monkeypatch):
    count = tar_shard.OPEN_FILES + 5
    for i in range(count):
        write(tmp_path / f"{i:03}.tar", [("x.png", picture(0))])
    source = sources.open_source(f"tar:{tmp_path}/*.tar")
    assert len({source[i].id for _ in range(2) for i in range(count)}) == count


def test_many_members_are_found_as_tarfile_finds_them(tmp_path):
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 3000, 200).tolist()
    path = write(tmp_path / "a.tar", [(f"{i}.png", bytes(n)) for i, n in enumerate(sizes)])
    rows = tar_shard.scan(str(path)).rows
    with tarfile.open(path) as file:
        assert rows["image"].tolist() == [member.offset_data for member in file]
    assert rows["image_size"].tolist() == sizes


def test_an_image_of_a_tar_decodes(shards):
    assert image_decoder.decode(sources.open_source(f"tar:{shards}")[3].image).size == (11, 9)
