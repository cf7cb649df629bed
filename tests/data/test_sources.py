import numpy as np
import pytest

from maskgil_jax.data import sources
from maskgil_jax.runtime.errors import InputError


def test_embedded_digits_are_real_images_with_labels():
    train, test = sources.open_source("embedded"), sources.open_source("embedded:test")
    assert len(train) == 1437 and len(test) == 360 and train.class_names == tuple("0123456789")
    pixels, labels = sources.center_crops(train, 8, 100)
    assert pixels.shape == (100, 8, 8, 3) and set(labels) == set(range(10))
    assert pixels.max() == 255 and pixels.min() < 40 and len(np.unique(pixels)) > 10
    assert test[0].id == "digit 1437"


@pytest.mark.parametrize(
    "spec, message",
    [
        ("imagenet", "unknown kind 'imagenet', expected embedded, folder:PATH"),
        ("", "no data source is given"),
        ("embedded:dev", "expected embedded:train or :test"),
        ("folder:/no/such/place", "there is no such folder"),
        ("tar:/no/such/{0..3}.tar", "there is no file /no/such/0.tar"),
        ("tfds:imagenet2012", "expected tfds:NAME/SPLIT"),
        ("tfds:no_such_dataset/train", "cannot be read"),
    ],
)
def test_bad_sources_are_named(spec, message):
    with pytest.raises(InputError, match=message):
        sources.open_source(spec)
