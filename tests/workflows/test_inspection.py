"""What inspect tells of a source, and its picture."""

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.generation import pictures
from tests.helpers import commands, tiny_models, tiny_shards

COLORS = {"cat": (200, 0, 0), "dog": (0, 200, 0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 images of two sizes with captions and classes, one that is broken, one without a row."""
    path = tmp_path_factory.mktemp("inspected")
    lines = ["file_name,text,label,author"]
    for i in range(20):
        name, size = ("cat", (40, 30)) if i % 2 else ("dog", (32, 32))
        Image.new("RGB", size, COLORS[name]).save(path / f"{i:02}.png")
        lines.append(f"{i:02}.png,a picture of a {name} number {i},{name},me")
    (path / "04.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(path / "more.png")
    (path / "notes.npy").write_bytes(b"")
    (path / "metadata.csv").write_text("\n".join(lines))
    return path


def test_it_says_what_a_source_holds_and_what_is_not_used(folder):
    done = commands.call("inspect", f"--data=folder:{folder}")
    assert done.returncode == 0, done.stderr
    for line in (
        "21 images of 2 classes (cat, dog), 20 with captions",
        "columns of metadata.csv that are not read: author",
        "1 images have no row in metadata.csv, as more.png",
        "not used: 1 (suffix .npy): notes.npy",
        "21 images looked at (all), 2 of them unreadable",
        "04.png: ",
        "more.png: no class in metadata.csv, as others have",
        "sizes: 40x30 (10), 32x32 (9)",
        "captions: 19 images have 1 each, of 27 to 28 characters (median 28)",
        "  0  cat  (10)",
        "  1  dog  (9)",
    ):
        assert line in done.stdout, (line, done.stdout)


def test_the_picture_is_of_training_examples_with_their_labels(folder, tmp_path):
    options = (f"--data=folder:{folder}", "--image_size=16", "--num=5", "--crop=center")
    outputs = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for output, seed in zip(outputs, (0, 0, 1), strict=True):
        done = commands.call("inspect", *options, f"--seed={seed}", f"--output={output}")
        assert done.returncode == 0, done.stderr
    assert "5 images looked at (of 21, spread evenly)" in done.stdout
    a, b, c = (np.asarray(Image.open(output)) for output in outputs)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    side = 128  # 16 pixels, enlarged
    cells = [
        a[y + 9, x + 9]
        for y in range(0, a.shape[0] - side, side + 51)
        for x in range(0, a.shape[1] - side + 6, side + 6)
    ]
    found = [tuple(cell) for cell in cells[:21]]
    assert {*found} == {*COLORS.values()} and len(found) == 21
    assert (a[side : side + 45, :side] < 128).any()  # the text below the first


def test_what_cannot_be_inspected_is_one_message(folder, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    for options, message in (
        ((f"--data=folder:{tmp_path}/none",), "there is no such folder"),
        ((f"--data=folder:{tmp_path}/bad",), "0 of 1 images of the source can be read"),
        ((f"--data=folder:{folder}", "--crop=none"), "crop = 'none', expected one of random"),
        ((f"--data=arrayrecord:{tmp_path}",), "no index.json there"),
    ):
        done = commands.call("inspect", *options)
        assert done.returncode == 1 and message in done.stderr, done.stderr


def test_code_shards_are_described_and_decoded(tmp_path):
    tokenizer = tiny_models.tokenizer()
    tokenizer.save(tmp_path / "vq")
    records = [[tiny_shards.record(i) for i in range(9)]]
    known = dict(
        path=f"{tmp_path}/vq", fingerprint=tokenizer.fingerprint, codebook_size=16, downsample=2
    )
    for record in records[0]:
        record.codes[...] %= 16
    tiny_shards.write(tmp_path / "codes", records=records, tokenizer=known)
    done = commands.call("inspect", f"--data=arrayrecord:{tmp_path}/codes")
    assert done.returncode == 0, done.stderr
    assert "9 images of 10 classes" in done.stdout and "no captions" in done.stdout
    assert "grids, rows x columns of tokens: 4 x 4 (9)" in done.stdout
    output = f"--output={tmp_path}/p.png"
    done = commands.call("inspect", f"--data=arrayrecord:{tmp_path}/codes", output)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "p.png").size[0] > 8 * 100


def test_titles_are_wrapped_and_cut():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    picture = pictures.titled(images, ["", "word " * 100, "x" * 500], 2)
    cell = (8 * 15 + 6, 8 * 15 + 51)
    assert picture.shape == (2 * cell[1], 2 * cell[0], 3)
    below = picture[8 * 15 : cell[1]]
    assert (below[:, : cell[0]] == 255).all() and (below[:, cell[0] :] < 255).any()
