import json
import os
import socket

import pytest
from PIL import Image

from maskgil_jax.data import sources
from maskgil_jax.data.images import image_decoder
from maskgil_jax.data.records import image_records
from maskgil_jax.data.records.file_names import original
from maskgil_jax.runtime.errors import InputError, Unreadable


def test_a_folder_gives_sorted_classes_and_finds_nested_images(tmp_path):
    for path in ("dog/a.JPG", "dog/deep/b.png", "cat/c.webp", "cat/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("txt"):
            (tmp_path / path).write_text("no image")
        else:
            Image.new("RGB", (9, 9), "red").save(tmp_path / path)
    (tmp_path / "empty").mkdir()
    source = sources.open_source(f"folder:{tmp_path}")
    assert source.class_names == ("cat", "dog", "empty") and len(source) == 3
    assert [source[i].label for i in range(3)] == [0, 1, 1]
    assert image_decoder.decode(source[1].image).size == (9, 9)
    assert source[2].id.endswith("b.png")


def test_a_flat_folder_is_one_class(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert sources.open_source(f"folder:{tmp_path}").class_names == (tmp_path.name,)


def test_loose_images_beside_classes_are_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("cat/a.png", "b.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    with pytest.raises(InputError, match="1 images lie beside 1 class folders"):
        sources.open_source(f"folder:{tmp_path}")


def test_captions_lie_beside_images_and_are_read_on_demand(tmp_path):
    for name in "abc":
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "a.txt").write_text("a red dog\n\n  two dogs \n")
    (tmp_path / "b.json").write_text(json.dumps({"caption": "a cat", "captions": ["two", "cats"]}))
    source = sources.open_source(f"folder:{tmp_path}")
    assert len(source) == 3
    assert image_records.captions_of(source[0]) == ("a red dog", "two dogs")
    assert image_records.captions_of(source[1]) == ("a cat", "two", "cats")
    with pytest.raises(Unreadable, match="c.jpg: it has no caption"):
        image_records.captions_of(source[2])
    (tmp_path / "a.txt").write_text("a blue dog")  # after opening
    assert image_records.captions_of(source[0]) == ("a blue dog",)


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"a.txt": "", "a.json": '{"caption": "a cat"}'}, ("a cat",)),
        ({"a.txt": "\u200b\n", "a.json": '{"caption": "a cat"}'}, ("a cat",)),
        ({"a.TXT": "a dog"}, ("a dog",)),
        ({"a.txt": "", "a.JSON": '{"caption": "a cat"}'}, ("a cat",)),
    ],
)
def test_the_first_file_with_a_caption_counts(tmp_path, files, expected):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    source = sources.open_source(f"folder:{tmp_path}")
    assert image_records.captions_of(source[0]) == expected


def test_captions_that_are_no_regular_file_are_named_and_not_waited_for(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "a.txt")
    source = sources.open_source(f"folder:{tmp_path}")
    with pytest.raises(Unreadable, match="a.jpg: its a.txt is a pipe, expected a regular file"):
        image_records.captions_of(source[0])


