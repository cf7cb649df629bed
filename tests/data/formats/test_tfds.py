import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from maskgil_jax.data import sources
from maskgil_jax.data.images import image_decoder
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError, Unreadable

TEXT = tfds.features.Text()
TEXTS = tfds.features.Sequence(TEXT)
COCO = tfds.features.Sequence({"id": TEXT, "text": TEXT})


def prepare(folder, dataset, features, example):
    """A TFDS data set of one red image, as a source."""
    Image.new("RGB", (9, 8), "red").save(folder / "red.png")

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = dataset
        VERSION = tfds.core.Version("1.0.0")
        url_infos = {}  # nothing to download; looking for a list needs another package

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3))
            found = tfds.features.FeaturesDict({"image": image, **features})
            return tfds.core.DatasetInfo(builder=self, features=found)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield "red", {"image": str(folder / "red.png"), **example}

    Builder(data_dir=str(folder), file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(str(folder))
    return sources.open_source(f"tfds:{dataset}/train")


def test_tfds_gives_encoded_images_without_tensorflow(tmp_path):
    label = tfds.features.ClassLabel(names=["blue", "red"])
    source = prepare(tmp_path, "red_dots", {"label": label}, {"label": "red"})
    assert len(source) == 1 and source.class_names == ("blue", "red")
    assert source[0].label == 1 and source[0].id == "red_dots/train[0]"
    assert image_decoder.decode(source[0].image).size == (9, 8)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "name, field, feature, value, captions",
    [
        ("one", "text", TEXT, "ein roter Würfel", ("ein roter Würfel",)),
        ("several", "caption", TEXTS, ["a", " b "], ("a", "b")),
        (
            "as_coco",
            "captions",
            COCO,
            [{"id": "1", "text": "x"}, {"id": "2", "text": "y"}],
            ("x", "y"),
        ),
    ],
)
def test_tfds_gives_captions_and_needs_no_label(tmp_path, name, field, feature, value, captions):
    source = prepare(tmp_path, name, {field: feature}, {field: value})
    assert source.class_names == (name,) and source[0].label == 0
    assert image_records.captions_of(source[0]) == captions


@pytest.mark.parametrize(
    "name, feature, value, message",
    [("latin", TEXT, b"caf\xe9", "not UTF-8 at byte 3"), ("none", TEXTS, [], "no caption")],
)
def test_broken_captions_are_unreadable_and_the_image_is_not(
    tmp_path, name, feature, value, message
):
    source = prepare(tmp_path, name, {"text": feature}, {"text": value})
    assert image_decoder.decode(source[0].image).size == (9, 8)
    with pytest.raises(Unreadable, match=rf"{name}/train\[0\]: .*{message}"):
        image_records.captions_of(source[0])


def test_an_image_whose_class_is_unknown_is_left_out_and_named(tmp_path):
    label = tfds.features.ClassLabel(names=["blue", "red"])
    source = prepare(tmp_path, "secret", {"label": label}, {"label": -1})
    assert len(source) == 1 and source.class_names == ("blue", "red")
    with pytest.raises(Unreadable, match=r"secret/train\[0\]: its class is -1, expected 0 to 1"):
        image_records.image_of(source[0])
    assert list(source.names()) == ["secret/train[0]"] == [source[0].id]


@pytest.mark.parametrize(
    "name, feature, value",
    [
        ("number", tfds.features.Scalar(np.int64), 3),
        ("many", tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b"])), ["a"]),
    ],
)
def test_labels_that_are_no_classes_are_refused(name, feature, value, tmp_path):
    with pytest.raises(InputError, match="its label is .*expected one class of known names"):
        prepare(tmp_path, name, {"label": feature}, {"label": value})


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_what_a_damaged_file_holds_is_left_out_and_named(damage, tmp_path):
    prepare(tmp_path, f"damaged_{damage}", {}, {})
    (path,) = tmp_path.glob(f"damaged_{damage}/*/*.array_record*")
    data = bytearray(path.read_bytes())
    place = data.index(b"PNG")
    data[place] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:place])
    if damage == "gone":
        path.unlink()
    source = sources.open_source(f"tfds:damaged_{damage}/train")
    with pytest.raises(Unreadable, match=rf"damaged_{damage}/train\[0\]: ."):
        image_records.image_of(source[0])
