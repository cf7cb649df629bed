import json
import os

import pytest
from PIL import Image

from maskgil_jax.data import images, sources
from maskgil_jax.errors import InputError, Unreadable


def test_a_folder_gives_sorted_classes_and_finds_nested_images(tmp_path):
    for path in ("dog/a.JPG", "dog/deep/b.png", "cat/c.webp", "cat/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("txt"):
            (tmp_path / path).write_text("no image")
        else:
            Image.new("RGB", (9, 9), "red").save(tmp_path / path)
    (tmp_path / "empty").mkdir()
    source = sources.open_source(f"folder:{tmp_path}")
    assert source.class_names == ("cat", "dog") and len(source) == 3
    assert [source[i].label for i in range(3)] == [0, 1, 1]
    assert images.decode(source[1].image).size == (9, 9)
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
    assert sources.captions_of(source[0]) == ("a red dog", "two dogs")
    assert sources.captions_of(source[1]) == ("a cat", "two", "cats")
    with pytest.raises(Unreadable, match="c.jpg: it has no caption"):
        sources.captions_of(source[2])
    (tmp_path / "a.txt").write_text("a blue dog")  # after opening
    assert sources.captions_of(source[0]) == ("a blue dog",)


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
    assert sources.captions_of(source[0]) == expected


def test_captions_that_are_no_regular_file_are_named_and_not_waited_for(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "a.txt")
    source = sources.open_source(f"folder:{tmp_path}")
    with pytest.raises(Unreadable, match="a.jpg: its a.txt is a pipe, expected a regular file"):
        sources.captions_of(source[0])


def test_an_image_that_went_away_is_unreadable(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    source = sources.open_source(f"folder:{tmp_path}")
    (tmp_path / "a.png").unlink()
    with pytest.raises(Unreadable, match="a.png: No such file"):
        sources.image_of(source[0])


def test_a_file_name_that_is_not_utf8_still_gives_a_printable_id(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (9, 9)).save(os.path.join(tmp_path, name), "PNG")
    record = sources.open_source(f"folder:{tmp_path}")[0]
    assert record.id.encode().endswith("caf\N{REPLACEMENT CHARACTER}.png".encode())
