import itertools

import numpy as np
import pytest

from maskgil_jax.data import pipeline, sources
from maskgil_jax.errors import InputError


def draw(index, rng):
    return {"index": np.int32(index), "noise": rng.random()}


def take(count, **options):
    settings = dict(batch_size=4, seed=3, threads=1) | options
    return list(itertools.islice(pipeline.batches(draw, 10, **settings), count))


def test_a_resumed_pipeline_gives_the_rest_of_the_same_batches():
    whole, rest = take(7), take(4, start_step=3)
    for a, b in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        np.testing.assert_array_equal(a["noise"], b["noise"])


@pytest.mark.parametrize("parts", [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0,), (1, 2, 3))])
def test_processes_load_their_rows_of_the_same_global_batch_and_no_others(parts):
    loaded = [take(6, rows=rows) for rows in parts]
    for step, whole in enumerate(take(6)):
        for rows, part in zip(parts, loaded, strict=True):
            for name in ("index", "noise"):
                np.testing.assert_array_equal(part[step][name], whole[name][list(rows)])
        indices = pipeline.batch_indices(10, batch_size=4, seed=3, step=step + 1)
        np.testing.assert_array_equal(indices, whole["index"])


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
            return sources.Record(b"broken", record.label, f"broken {index}")
        return record


def test_an_unreadable_image_is_replaced_by_the_next_and_reported():
    source = Broken(sources.open_source("embedded"), lambda i: i in (5, 6))
    load = pipeline.image_loader(source, size=8, crop="center", flip=False)
    rng = np.random.default_rng
    replaced, next_readable = load(5, rng(0)), load(7, rng(0))
    np.testing.assert_array_equal(replaced["image"], next_readable["image"])
    assert replaced["unreadable"] == 5 and next_readable["unreadable"] == -1
    assert replaced["label"] == source[7].label


def test_a_source_without_readable_images_is_an_error():
    source = Broken(sources.open_source("embedded"), lambda i: True)
    load = pipeline.image_loader(source, size=8, crop="center", flip=False)
    with pytest.raises(InputError, match="100 images in a row cannot be read, .* broken 2"):
        load(2, np.random.default_rng(0))


def test_flips_mirror_half_of_the_images():
    source = sources.open_source("embedded")
    load = pipeline.image_loader(source, size=8, crop="center", flip=True)
    plain = pipeline.image_loader(source, size=8, crop="center", flip=False)
    original = plain(4, np.random.default_rng(0))["image"]
    seen = [load(4, np.random.default_rng(seed))["image"] for seed in range(40)]
    same = sum((image == original).all() for image in seen)
    mirrored = sum((image == original[:, ::-1]).all() for image in seen)
    assert same + mirrored == 40 and 10 <= same <= 30


def test_an_unknown_crop_is_refused():
    with pytest.raises(InputError, match="config.data.crop = 'middle'"):
        pipeline.image_loader(sources.open_source("embedded"), size=8, crop="middle", flip=False)
