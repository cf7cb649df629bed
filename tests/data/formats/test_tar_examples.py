"""Which members of a tar belong together, and what of a tar is not used."""

import io
import tarfile

import pytest

from maskgil_jax.data.formats.tar import Tar
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import Unreadable


def tarred(names, **options):
    """A tar of members, each of which holds its place; a name may be a TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as archive:
        for place, name in enumerate(names):
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = str(place).encode() if info.isreg() else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def opened(folder, data):
    (folder / "a.tar").write_bytes(data)
    return Tar(f"{folder}/a.tar")


def told(source):
    """Of each image: its content, and its captions, or why it cannot be used."""
    found = []
    for i in range(len(source)):
        record = source[i]
        captions = record.read_captions() if not record.fault else record.fault
        found.append((record.image.decode(), captions))
    return found


def not_used(source):
    return {reason: entry.count for reason, entry in source.census.passed_over.items()}


@pytest.mark.parametrize(
    "names, expected",
    [
        # After tar -A: each image has what comes with it.
        ("0.png 0.txt 0.png 0.txt", "0:1 2:3"),
        ("0.txt 0.png 0.txt 0.png", "1:0 3:2"),
        ("0.png 0.txt 1.png 1.txt 0.png 0.txt 1.png", "0:1 2:3 4:5 6:"),
        ("0.png 0.txt 1.png 1.txt 0.png 1.png 1.txt", "0:1 2:3 4: 5:6"),
        ("0.png 1.png 0.txt 1.txt 0.png 1.png 0.txt 1.txt", "0:2 1:3 4:6 5:7"),
        ("0.png 0.png", "0: 1:"),
        ("d/0.png d/0.txt e/0.png d/0.png", "0:1 2: 3:"),
        # One name, two images.
        ("0.jpg 0.png", "0: 1:"),
        ("0.jpg 0.txt 0.png 0.txt", "0:1 2:3"),
        # By kind, as long as no name comes twice.
        ("0.png 1.png 0.txt 1.txt", "0:2 1:3"),
        ("0.txt 1.txt 0.jpg 1.png 2.jpg 2.png", "2:0 3:1 4: 5:"),
        # Names with dots.
        ("IMG_1.2.png x.png", "0: 1:"),
        ("photo.v2.final.jpg photo.v2.final.txt", "0:1"),
        ("a.1.png a.1.txt a.2.png a.2.txt", "0:1 2:3"),
        ("0.rgb.png 0.txt", "0:1"),
        ("0.txt 0.rgb.png 0.rgb.txt", "1:2"),
        ("d.e/0.png d.e/0.txt", "0:1"),
        ("0.PNG 0.TXT", "0:1"),
        ("0.jpg 0.seg.png 0.txt", "0:2"),
        ("0.jpg 0.seg.png 0.txt 0.jpg 0.seg.png 0.txt", "0:2 3:5"),
        ("0.jpg 0.seg.png 0.txt 1.jpg 1.txt 0.jpg", "0:2 3:4 5:"),
    ],
)
def test_each_image_has_its_own_captions(tmp_path, names, expected):
    source = opened(tmp_path, tarred(name.replace("_", " ") for name in names.split()))
    found = [f"{image}:{','.join(captions)}" for image, captions in told(source)]
    assert sorted(found) == expected.split()


@pytest.mark.parametrize(
    "names, key, images",
    [
        ("0.png 0.txt 0.png", "0", 2),  # is the text of the one before or after it?
        ("0.png 0.png 0.txt", "0", 2),
        ("0.txt 0.png 0.png", "0", 2),
        ("0.jpg 0.png 0.txt", "0", 2),
        ("0.png 0.txt 0.txt", "0", 1),
        ("0.png 0.txt 1.png 0.png 0.txt 1.txt", "1", 1),  # of another tar, perhaps
        ("0.png 1.png 0.txt 1.txt 0.png 1.png", "0", 2),
    ],
)
def test_captions_that_may_be_of_either_of_two_images_are_of_none(tmp_path, names, key, images):
    source = opened(tmp_path, tarred(names.split()))
    unusable = []
    for i in range(len(source)):
        assert source[i].image and not source[i].fault
        try:
            source[i].read_captions()
        except Unreadable as error:
            unusable.append(str(error))
    assert len([fault for fault in unusable if f"key {key}, in an order that" in fault]) == images
    assert len(source) == sum(name.endswith(("png", "jpg")) for name in names.split())


@pytest.mark.parametrize(
    "names, key",
    [
        ("d/0.jpg d/0.cls d/0.webp", "d/0"),
        ("0.png 0.json 0.png", "0"),
        ("0.png 0.png 0.cls 0.txt", "0"),
    ],
)
def test_images_that_may_be_of_either_of_two_classes_are_left_out_and_named(tmp_path, names, key):
    source = opened(tmp_path, tarred(names.split()))
    assert len(source) == 2
    for i in range(2):
        with pytest.raises(Unreadable, match=rf"a.tar/{key}\.\w+: .* key {key}, in an order that"):
            image_records.image_of(source[i])


@pytest.mark.parametrize("zeros", [0, 512, 1024, 2**20, 2**21 + 512])
def test_tars_joined_by_cat_are_read_each_as_its_own(tmp_path, zeros):
    parts = [tarred(["0.png", "0.txt", "1.png"]), tarred(["0.png", "1.txt", "2.png"])]
    stripped = parts[0].rstrip(b"\0")
    block = stripped + bytes(-len(stripped) % 512 + 512)  # a single block of zeros
    source = opened(tmp_path, block + bytes(zeros) + parts[1])
    expected = [("0", ("1",)), ("2", ()), ("0", ()), ("2", ())]
    assert told(source) == expected
    assert not_used(source) == {"captions or class without an image": 1}


def test_what_follows_the_end_and_is_no_tar_is_one_unreadable_image(tmp_path):
    source = opened(tmp_path, tarred(["0.png"]) + b"<html>" * 200)
    assert len(source) == 2 and "no header of a member" in source[1].fault


def test_what_is_not_used_is_counted_by_reason(tmp_path):
    odd = []
    for name, kind in (("fifo", tarfile.FIFOTYPE), ("d", tarfile.DIRTYPE)):
        info = tarfile.TarInfo(name)
        info.type = kind
        odd.append(info)
    device = tarfile.TarInfo("device.png")
    device.type = tarfile.CHRTYPE
    names = [
        "0.png",
        "0.seg.png",
        "._0.png",
        ".DS_Store",
        "__MACOSX/d/._0.png",
        ".ipynb_checkpoints/0-checkpoint.png",
        "./1.png",
        "2.txt",
        "3.json",
        "4.heic",
        "5.npy",
        "README",
        "x.0001",
        *odd,
        device,
    ]
    source = opened(tmp_path, tarred(names))
    assert not_used(source) == {
        "more about an image, as 1.seg.png is beside 1.jpg": 1,
        "AppleDouble file": 1,
        "hidden file, or one of the system": 1,
        "in a hidden or system folder": 2,
        "captions or class without an image": 2,
        "suffix .npy": 1,
        "document": 1,
        "a number as suffix": 1,
        "no known suffix": 1,
        "folder": 1,
    }
    assert source.census.missed() == 6  # 0.seg.png, 2.txt, 3.json, 5.npy, x.0001, fifo
    assert "README" in "".join(source.census.summary())
    assert len(source) == source.census.images == 4 and source[2].image  # 4.heic is tried
    with pytest.raises(Unreadable, match="a.tar/device.png: a character device"):
        image_records.image_of(source[3])


def test_images_that_seem_to_have_captions_are_counted(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in {
            "0.png": b"0",
            "0.txt": b"a cat",
            "1.png": b"1",
            "1.json": b'{"caption": "a dog"}',
            "2.png": b"2",
            "2.json": b'{"label": 3}',
            "3.png": b"3",
            "3.txt": b"",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert Tar(f"{tmp_path}/a.tar").census.captioned == 2


def test_names_that_are_not_utf_8_stay_apart_and_can_be_printed(tmp_path):
    names = ["\xe9.png", "\xe9.txt", "\xe8.png", "\xe8.txt", "y.png"]
    data = tarred(names, format=tarfile.GNU_FORMAT, encoding="latin-1")
    source = opened(tmp_path, data)
    assert told(source) == [("0", ("1",)), ("2", ("3",)), ("4", ())]
    ids = [source[i].id.rpartition("/")[2] for i in range(3)]
    assert ids == [r"\xe9.png", r"\xe8.png", "y.png"]


def test_names_with_control_characters_can_be_printed(tmp_path):
    info = tarfile.TarInfo("0.png")
    info.pax_headers = {"path": "a\nb\0\x1b[31m.png"}
    source = opened(tmp_path, tarred([info, "1.png"], format=tarfile.PAX_FORMAT))
    assert source[0].id.endswith(r"a.tar/a\x0ab\x00\x1b[31m.png") and source[0].image == b"0"
