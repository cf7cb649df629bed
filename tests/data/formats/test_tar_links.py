"""Links within a tar."""

import io
import tarfile

import pytest

from maskgil_jax.data.formats.tar import Tar
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import Unreadable

HARD, SYMBOLIC = tarfile.LNKTYPE, tarfile.SYMTYPE


def opened(folder, *members, **options):
    """Members: name to content, or to (kind of link, target)."""
    with tarfile.open(folder / "a.tar", "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return Tar(f"{folder}/a.tar")


@pytest.mark.parametrize(
    "name, link, file",
    [
        ("1.png", (HARD, "0.png"), "0.png"),
        ("1.png", (SYMBOLIC, "0.png"), "0.png"),
        ("d/1.png", (HARD, "d/0.png"), "d/0.png"),
        ("d/1.png", (SYMBOLIC, "0.png"), "d/0.png"),
        ("d/1.png", (SYMBOLIC, "../e/./0.png"), "e/0.png"),
        ("./d/1.png", (HARD, "./0.png"), "0.png"),
        ("./d/1.png", (SYMBOLIC, "../0.png"), "./0.png"),
        ("1.png", (SYMBOLIC, "blobs/2f"), "blobs/2f"),
        ("1.png", (HARD, "n" * 150), "n" * 150),
        ("/data/1.png", (SYMBOLIC, "/data/0.png"), "/data/0.png"),
        ("é/1.png", (SYMBOLIC, "ü.png"), "é/ü.png"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("forward", [False, True])
def test_a_link_is_read_as_what_it_leads_to(tmp_path, name, link, file, form, forward):
    members = [(file, b"image"), (name, link)]
    source = opened(tmp_path, *members[:: -1 if forward else 1], format=form)
    found = {source[i].id.removeprefix(f"{tmp_path}/a.tar/"): source[i] for i in range(len(source))}
    assert found[name].image == b"image" and len(found) == 2 - (not file.endswith("png"))


def test_chains_linked_folders_and_links_of_captions_and_classes_are_followed(tmp_path):
    source = opened(
        tmp_path,
        ("v1/0.png", b"image"),
        ("v1/0.txt", b"a cat"),
        ("v1/0.cls", b"2"),
        ("latest", (SYMBOLIC, "v1")),
        ("a/0.png", (SYMBOLIC, "../latest/0.png")),
        ("a/0.txt", (HARD, "v1/0.txt")),
        ("a/0.cls", (SYMBOLIC, "../b/0.cls")),
        ("b/0.cls", (SYMBOLIC, "../v1/0.cls")),
    )
    assert len(source) == 2 and [source[i].label for i in range(2)] == [2, 2]
    assert [source[i].image for i in range(2)] == [b"image"] * 2
    assert [image_records.captions_of(source[i]) for i in range(2)] == [("a cat",)] * 2
    assert {r: e.names for r, e in source.census.passed_over.items()} == {
        "link, perhaps to a folder": [f"{tmp_path}/a.tar/latest"],
        "captions or class without an image": [f"{tmp_path}/a.tar/b/0.cls"],
    }


@pytest.mark.parametrize(
    "links",
    [
        [("1.png", (SYMBOLIC, "/etc/passwd"))],
        [("1.png", (SYMBOLIC, "../0.png"))],
        [("1.png", (HARD, "none.png"))],
        [("1.png", (SYMBOLIC, "1.png"))],
        [("1.png", (SYMBOLIC, "2.png")), ("2.png", (SYMBOLIC, "1.png"))],
        [("1.png", (SYMBOLIC, "d/1.png")), ("d", (SYMBOLIC, "d/d"))],
        [("1.png", (SYMBOLIC, ""))],
        [("1.png", (HARD, "."))],
        [("1.png", (SYMBOLIC, "x/" * 200_000))],
        [(f"{i}.png", (SYMBOLIC, f"{i + 1}.png")) for i in range(1, 60)],
    ],
)
def test_a_link_that_leads_nowhere_is_left_out_and_named(tmp_path, links):
    source = opened(tmp_path, ("0.png", b"image"), *links)
    assert len(source) == 1 + sum(name.endswith("png") for name, _ in links)
    with pytest.raises(Unreadable, match="a.tar/1.png: a (hard|symbolic) link to"):
        image_records.image_of(source[1])


def test_a_caption_or_class_that_is_a_link_to_nowhere_is_named(tmp_path):
    source = opened(
        tmp_path,
        ("0.png", b"image"),
        ("0.txt", (SYMBOLIC, "../0.txt")),
        ("1.png", b"image"),
        ("1.cls", (HARD, "none")),
    )
    assert source[0].image == b"image"  # which can be used where no captions are
    with pytest.raises(Unreadable, match="0.png: its 0.txt is a symbolic link to ../0.txt"):
        image_records.captions_of(source[0])
    with pytest.raises(Unreadable, match="1.png: its 1.cls is a hard link to none"):
        image_records.image_of(source[1])


def test_in_joined_tars_hard_links_are_of_the_member_before_them(tmp_path):
    once = [("0.png", b"first"), ("1.png", (HARD, "0.png")), ("2.png", (SYMBOLIC, "0.png"))]
    again = [("0.png", b"second"), *once[1:]]
    source = opened(tmp_path, *once, *again)
    found = [source[i].image or source[i].fault.partition(",")[0] for i in range(len(source))]
    assert found == [b"first", b"second"] * 2 + ["a symbolic link to 0.png"] * 2
    joined = b"".join(
        (opened(tmp_path, *m), (tmp_path / "a.tar").read_bytes())[1] for m in (once, again)
    )
    (tmp_path / "a.tar").write_bytes(joined)
    source = Tar(f"{tmp_path}/a.tar")
    assert [source[i].image for i in range(6)] == [b"first"] * 3 + [b"second"] * 3
