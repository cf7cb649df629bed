"""metadata.csv and metadata.jsonl in a folder, as ImageFolder of Hugging Face's datasets has it."""

import json
import os
import pickle
import unicodedata

import pytest
from PIL import Image

from maskgil_jax.data import sources
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError, Unreadable


def folder_of(path, *names, kind="PNG"):
    for name in names:
        os.makedirs(os.path.dirname(path / name), exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path / name, kind)
    return path


def with_csv(path, text, *names, name="metadata.csv"):
    folder_of(path, *names)
    (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def with_json(path, rows, *names):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return with_csv(path, "\n".join(lines), *names, name="metadata.jsonl")


def opened(path, kind="folder"):
    return sources.open_source(f"{kind}:{path}")


def read(source):
    """Path, class and captions of each image, or its fault."""
    found = {}
    for record in map(source.__getitem__, range(len(source))):
        try:
            image_records.image_of(record)
            value = source.class_names[record.label]
            try:
                value = (value, *image_records.captions_of(record))
            except Unreadable as error:
                value = (value, str(error).rpartition(": ")[2])
        except Unreadable as error:
            value = str(error).partition(": ")[2]
        found[os.path.basename(record.id)] = value
    return found


def test_a_flat_folder_has_the_captions_and_classes_of_its_metadata(tmp_path):
    text = "file_name,text,label\na.png,a red cat,cat\nb.png,a dog,dog\nsub/c.png,two cats,cat\n"
    source = opened(with_csv(tmp_path, text, "a.png", "b.png", "sub/c.png"))
    assert source.class_names == ("cat", "dog") and source.census.captioned == 3
    assert read(source) == {
        "a.png": ("cat", "a red cat"),
        "b.png": ("dog", "a dog"),
        "c.png": ("cat", "two cats"),
    }
    assert "metadata.csv says of images: text, label" in source.census.notes
    assert source.census.missed() == 0
    assert read(pickle.loads(pickle.dumps(source))) == read(source)  # as worker processes get it


def test_captions_alone_leave_classes_to_folders_or_make_one(tmp_path):
    text = "file_name,caption\ncat/a.png,a cat\ndog/b.png,a dog\n"
    source = opened(with_csv(tmp_path / "two", text, "cat/a.png", "dog/b.png"))
    assert source.class_names == ("cat", "dog")
    assert read(source) == {"a.png": ("cat", "a cat"), "b.png": ("dog", "a dog")}
    source = opened(with_csv(tmp_path / "flat", text, "cat/a.png", "dog/b.png", "c.png"))
    assert source.class_names == ("flat",) and len(source) == 3
    assert any("metadata says no classes" in note for note in source.census.notes)


def test_json_lines_may_hold_lists_and_empty_lines(tmp_path):
    rows = [
        "\ufeff" + json.dumps({"file_name": "a.png", "captions": ["a cat", "two\r\nlines"]}),
        "",
        {"file_name": "b.png", "caption": "a dog", "text": None, "width": 8} | {"label": 1},
        {"file_name": "./c.png", "text": "a cow", "caption": "more", "label": 0.0},
        "\r",
    ]
    source = opened(with_json(tmp_path, rows, "a.png", "b.png", "c.png"))
    assert source.class_names == ("0", "1")
    assert read(source) == {
        "a.png": "no class in metadata.jsonl, as others have",
        "b.png": ("1", "a dog"),
        "c.png": ("0", "more", "a cow"),
    }
    assert "columns of metadata.jsonl that are not read: width" in source.census.notes


def test_csv_as_spreadsheets_write_it(tmp_path):
    text = (
        "\ufefffile_name, text ,label\r\n"
        'a.png,"one, ""two"",\r\nthree",cat\r\n\r\nb.png,,dog\r\nc.png, ,\r\n'
    )
    source = opened(with_csv(tmp_path, text, "a.png", "b.png", "c.png"))
    (tmp_path / "b.txt").write_text("beside it")
    assert read(source) == {
        "a.png": ("cat", 'one, "two",\r\nthree'),
        "b.png": ("dog", "beside it"),
        "c.png": "no class in metadata.csv, as others have",
    }


def test_damaged_rows_are_counted_with_their_lines_and_the_rest_is_used(tmp_path):
    rows = [
        {"file_name": "a.png", "text": "a cat"},
        '{"file_name": "b.png", "text": ',
        '["file_name"]',
        {"text": "of nothing"},
        {"file_name": 3},
        '{"file_name": "a.png", "file_name": "b.png"}',
        {"file_name": "half\ud800.png"},
    ]
    source = opened(with_json(tmp_path / "json", rows, "a.png", "b.png"))
    damaged = source.census.passed_over["damaged row of metadata"]
    assert damaged.count == 4 and damaged.is_data
    assert damaged.names[0].startswith("metadata.jsonl, line 2: its JSON is broken")
    assert source.census.passed_over["row of metadata without a file"].count == 2
    assert read(source)["b.png"][1] == "it has no caption"
    with pytest.raises(InputError, match="6 things that look like data are not used"):
        source.census.check_limit("folder:x", 0.0, "bad_image_limit")
    text = 'file_name,text\na.png,"two\nlines"\nb.png,x,y\nc.png\n'
    source = opened(with_csv(tmp_path / "csv", text, "a.png", "b.png"))
    names = source.census.passed_over["damaged row of metadata"].names
    assert names == [
        "metadata.csv, line 4: 3 fields, where the first line has 2",
        "metadata.csv, line 5: 1 fields, where the first line has 2",
    ]


def test_rows_and_files_without_each_other_are_named_and_unreadable(tmp_path):
    text = "file_name,text,label\na.png,a cat,cat\ngone/b.png,a dog,dog\n"
    source = opened(with_csv(tmp_path, text, "a.png", "c.png"))
    assert read(source) == {
        "a.png": ("cat", "a cat"),
        "b.png": "metadata.csv, line 3 names it, but there is no such file",
        "c.png": "no class in metadata.csv, as others have",
    }
    notes = "\n".join(source.census.notes)
    assert "1 files that metadata.csv names are not there, as gone/b.png" in notes
    assert "1 images have no row in metadata.csv, as c.png" in notes
    assert "1 of 2 classes have no images" in notes
    assert [os.path.basename(name) for name in source.names()] == ["a.png", "c.png", "b.png"]


def test_rows_of_one_file_are_joined_unless_they_say_different_classes(tmp_path):
    text = "file_name,text,label\na.png,one,0\na.png,two,0\nb.png,x,0\nb.png,y,1\na.png,one,\n"
    source = opened(with_csv(tmp_path, text, "a.png", "b.png"))
    assert read(source) == {
        "a.png": ("0", "one", "two"),
        "b.png": "metadata.csv, line 4 and line 5 say different classes, '0' and '1'",
    }
    assert "2 images have several rows in metadata.csv, joined to one" in source.census.notes


def test_names_of_classes_may_be_listed(tmp_path):
    text = "file_name,label\na.png,dog\nb.png,1\nc.png,crane\n"
    with_csv(tmp_path, text, "a.png", "b.png", "c.png")
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    source = opened(tmp_path)
    assert source.class_names == ("cat", "dog") and source.census.missed() == 0
    assert [source[i].label for i in range(2)] == [1, 1]
    assert "its class 'crane' is no whole number" in read(source)["c.png"]
    (tmp_path / "classnames.txt").write_text("cat\n")
    with pytest.raises(InputError, match="classnames.txt names 1 classes, but .* has class 1"):
        opened(tmp_path)


def test_labels_that_are_no_class_are_faults_of_their_images(tmp_path):
    rows = [
        {"file_name": f"{number}.png", "label": label}
        for number, label in enumerate([2, "0", "-1", 1.5, True, [1], "\ud800", "nan"])
    ]
    source = opened(with_json(tmp_path, rows, *(f"{n}.png" for n in range(8))))
    found = read(source)
    assert source.class_names == ("0", "1", "2")
    assert found["0.png"][0] == "2" and found["1.png"][0] == "0"
    assert all("is no whole number" in found[f"{n}.png"] for n in range(2, 8))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_and_backslashes_are_found_as_the_disk_spells_them(form, tmp_path):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    name = "caf\u00e9/\u00fc.png"
    folder_of(tmp_path, unicodedata.normalize(form, name), "cat/b.png")
    rows = [
        {
            "file_name": unicodedata.normalize(other, name),
            "label": unicodedata.normalize(form, name),
        },
        {"file_name": r"cat\b.png", "label": unicodedata.normalize(other, name)},
    ]
    source = opened(with_json(tmp_path, rows))
    assert source.class_names == (unicodedata.normalize("NFC", name),)
    assert [source[i].fault for i in range(len(source))] == ["", ""]


def test_a_file_that_metadata_names_is_an_image_whatever_its_suffix(tmp_path):
    source = opened(with_csv(tmp_path, "file_name,text\n0123abcd,a hash\n", "0123abcd", "a.png"))
    assert read(source)["0123abcd"][1] == "a hash" and source.census.missed() == 0


@pytest.mark.parametrize("row", ["train/a.png", "a.png"])
def test_a_split_has_its_rows_in_its_folder_or_around_it(row, tmp_path):
    inside = row == "a.png"
    place = tmp_path / "train" if inside else tmp_path
    folder_of(tmp_path, "train/a.png", "test/b.png")
    with_csv(place, f"file_name,label\n{row},cat\n" + "test/b.png,dog\n" * (not inside))
    if not inside:
        with pytest.raises(InputError, match="test, train look like splits"):
            opened(tmp_path)
    source = opened(tmp_path / "train")
    assert source.class_names == ("cat",) and len(source) == 1 and source[0].fault == ""
    assert inside != any(
        "1 rows of metadata.csv name files outside" in n for n in source.census.notes
    )


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "image,text\na.png,x\n",
            "no column file_name, but 'image', 'text': expected file_name and",
        ),
        ("file_name;text\na.png;x\n", "no column file_name, but 'file_name;text'"),
        ("", "has no rows that can be used"),
        ("file_name,text\n", "has no rows that can be used"),
        ("file_name,text,text\na.png,x,y\n", "column 'text' comes twice"),
        (b"file_name,text\na.png,caf\xe9\n", "line 2 is not UTF-8; expected CSV in UTF-8"),
        ("file_name,text\na.png,x\n".encode("utf-16"), "line 1 is not UTF-8"),
        ('file_name,text\na.png,x\nb.png,"y\nc.png,z\n', "what begins on line 3 is no CSV"),
        ("file_name\n/etc/passwd\n", "line 2 names '/etc/passwd', expected a path below"),
        ("file_name\nsub/../../a.png\n", "without .."),
        ("file_name\n..\\a.png\n", "without .."),
        ("file_name\nC:\\a.png\n", "expected a path below the folder"),
        ("file_name,label\na.png,cat\nb.png,3\n", "holds numbers, as '3', and names, as 'cat'"),
        ("file_name,label\na.png,-1\n", "holds no class: expected names, or whole numbers"),
        ("file_name\nx.png\ny.png\n", "names 2 files, none of which is there, such as 'x.png'"),
    ],
)
def test_metadata_that_cannot_be_meant_is_refused_by_name(text, message, tmp_path):
    with pytest.raises(InputError, match="metadata.csv.*" + message.replace("\\", "\\\\")):
        opened(with_csv(tmp_path, text, "a.png", "b.png"))


