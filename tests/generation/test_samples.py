"""The files of samples: complete or marked, never mixed, the same whether it stopped or not."""

import logging

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.evaluation import image_sets
from maskgil_jax.generation import pictures, samples
from maskgil_jax.generation.placing import Devices
from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError
from tests.helpers.plain_tokenizer import Tokenizer, names, numbered

SETTINGS = {"generator": "abc", "seed": 0, "options": {"guidance": 3.0}}


class Sampler:
    """Image i of a label; stops after so many batches."""

    def __init__(self, stop=None, seed=0):
        self.batches, self._stop, self._seed = [], stop, seed

    def __call__(self, labels, start):
        if len(self.batches) == self._stop:
            raise KeyboardInterrupt
        self.batches.append(int(start[0]))
        numbers = 7 * start + 50 * labels + self._seed
        return (numbers[:, None, None] + np.arange(6).reshape(2, 3)) % 256


def sample(output, sampler, *, labels=(0, 1), each=5, settings=SETTINGS, rows=3, **options):
    samples.write_samples(
        sampler,
        Tokenizer(),
        output,
        settings=settings,
        size=(4, 6),
        labels=np.array(labels),
        names=["cat", "dog", "owl"],
        per_label=each,
        devices=Devices(None, rows),
        **options,
    )


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def whole(tmp_path):
    sample(tmp_path / "whole", Sampler())
    return tmp_path / "whole"


def test_samples_are_pngs_a_grid_and_an_npz_of_the_same_images(whole):
    assert names(whole) == [*numbered(10), "grid.png", "samples.npz"]
    with np.load(whole / "samples.npz") as arrays:
        assert arrays["labels"].tolist() == [0] * 5 + [1] * 5
        assert arrays["class_names"].tolist() == ["cat", "dog", "owl"]
        for i, image in enumerate(arrays["arr_0"]):
            with Image.open(whole / f"{i:05}.png") as file:
                np.testing.assert_array_equal(np.asarray(file), image)
    assert len(image_sets.open_images(str(whole))) == 10


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_half_of_the_samples_are_refused_and_go_on_to_the_same_bits(
    batches, whole, tmp_path, caplog
):
    output = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        sample(output, Sampler(stop=batches))
    for path in (f"{output}", f"folder:{output}"):
        with pytest.raises(InputError, match="stopped is unfinished"):
            image_sets.open_images(path)
    rest = Sampler()
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        sample(output, rest)
    assert rest.batches == list(range(3 * batches, 10, 3))
    assert f"{3 * batches} of 10 images are there" in caplog.text
    assert content(output) == content(whole)


def test_an_image_that_is_gone_or_damaged_is_sampled_again(whole, tmp_path):
    expected = content(whole)
    (whole / "00004.png").unlink()
    (whole / "00009.png").write_bytes(expected["00009.png"][:60])
    pictures.save(whole / "00001.png", np.zeros((9, 9, 3), np.uint8))
    again = Sampler()
    sample(whole, again)
    assert again.batches == [0, 3, 9] and content(whole) == expected
    nothing = Sampler()
    sample(whole, nothing)
    assert not nothing.batches and content(whole) == expected


OTHERS = {
    "fewer": dict(each=2),
    "labels": dict(labels=(1, 0)),
    "seed": dict(settings=SETTINGS | {"seed": 1}),
    "model": dict(settings=SETTINGS | {"generator": "abd"}),
    "options": dict(settings=SETTINGS | {"options": {"guidance": 3.5}}),
}


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("case", OTHERS)
def test_other_samples_remove_what_the_first_wrote_and_nothing_else(case, stop, tmp_path, caplog):
    output = tmp_path / "out"
    (output).mkdir()
    for name in ("notes.txt", "00099.png", "a.png", "model.json"):
        (output / name).write_text("mine")
    if stop:
        with pytest.raises(KeyboardInterrupt):
            sample(output, Sampler(stop=stop))
    else:
        sample(output, Sampler())
    other = Sampler(seed=3)
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        sample(output, other, **OTHERS[case])
    count = 4 if case == "fewer" else 10
    assert other.batches[0] == 0 and len(other.batches) == -(-count // 3)
    expected = [*numbered(count), "grid.png", "samples.npz"]
    assert names(output) == sorted([*expected, "00099.png", "a.png", "model.json", "notes.txt"])
    assert (output / "00099.png").read_text() == "mine"
    assert len(image_sets.open_images(str(output))) == count
    assert f"holds {6 if stop else 12} files of a run with other settings" in caplog.text


def test_images_of_others_stay_where_their_number_is_not_ours(tmp_path):
    for number in (3, 50):
        pictures.save(tmp_path / f"{number:05}.png", np.zeros((4, 6, 3), np.uint8))
    files.write_npz(tmp_path / "samples.npz", arr_0=np.zeros((60, 4, 6, 3), np.uint8))
    sample(tmp_path, Sampler(), each=1)
    assert names(tmp_path) == [*numbered(2), "00003.png", "00050.png", "grid.png", "samples.npz"]


def test_a_folder_of_others_needs_no_index(tmp_path):
    for name in numbered(3):
        pictures.save(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    assert len(image_sets.open_images(str(tmp_path))) == 3


def test_pictures_are_written_atomically(tmp_path, monkeypatch):
    picture = np.zeros((4, 6, 3), np.uint8)
    pictures.save(tmp_path / "a.png", picture)
    before = content(tmp_path)

    def fails(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(files.epath.Path, "replace", fails, raising=False)
    monkeypatch.setattr(type(files.epath.Path(tmp_path)), "replace", fails)
    with pytest.raises(OSError):
        pictures.save(tmp_path / "a.png", picture + 1)
    assert before["a.png"] == content(tmp_path)["a.png"]


def test_a_directory_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/out cannot be written"):
        sample(tmp_path / "file" / "out", Sampler())


@pytest.mark.parametrize("part", [b"", b"PK", b"not a zip at all"])
def test_a_damaged_index_of_an_earlier_draw_stops_nothing(part, whole, caplog):
    expected = content(whole)
    (whole / "samples.npz").write_bytes(part)
    sample(whole, Sampler())
    assert "is not of samples of this version: what lies beside it stays" in caplog.text
    assert content(whole) == expected
