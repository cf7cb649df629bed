"""Captions and images as COCO has them, with what real files of others have wrong."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data import sources
from maskgil_jax.data.formats import coco
from maskgil_jax.data.images import cropping
from maskgil_jax.data.records import image_records
from maskgil_jax.generation import requests
from maskgil_jax.runtime.errors import InputError, Unreadable


def write(root, count=5, **changes):
    """The layout of val2014; image i is of grey level 10 i and has i captions."""
    (root / "annotations").mkdir(parents=True)
    (root / "val2014").mkdir()
    content = {"info": {}, "images": [], "annotations": []}
    for i in reversed(range(count)):
        name = f"COCO_val2014_{i:012}.jpg"
        Image.fromarray(np.full((12, 16, 3), 10 * i, np.uint8)).save(root / "val2014" / name)
        content["images"].append({"id": 100 + i, "file_name": name, "height": 12})
        content["annotations"] += [
            {"id": 10 * i + k, "image_id": 100 + i, "caption": f" image {i}, caption {k}\n"}
            for k in reversed(range(i))
        ]
    path = root / "annotations" / "captions_val2014.json"
    path.write_text(json.dumps(content | changes))
    return path, content


def test_images_stand_in_the_order_of_their_ids_with_their_captions(tmp_path):
    path, _ = write(tmp_path)
    (tmp_path / "val2014" / "notes.txt").write_text("")
    source = sources.open_source(f"coco:{path}")
    assert len(source) == 5 and source.census.captioned == 4
    assert [name[-5:] for name in source.names()] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    for i in range(5):
        assert abs(np.asarray(image_records.image_of(source[i])).mean() - 10 * i) < 2
    captions = image_records.captions_of(source[3])
    assert captions == ("image 3, caption 0", "image 3, caption 1", "image 3, caption 2")
    with pytest.raises(Unreadable, match="000.jpg: it has no caption"):
        image_records.captions_of(source[0])
    assert "not used: 1 (not listed in the JSON file): notes.txt" in "".join(
        source.census.summary()
    )


def test_images_may_lie_in_another_folder(tmp_path):
    path, _ = write(tmp_path)
    (tmp_path / "val2014").rename(tmp_path / "pictures")
    with pytest.raises(InputError, match="no folder .*val2014 of images; expected coco:JSON,FOLD"):
        sources.open_source(f"coco:{path}")
    assert len(sources.open_source(f"coco:{path},{tmp_path / 'pictures'}")) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of 5 listed images is in .*empty"):
        sources.open_source(f"coco:{path},{tmp_path / 'empty'}")


def test_images_that_are_not_there_are_unreadable_and_entries_without_a_text_counted(tmp_path):
    path, content = write(tmp_path)
    (tmp_path / "val2014" / "COCO_val2014_000000000002.jpg").unlink()
    content["images"].append({"id": "7", "file_name": "x.jpg"})
    content["annotations"] += [
        {"image_id": 999, "caption": "of another image"},
        {"image_id": 103, "caption": None},
        "nothing",
    ]
    path.write_text(json.dumps(content))
    source = sources.open_source(f"coco:{path}")
    assert len(source) == 5
    with pytest.raises(Unreadable, match="002.jpg: No such file"):
        image_records.image_of(source[2])
    text = " ".join(source.census.summary())
    assert "1 listed images are not in" in text and "as COCO_val2014_000000000002.jpg" in text
    assert "1 (image without id and file_name): images[5] of captions_val2014.json" in text
    assert "1 (caption of an image that is not listed): annotations[10]" in text
    assert "2 (annotation without a caption): annotations[11]" in text
    assert source.census.missed() == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(images=[]), "lists no image that can be used"),
        (dict(images=3), "field 'images' is an integer, expected a list"),
        (dict(images=[{"id": 1, "file_name": "../a.jpg"}]), "is '../a.jpg', expected a path below"),
        (
            dict(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]),
            r"images\[1\] .* has the id 1 of another image, a.jpg",
        ),
    ],
)
def test_what_is_no_file_of_captions_is_refused(changes, message, tmp_path):
    path, _ = write(tmp_path, **changes)
    for read in (lambda: sources.open_source(f"coco:{path}"), lambda: coco.prompts(str(path))):
        with pytest.raises(InputError, match=message):
            read()


def test_a_file_that_is_cut_off_or_not_there_is_refused(tmp_path):
    path, _ = write(tmp_path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(InputError, match="captions_val2014.json is not readable JSON"):
        requests.read_prompts(str(path))
    path.unlink()
    with pytest.raises(InputError, match="captions_val2014.json"):
        requests.read_prompts(str(path))
    path.write_text(json.dumps({"categories": [], "annotations": [{"image_id": 1}]}))
    with pytest.raises(InputError, match="has no field 'images'"):
        requests.read_prompts(str(path))


def test_prompts_are_one_caption_of_each_image_and_the_same_each_time(tmp_path, caplog):
    path, content = write(tmp_path, count=9)
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        prompts = requests.read_prompts(str(path))
    assert len(prompts) == 8 and {prompt[6] for prompt in prompts} == {*"12345678"}
    assert prompts != sorted(prompts) and len({prompt[-1] for prompt in prompts}) > 1
    assert "8 prompts, one caption of each of 8 of 8 images, drawn by numpy's" in caplog.text
    assert "1 (image without a usable caption): COCO_val2014_000000000000.jpg" in caplog.text
    content["images"].reverse()  # their order in the file does not matter
    content["annotations"].reverse()
    path.write_text(json.dumps(content))
    assert requests.read_prompts(str(path)) == prompts


def test_no_more_prompts_than_those_of_the_protocol(tmp_path, monkeypatch):
    path, _ = write(tmp_path, count=9)
    monkeypatch.setattr(coco, "PROMPTS", 3)
    prompts, what = coco.prompts(str(path))
    assert len(prompts) == 3 and what[0].startswith("3 prompts, one caption of each of 3 of 8")


def test_the_lanczos_crop_is_that_of_the_middle_square():
    pixels = np.random.default_rng(0).integers(256, size=(30, 41, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    square = Image.fromarray(pixels[:, 6:36])  # torchvision rounds 5.5 to the even 6
    expected = np.asarray(square.resize((20, 20), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(cropping.lanczos_crop(image, 20), expected)