def test_an_image_that_went_away_is_unreadable(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    source = sources.open_source(f"folder:{tmp_path}")
    (tmp_path / "a.png").unlink()
    with pytest.raises(Unreadable, match="a.png: No such file"):
        image_records.image_of(source[0])


def test_a_file_name_that_is_not_utf8_still_gives_a_printable_id(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (9, 9)).save(os.path.join(tmp_path, name), "PNG")
    record = sources.open_source(f"folder:{tmp_path}")[0]
    assert record.id.endswith("caf\\xe9.png") and record.id.isascii()


COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(path, color="red", kind=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", (16, 16), color).save(path, kind)


def folder_of(path, *names):
    for name in names:
        picture(path / name, kind="PNG")
    return path


def opened(path):
    return sources.open_source(f"folder:{path}")


def read(source):
    """Class, name below the class and colour of each image, or its fault."""
    found = []
    for record in map(source.__getitem__, range(len(source))):
        name = source.class_names[record.label]
        try:
            pixel = image_records.image_of(record).getpixel((0, 0))
            color = min(
                COLORS, key=lambda c: sum(abs(a - b) for a, b in zip(pixel, COLORS[c], strict=True))
            )
        except Unreadable as error:
            color = str(error).rpartition(": ")[2]
        found.append((name, color))
    return found


LEFT_BY_SYSTEMS = (
    *(".ipynb_checkpoints", ".git", "@eaDir", "__MACOSX", ".Trash-1000", "$RECYCLE.BIN"),
    *("$Recycle.Bin", "System Volume Information", "#recycle", "lost+found", ".AppleDouble"),
)


@pytest.mark.parametrize("name", LEFT_BY_SYSTEMS)
def test_folders_of_systems_are_no_classes_at_any_depth(name, tmp_path):
    folder_of(tmp_path, "cat/a.png", "dog/a.png", f"{name}/a.png", f"dog/deep/{name}/a.png")
    source = opened(tmp_path)
    assert source.class_names == ("cat", "dog") and len(source) == 2
    (entry,) = source.census.passed_over.values()
    assert sorted(entry.names) == sorted([name, f"dog/deep/{name}"]) and not entry.is_data
    assert name in "\n".join(source.census.summary())


def test_files_of_systems_are_no_images_and_no_data(tmp_path):
    folder_of(tmp_path, "cat/a.png")
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "README.txt", "LICENSE"):
        (tmp_path / "cat" / name).write_bytes(b"\0")
    source = opened(tmp_path)
    assert len(source) == 1 and source.census.missed() == 0
    assert image_records.image_of(source[0]).size == (16, 16)
    assert sum(entry.count for entry in source.census.passed_over.values()) == 6


READABLE = {"jfif": "JPEG", "JPE": "JPEG", "pjpeg": "JPEG", "bmp": "BMP", "GIF": "GIF"}
SUFFIXES = (*READABLE, "tif", "TIFF", "avif", "heic", "HEIF", "svg", "jxl", "ico")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whatever_is_called_like_an_image_is_one_whether_it_can_be_read_or_not(suffix, tmp_path):
    folder_of(tmp_path, "cat/a.png", "dog/a.png", "cow/a.png")
    if suffix in READABLE:
        picture(tmp_path / f"cow/a.{suffix}", "green", READABLE[suffix])
    else:
        (tmp_path / f"cow/a.{suffix}").write_bytes(b"neither this nor another image")
    (tmp_path / "cow/a.png").unlink()
    source = opened(tmp_path)
    assert source.class_names == ("cat", "cow", "dog") and source.census.missed() == 0
    assert [source[i].label for i in range(3)] == [0, 1, 2]
    cow = read(source)[1][1]
    assert cow == "green" if suffix in READABLE else cow not in COLORS


def test_hidden_images_are_images(tmp_path):
    source = opened(folder_of(tmp_path, "cat/.png", "cat/.a.png"))
    assert [color for _, color in read(source)] == ["red", "red"]


def test_what_is_no_image_is_counted_by_suffix(tmp_path):
    folder_of(tmp_path, "cat/a.png")
    names = ("a.npy", "b.NPY", "c.mp4", "d.zip", "notes.md", "hash", "x.1", "x.2", "e.png.part")
    for name in (*names, "metadata.csv", "a.txt", "b.txt", "a.json", "z.JSON"):
        (tmp_path / "cat" / name).write_bytes(b"")
    source = opened(tmp_path)
    counts = {reason: entry.count for reason, entry in source.census.passed_over.items()}
    assert counts == {
        "suffix .npy": 2,
        "suffix .mp4": 1,
        "suffix .zip": 1,
        "suffix .md": 1,
        "suffix .part": 1,
        "no known suffix": 1,
        "a number as suffix": 2,
        "metadata, which is not read": 1,
        "captions without an image": 2,
    }
    assert source.census.missed() == 11 and source.census.captioned == 1
    assert "1 image of 1 class (cat), 1 with captions" in source.census.summary()[0]


def test_a_folder_of_nothing_but_other_files_says_what_there_is(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="no images there.*1 .suffix .parquet.: cat/a.parquet"):
        opened(tmp_path)


def test_links_to_folders_are_read_once_and_circles_end(tmp_path):
    folder_of(tmp_path / "data", "cat/a.png", "dog/a.png")
    folder_of(tmp_path / "elsewhere", "deep/b.png", "whole/c.png")
    for link, target in {
        "cat/more": "../../elsewhere/deep",
        "cat/more again": "../../elsewhere/deep",
        "cat/circle": "..",
        "cat/itself": ".",
        "cat/dogs": "../dog",
        "elephant": "../elsewhere/whole",
    }.items():
        (tmp_path / "data" / link).symlink_to(target)
    (tmp_path / "elsewhere/deep/back").symlink_to("../../data")
    source = opened(tmp_path / "data")
    assert source.class_names == ("cat", "dog", "elephant")
    assert [name for name, _ in read(source)] == ["cat", "cat", "dog", "elephant"]
    entry = source.census.passed_over["link to a folder that is read already"]
    assert entry.count == 5 and source.census.missed() == 0


def test_links_that_lead_nowhere_are_unreadable_or_named(tmp_path):
    folder_of(tmp_path, "cat/a.png")
    (tmp_path / "cat/b.png").symlink_to("gone.png")
    (tmp_path / "cat/c.png").symlink_to("c.png")
    (tmp_path / "cat/old").symlink_to("/no/such/folder")
    source = opened(tmp_path)
    faults = ["No such file or directory", "Too many levels of symbolic links"]
    assert [color for _, color in read(source)] == ["red", *faults]
    assert source.census.passed_over["link that leads nowhere"].names == ["cat/old"]
    (tmp_path / "cow").symlink_to("/no/such/folder")
    with pytest.raises(InputError, match="cow is a link that leads nowhere, and may be a class"):
        opened(tmp_path)


def test_only_regular_files_are_read(tmp_path, monkeypatch):
    folder_of(tmp_path, "cat/a.png")
    os.mkfifo(tmp_path / "cat/b.png")
    (tmp_path / "cat/c.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path / "cat")  # paths of sockets have to be short
        listening.bind("d.png")
    (tmp_path / "cat/e.png").mkdir()
    picture(tmp_path / "cat/e.png/f.png", "blue")
    with open(tmp_path / "cat/g.png", "wb") as file:
        file.truncate(2**40)
    found = [color for _, color in read(opened(tmp_path))]
    pipe, device, bound = (
        "is a pipe, expected a regular file",
        "is a device, expected a regular file",
        "No such device or address",
    )
    assert found[:5] == ["red", pipe, device, bound, "blue"]
    assert found[5].startswith("has 1,099,511,627,776 bytes")


@pytest.mark.parametrize("place", ["dog", "dog/deep"])
def test_a_folder_that_cannot_be_listed_is_refused(place, tmp_path, monkeypatch):
    folder_of(tmp_path, "cat/a.png", "dog/deep/a.png")
    scandir = os.scandir

    def denied(path):
        if str(path) == str(tmp_path / place):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match=rf"folder .*/{place} cannot be listed: Permission denied"):
        opened(tmp_path)


def test_an_empty_class_folder_stays_a_class_and_is_named(tmp_path):
    folder_of(tmp_path, "cat/a.png", "dog/a.png")
    (tmp_path / "cow").mkdir()
    source = opened(tmp_path)
    assert source.class_names == ("cat", "cow", "dog")
    assert [name for name, _ in read(source)] == ["cat", "dog"]
    with pytest.raises(InputError, match="1 things that look like data.*stays a class.: cow"):
        source.census.check_limit("folder:x", 0.0, "bad_image_limit")
    source.census.check_limit("folder:x", 0.01, "bad_image_limit")


@pytest.mark.parametrize(
    "names, order",
    [
        (["10", "2", "0"], ["0", "2", "10"]),
        (["010", "02", "1", "01"], ["01", "1", "02", "010"]),
        (["10", "2", "x"], ["10", "2", "x"]),
        (["1.5", "10", "2"], ["1.5", "10", "2"]),
        (["a", "B", "é"], ["B", "a", "é"]),
    ],
)
def test_classes_that_are_numbers_are_in_the_order_of_numbers(names, order, tmp_path):
    folder_of(tmp_path, *(f"{name}/a.png" for name in names))
    assert list(opened(tmp_path).class_names) == order


def test_names_that_differ_in_bytes_stay_apart_and_can_be_printed(tmp_path):
    for name in (b"\xe9", b"\xe8", b"\\xe9", "é".encode(), b"two\nlines", b"\x1b[31m"):
        os.makedirs(os.path.join(os.fsencode(tmp_path), name))
        picture(os.path.join(os.fsencode(tmp_path), name, b"a.png"))
    source = opened(tmp_path)
    assert set(source.class_names) == {
        *(r"\xe9", r"\xe8", r"\x5cxe9", "é", r"two\x0alines", r"\x1b[31m"),
    }
    ids = list(source.names())
    assert len(set(ids)) == 6 and all(text.isprintable() for text in ids)
    assert ids == [source[i].id for i in range(6)]
    assert {os.fsencode(original(text)) for text in ids} == {
        os.path.join(os.fsencode(tmp_path), name, b"a.png")
        for name in (b"\xe9", b"\xe8", b"\\xe9", "é".encode(), b"two\nlines", b"\x1b[31m")
    }


@pytest.mark.parametrize(
    "names, parts",
    [
        (["train/cat/a.png", "val/cat/a.png"], "train, val"),
        (["Train/a.png", "Test/a.png"], "Test, Train"),
        (["train2017/a.png", "val2017/a.png", "annotations/x.png"], "train2017, val2017"),
        (["train/cat/a.png"], "train"),
        (["test/a.png", "validation/a.png"], "test, validation"),
    ],
)
def test_parts_of_a_data_set_are_not_taken_for_classes(names, parts, tmp_path):
    folder_of(tmp_path, *names)
    first = parts.partition(",")[0]
    with pytest.raises(InputError, match=f"its folders {parts} look like.*folder:.*/{first} "):
        opened(tmp_path)
    assert len(opened(tmp_path / first))


@pytest.mark.parametrize("names", [["train/a.png", "bus/a.png"], ["train/a.png"]])
def test_a_class_may_be_called_train(names, tmp_path):
    source = opened(folder_of(tmp_path, *names))
    assert "train" in source.class_names and len(source) == len(names)


def test_how_a_folder_was_understood_is_told_with_another_way(tmp_path):
    (note,) = opened(folder_of(tmp_path / "flat", "a.png")).census.notes
    assert "all images are of one class, flat; for several" in note
    nested = opened(folder_of(tmp_path / "nested", "dog/husky/a.png", "dog/b.png", "cat/c.png"))
    (note,) = nested.census.notes
    assert "as dog/husky/a.png, and are of class dog" in note and "nested/dog" in note
    assert not opened(folder_of(tmp_path / "plain", "dog/a.png")).census.notes


def test_a_flat_folder_may_have_folders_without_images(tmp_path):
    folder_of(tmp_path, "a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.xml").write_bytes(b"")
    source = opened(tmp_path)
    assert source.class_names == (tmp_path.name,)
    assert source.census.passed_over["suffix .xml"].names == ["annotations/a.xml"]