def test_two_files_of_metadata_and_rows_without_file_names_are_refused(tmp_path):
    with_csv(tmp_path, "file_name\na.png\n", "a.png")
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(InputError, match="has metadata.csv and metadata.jsonl: expected one"):
        opened(tmp_path)
    with_json(tmp_path / "keys", [{"image": "a.png"}], "a.png")
    with pytest.raises(InputError, match="its rows have .image., expected file_name"):
        opened(tmp_path / "keys")


def test_metadata_of_other_kinds_and_deeper_down_is_counted(tmp_path):
    folder_of(tmp_path, "cat/a.png")
    for name in ("metadata.csv.gz", "metadata.parquet", "cat/metadata.csv"):
        (tmp_path / name).write_bytes(b"")
    entry = opened(tmp_path).census.passed_over["metadata, which is not read"]
    assert entry.count == 3 and entry.is_data


def test_nested_folders_are_classes_by_a_switch(tmp_path):
    folder_of(tmp_path, "dog/husky/a.png", "dog/pug/b.png", "dog/c.png", "cat/d.png")
    (tmp_path / "dog/empty").mkdir()
    assert opened(tmp_path).class_names == ("cat", "dog")
    source = opened(tmp_path, "nested")
    assert source.class_names == ("cat", "dog", "dog/empty", "dog/husky", "dog/pug")
    assert [source.class_names[source[i].label] for i in range(len(source))] == [
        *("cat", "dog", "dog/husky", "dog/pug"),
    ]
    folder_of(tmp_path / "parts", "train/x/a.png", "test/x/a.png")
    with pytest.raises(InputError, match="test, train look like splits.*nested:.*/parts/test"):
        opened(tmp_path / "parts", "nested")
