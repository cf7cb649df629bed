import itertools

import numpy as np
import pytest
from jax._src import xla_bridge
from PIL import Image

from maskgil_jax.conditioning.base import read_class
from maskgil_jax.data import pipeline, sources
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError
from tests.helpers.image_files import DISPLAY_P3, encoded, icc
from tests.helpers.orders import MIXED, SHAPES, SQUARES, order_of


def draw(index, rng):
    return {"index": np.int32(index), "noise": rng.random()}


def take(count, order=SQUARES, **options):
    batches = pipeline.batches(draw, order, **{"threads": 1, **options})
    return list(itertools.islice(batches, count))


def test_batches_of_squares_are_those_that_checkpoints_were_made_with():
    first, _, third = take(3)
    assert first["index"].tolist() == [4, 6, 9, 7] and third["index"].tolist() == [2, 0, 8, 1]
    np.testing.assert_allclose(first["noise"], [0.097905, 0.212803, 0.974888, 0.753655], atol=1e-6)


@pytest.mark.parametrize("order", [SQUARES, SHAPES, MIXED])
def test_a_resumed_pipeline_gives_the_rest_of_the_same_batches(order):
    whole, rest = take(7, order), take(4, order, start_step=3)
    for a, b in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        np.testing.assert_array_equal(a["noise"], b["noise"])


@pytest.mark.parametrize("parts", [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0,), (1, 2, 3))])
@pytest.mark.parametrize("order", [SQUARES, SHAPES, MIXED])
def test_processes_load_their_rows_of_the_same_global_batch_and_no_others(order, parts):
    loaded = [take(6, order, rows=rows) for rows in parts]
    for step, whole in enumerate(take(6, order)):
        for rows, part in zip(parts, loaded, strict=True):
            for name in ("index", "noise"):
                np.testing.assert_array_equal(part[step][name], whole[name][list(rows)])
        np.testing.assert_array_equal(order.examples(step + 1), whole["index"])


def test_an_epoch_holds_every_example_once_and_the_next_is_in_another_order():
    indices = np.concatenate([b["index"] for b in take(5)])  # 20 examples: two epochs of 10
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert (indices[:10] != indices[10:]).any()


def test_threads_do_not_change_the_order():
    for a, b in zip(take(6, threads=8), take(6, threads=1), strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])


class Broken:
    """Every third image cannot be read."""

    class_names = ("one",)

    def __init__(self, source, broken):
        self._source, self._broken = source, broken

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        record = self._source[index]
        if self._broken(index):
            return image_records.Record(b"broken", record.label, f"broken {index}")
        return record


def loader(source, buckets=None, sizes=((8, 8),), crop="center", flip=False):
    buckets = np.zeros(len(source), int) if buckets is None else buckets
    return pipeline.image_loader(
        source, buckets, sizes=sizes, crop=crop, flip=flip, condition=read_class
    )


def test_an_image_has_the_size_of_its_bucket_and_so_has_what_stands_in_for_it():
    source = Broken(sources.open_source("embedded"), lambda i: i == 4)
    buckets = np.arange(len(source)) % 3
    load = loader(source, buckets, sizes=((8, 8), (4, 8), (16, 4)), crop="random")
    rng = np.random.default_rng
    assert [load(i, rng(0))["image"].shape for i in range(3)] == [(8, 8, 3), (4, 8, 3), (16, 4, 3)]
    replaced, same_bucket = load(4, rng(0)), load(7, rng(0))
    assert replaced["unreadable"] == 4
    np.testing.assert_array_equal(replaced["image"], same_bucket["image"])


def test_the_only_image_of_a_bucket_is_replaced_by_one_of_another_cut_to_its_size():
    source = Broken(sources.open_source("embedded"), lambda i: i == 4)
    buckets = np.equal(np.arange(len(source)), 4).astype(int)
    load = loader(source, buckets, sizes=((8, 8), (4, 8)), crop="random")
    replaced = load(4, np.random.default_rng(0))
    assert replaced["image"].shape == (4, 8, 3) and replaced["unreadable"] == 4
    assert replaced["label"] == source[5].label


def test_an_unreadable_image_is_replaced_by_the_next_and_reported():
    source = Broken(sources.open_source("embedded"), lambda i: i in (5, 6))
    load = loader(source)
    rng = np.random.default_rng
    replaced, next_readable = load(5, rng(0)), load(7, rng(0))
    np.testing.assert_array_equal(replaced["image"], next_readable["image"])
    assert replaced["unreadable"] == 5 and next_readable["unreadable"] == -1
    assert replaced["label"] == source[7].label


def test_a_source_without_readable_images_is_an_error():
    source = Broken(sources.open_source("embedded"), lambda i: True)
    load = loader(source)
    with pytest.raises(InputError, match="100 images in a row cannot be read, .* broken 2"):
        load(2, np.random.default_rng(0))


def test_flips_mirror_half_of_the_images():
    source = sources.open_source("embedded")
    load, plain = loader(source, flip=True), loader(source)
    original = plain(4, np.random.default_rng(0))["image"]
    seen = [load(4, np.random.default_rng(seed))["image"] for seed in range(40)]
    same = sum((image == original).all() for image in seen)
    mirrored = sum((image == original[:, ::-1]).all() for image in seen)
    assert same + mirrored == 40 and 10 <= same <= 30


@pytest.mark.parametrize("color, expected", [("srgb", (219, 37, 49)), ("ignore", (200, 60, 60))])
def test_pixels_are_of_the_chosen_colours(color, expected):
    patch = Image.new("RGB", (16, 16), (200, 60, 60))
    record = image_records.Record(encoded(patch, icc_profile=icc(DISPLAY_P3)), 0, "x.png")
    load = pipeline.image_loader(
        [record], np.zeros(1, int), sizes=((8, 8),), crop="center", flip=False, color=color
    )
    pixels = load(0, np.random.default_rng(0))["image"]
    assert np.abs(pixels.astype(int) - expected).max() <= 3


def test_an_unknown_crop_is_refused():
    with pytest.raises(InputError, match="config.data.color = 'p3', expected one of srgb, ignore"):
        pipeline.image_loader([], np.zeros(0), sizes=(), crop="center", flip=False, color="p3")

    with pytest.raises(InputError, match="config.data.crop = 'middle'"):
        loader(sources.open_source("embedded"), crop="middle")


def without_devices(load):
    """Fails where the process has asked JAX for devices."""

    def checked(index, rng):
        assert not xla_bridge.backends_are_initialized()
        return load(index, rng)

    return checked


def test_processes_beside_this_one_load_the_same_batches():
    source = sources.open_source("embedded")
    buckets = np.arange(len(source)) % 3
    load = loader(source, buckets, sizes=((8, 8), (4, 8), (8, 4)), crop="random", flip=True)
    order = order_of([buckets])
    here = list(itertools.islice(pipeline.batches(load, order, threads=2), 5))
    beside = pipeline.batches(without_devices(load), order, threads=2, workers=2)
    for a, b in zip(here, itertools.islice(beside, 5), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    beside.close()
