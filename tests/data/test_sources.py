import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data import images, sources
from maskgil_jax.errors import InputError


def test_embedded_digits_are_real_images_with_labels():
    train, test = sources.open_source("embedded"), sources.open_source("embedded:test")
    assert len(train) == 1437 and len(test) == 360 and train.class_names == tuple("0123456789")
    pixels, labels = sources.center_crops(train, 8, 100)
    assert pixels.shape == (100, 8, 8, 3) and set(labels) == set(range(10))
    assert pixels.max() == 255 and pixels.min() < 40 and len(np.unique(pixels)) > 10
    assert test[0].id == "digit 1437"


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


@pytest.mark.parametrize(
    "spec, message",
    [
        ("imagenet", "unknown kind 'imagenet', expected embedded, folder:PATH"),
        ("", "no data source is given"),
        ("embedded:dev", "expected embedded:train or :test"),
        ("folder:/no/such/place", "there is no such folder"),
        ("tfds:imagenet2012", "expected tfds:NAME/SPLIT"),
        ("tfds:no_such_dataset/train", "cannot be read"),
    ],
)
def test_bad_sources_are_named(spec, message):
    with pytest.raises(InputError, match=message):
        sources.open_source(spec)


def test_tfds_gives_encoded_images_without_tensorflow(tmp_path):
    import sys

    import tensorflow_datasets as tfds

    Image.new("RGB", (9, 7), "red").save(tmp_path / "red.png")

    class RedDots(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = {}  # nothing to download; looking for a list needs another package

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["blue", "red"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield "red", {"image": str(tmp_path / "red.png"), "label": "red"}

    RedDots(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(str(tmp_path))
    source = sources.open_source("tfds:red_dots/train")
    assert len(source) == 1 and source.class_names == ("blue", "red")
    assert source[0].label == 1 and source[0].id == "red_dots/train[0]"
    assert images.decode(source[0].image).size == (9, 7)
    assert "tensorflow" not in sys.modules
