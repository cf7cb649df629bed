"""Images and masks in files, redrawn by the command, and what it says where they do not fit."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

import maskgil_jax
from maskgil_jax.conditioning import speech
from maskgil_jax.generation import edited_files
from maskgil_jax.generation.options import Companions, Decoding, EditOptions
from maskgil_jax.pretrained.generators import make_generator
from maskgil_jax.runtime.errors import InputError
from tests.helpers import sounds, tiny_llama, tiny_models

SIZE = (12, 10)  # width and height of the images
BOX = (3, 2, 9, 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model directory, of 4 classes and of images of 12 x 8 pixels."""
    folder = tmp_path_factory.mktemp("models")
    tiny_models.tokenizer().save(folder / "t")
    tokenizer = maskgil_jax.load_tokenizer(folder / "t")
    network = tiny_llama.masked(num_classes=4, codebook_size=16, grid=(4, 6)).network
    names = ("cat", "dog", "red fox", "tench")
    make_generator(network, tokenizer.provenance, names).save(folder / "g")
    return folder / "g"


@pytest.fixture
def folder(tmp_path):
    """IMAGES with a.png and b.jpg, and MASKS of these names."""
    rng = np.random.default_rng(0)
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
    for name, mask in (("a.png", "a.png"), ("b.jpg", "b.png")):
        pixels = rng.integers(0, 256, (*SIZE[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        Image.fromarray(masked().astype(np.uint8) * 255).save(tmp_path / "masks" / mask)
    return tmp_path


def masked():
    left, top, right, bottom = BOX
    where = np.zeros(SIZE[::-1], bool)
    where[top:bottom, left:right] = True
    return where


def options(model, folder, **changes):
    given = dict(
        model=str(model),
        output=str(folder / "out"),
        image=str(folder / "images"),
        mask=str(folder / "masks"),
        classes=("red fox", "1"),
        num=2,
        companions=Companions(),
        decoding=Decoding(steps=2, guidance=1.0),
    )
    return EditOptions(**given | changes)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_folders_are_edited_and_what_was_stopped_goes_on(model, folder, caplog):
    edited_files.edit(options(model, folder))
    out = folder / "out"
    files = sorted(path.name for path in out.iterdir())
    drawn = [f"{name}-{i:02}.png" for name in "ab" for i in range(4)]
    assert files == sorted([*drawn, "edits.json", "grid.png"])
    for name, source in (("a", "a.png"), ("b", "b.jpg")):
        before = read(folder / "images" / source)
        for i in range(4):
            after = read(out / f"{name}-{i:02}.png")
            np.testing.assert_array_equal(after[~masked()], before[~masked()])
            assert (after[masked()] != before[masked()]).any()
    index = json.loads((out / "edits.json").read_text())
    assert [index["files"][name]["shows"] for name in drawn[:4]] == ["red fox"] * 2 + ["dog"] * 2

    kept = {name: (out / name).read_bytes() for name in drawn}
    (out / "edits.json").rename(folder / "edits.json")
    (out / "unfinished.json").write_text(
        json.dumps({"settings": index["settings"], "files": [*drawn, "grid.png", "edits.json"]})
    )
    (out / "b-02.png").unlink()
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        edited_files.edit(options(model, folder, batch_size=3))
    assert "1 of 2 images are done" in caplog.text
    assert {name: (out / name).read_bytes() for name in drawn} == kept
    assert not (out / "unfinished.json").exists()


def test_one_image_by_a_box_is_what_python_gives(model, folder):
    one = dict(image=str(folder / "images" / "a.png"), mask="", num=1)
    edited_files.edit(options(model, folder, box=BOX, **one))
    pipe = maskgil_jax.pipeline(model)
    expected = pipe.edit(folder / "images" / "a.png", BOX, ["red fox", 1], steps=2, guidance=1.0)
    for i, image in enumerate(expected):
        np.testing.assert_array_equal(read(folder / "out" / f"a-{i:02}.png"), np.asarray(image))


def test_a_canvas_is_drawn_around_images_of_a_folder(model, folder):
    changes = dict(mask="", canvas="16x12", place=(4, 0), num=1, classes=("cat",))
    edited_files.edit(options(model, folder, **changes))
    after = read(folder / "out" / "a-00.png")
    assert after.shape == (12, 16, 3)
    np.testing.assert_array_equal(after[:10, 4:], read(folder / "images" / "a.png"))


def test_a_model_of_speech_redraws_what_is_said(model, folder):
    encoder = {"path": speech.LOG_MEL, "fingerprint": speech.LOG_MEL, "width": speech.BINS}
    network = tiny_llama.masked(
        num_classes=0,
        codebook_size=16,
        grid=(4, 6),
        feature_dim=20 * speech.BINS,
        condition_tokens=3,
    ).network
    tokenizer = maskgil_jax.load_tokenizer(model.parent / "t")
    make_generator(network, tokenizer.provenance, encoder=encoder).save(folder / "g")
    said = folder / "said.wav"
    said.write_bytes(sounds.written(sounds.sound(16000), 16000, "WAV"))
    one = dict(image=str(folder / "images" / "a.png"), mask="", box=BOX, num=1, classes=())
    edited_files.edit(options(folder / "g", folder, speech=(str(said),), **one))
    pipe = maskgil_jax.pipeline(folder / "g")
    fast = dict(steps=2, guidance=1.0)
    [expected] = pipe.edit(folder / "images" / "a.png", BOX, speech=said, **fast)
    np.testing.assert_array_equal(read(folder / "out" / "a-00.png"), np.asarray(expected))
    with pytest.raises(InputError, match="speech=.*a.png: "):
        pipe(speech=folder / "images" / "a.png")


def other_mask(folder):
    Image.new("L", (9, 9)).save(folder / "masks" / "b.png")


BAD = {
    "mask size": (other_mask, {}, "b.png has 9 x 9 pixels, but image=.* has 12 x 10: expected the"),
    "no mask": (
        lambda folder: (folder / "masks" / "b.png").unlink(),
        {},
        "1 of 2 images have no mask of their name, the first is b",
    ),
    "two of a name": (
        lambda folder: (folder / "images" / "a.webp").write_bytes(b""),
        {},
        "has a.png and a.webp, expected names that differ",
    ),
    "damaged": (
        lambda folder: (folder / "images" / "a.png").write_bytes(b"x" * 99),
        {},
        "image=.*a.png: a text .99 bytes., not an image",
    ),
    "nothing": (None, dict(mask=""), "one of mask, box and canvas is expected"),
    "both": (None, dict(box=BOX), "mask and box are given, expected one of them"),
    "box": (None, dict(mask="", box=(1, 2)), "box=1,2, expected LEFT,TOP,RIGHT,BOTTOM in an image"),
    "canvas": (None, dict(canvas="9x99"), "canvas=9x99, expected at least the 12x10 pixels of the"),
    "canvas text": (None, dict(canvas="9"), "canvas=9, expected WIDTHxHEIGHT in pixels"),
    "place": (None, dict(place=(0, 0)), "place=0,0, expected LEFT,TOP of the image on a canvas"),
    "size": (None, dict(size="13x8"), "size=13x8, expected multiples of 2"),
    "class": (None, dict(classes=("fox",)), "class 'fox' is none .* the nearest are 'red fox'"),
    "condition": (None, dict(classes=()), "one of classes=207,360 .* is expected, none given"),
    "speech": (None, dict(speech=("a.wav",)), "classes and speech given"),
    "method": (
        None,
        dict(decoding=Decoding(method="autoregressive")),
        "method=autoregressive needs a causal model",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_said_before_anything_is_written(case, model, folder):
    change, changes, message = BAD[case]
    if change:
        change(folder)
    with pytest.raises(InputError, match=message):
        edited_files.edit(options(model, folder, **changes))
    assert not (folder / "out").exists()
