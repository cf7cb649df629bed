import json
import logging
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image

import maskgil_jax
from maskgil_jax.conditioning import base
from maskgil_jax.data import sources
from maskgil_jax.data.images import buckets, cropping, image_decoder
from maskgil_jax.data.shards import shard_files, shard_reader
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import code_shards
from tests.helpers import image_files, tiny


def config_for(finished, **changes):
    config = tiny.codes()
    config.update(tokenizer=str(finished / "tokenizer" / "model"), source="embedded:test")
    config.update(changes)
    return config


def read_all(directory):
    codes = shard_reader.CodeShards(str(directory))
    return [codes[i] for i in range(len(codes))]


def test_shards_hold_the_codes_of_every_image_in_order(finished):
    records = read_all(finished / "codes")
    tokenizer = maskgil_jax.load(finished / "tokenizer" / "model")
    pixels, labels = sources.center_crops(sources.open_source("embedded"), 8, 1437)
    assert len(records) == 1437
    assert [record.label for record in records] == labels.tolist()
    expected = np.asarray(tokenizer.encode(pixels[:64].astype(np.float32) / 127.5 - 1))
    np.testing.assert_array_equal(np.stack([record.codes[0] for record in records[:64]]), expected)


def test_an_interrupted_run_goes_on_without_loss_or_duplicates(finished, tmp_path, monkeypatch):
    config = config_for(finished, shard_size=100)
    write_shard = shard_files.write_shard

    def dies_at_the_third(path, records, grids):
        if "00002" in path.name:
            raise KeyboardInterrupt
        return write_shard(path, records, grids)

    monkeypatch.setattr(shard_files, "write_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        code_shards.run(config, epath.Path(tmp_path / "cut"))
    with pytest.raises(InputError, match="not all of 4 shards are written"):
        shard_reader.CodeShards(str(tmp_path / "cut"))
    monkeypatch.undo()
    code_shards.run(config, epath.Path(tmp_path / "cut"))
    code_shards.run(config, epath.Path(tmp_path / "straight"))
    cut, straight = read_all(tmp_path / "cut"), read_all(tmp_path / "straight")
    assert len(cut) == len(straight) == 360
    for a, b in zip(cut, straight, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)
        assert a.label == b.label and a.id == b.id


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """40 images of many shapes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 255, (*rng.integers(8, 40, 2), 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


LUMINA_8 = buckets.named("lumina", 8, 2)


@pytest.mark.slow
def test_each_image_becomes_codes_of_the_bucket_that_fits_it(finished, photos, tmp_path):
    source = sources.open_source(f"folder:{photos}")
    config = config_for(finished, source=f"folder:{photos}", buckets="lumina", shard_size=16)
    code_shards.run(config, epath.Path(tmp_path))
    codes, tokenizer = shard_reader.CodeShards(str(tmp_path)), maskgil_jax.load(config.tokenizer)
    assert codes.index.grids == LUMINA_8.grids(2) and len(codes.index.grids) == 7
    places = {source[i].id: i for i in range(40)}
    assert {codes[i].id for i in range(40)} == set(places)
    for i in range(40):
        image = image_decoder.decode(source[places[codes[i].id]].image)
        (bucket,) = LUMINA_8.nearest(np.array([image.height]), np.array([image.width]))
        crop = cropping.bucket_crop(image, *LUMINA_8.sizes[bucket])
        expected = np.asarray(tokenizer.encode(crop[None].astype(np.float32) / 127.5 - 1))
        np.testing.assert_array_equal(codes[i].codes, expected)
        assert codes.grids[i] == bucket and codes[i].size == (image.height, image.width)
        assert places[codes[i].id] // 16 == i // 16  # of the same shard
    counts = json.loads((tmp_path / "index.json").read_text())["examples_of_grid"]
    assert list(counts.values()) == np.bincount(codes.grids, minlength=7).tolist()
    assert sum(counts.values()) == 40 and counts["2x8"] == (codes.grids == 0).sum()
    with pytest.raises(InputError, match="buckets = 'lumina' hold 7 grids, expected .* squares"):
        codes.index.grid  # noqa: B018


def test_random_crops_depend_on_the_seed_and_the_image_only(finished, photos, tmp_path):
    def made(name, **changes):
        config = config_for(finished, source=f"folder:{photos}", crops="random", views=3)
        config.update(changes)
        code_shards.run(config, epath.Path(tmp_path / name))
        return [record.codes for record in read_all(tmp_path / name)]

    first, same = made("first", shard_size=16), made("same", batch_size=3)
    other = made("other", seed=1)
    assert first[0].shape == (3, 4, 4)
    assert not (first[0][0] == first[0][1]).all()
    np.testing.assert_array_equal(first, same)
    assert not (np.array(first) == np.array(other)).all(axis=(1, 2, 3)).any()
    with pytest.raises(InputError, match="another kind.*\n.*views: 3 -> 4"):
        made("first", shard_size=16, views=4)


@pytest.mark.slow
def test_a_killed_run_goes_on_without_loss_or_duplicates(finished, photos, tmp_path):
    """kill -9 after the second of 20 shards is there."""
    config = config_for(
        finished, source=f"folder:{photos}", buckets="lumina", crops="random", views=2, shard_size=2
    )
    command = [sys.executable, "-m", "maskgil_jax.tokenize", f"--output={tmp_path}/killed"]
    command += [f"--data={config.source}", "--image_size=8"]
    command += [
        f"--{name}={config[name]}"
        for name in ("tokenizer", "buckets", "crops", "views", "shard_size")
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    files = tmp_path / "killed"
    while process.poll() is None and len(list(files.glob("*.array_record"))) < 2:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    with pytest.raises(InputError, match="not all of 20 shards are written"):
        shard_reader.CodeShards(str(tmp_path / "killed"))
    code_shards.run(config, epath.Path(tmp_path / "killed"))
    code_shards.run(config, epath.Path(tmp_path / "straight"))
    killed, straight = (
        shard_reader.CodeShards(str(tmp_path / name)) for name in ("killed", "straight")
    )
    assert len(killed) == len(straight) == 40
    np.testing.assert_array_equal(killed.grids, straight.grids)
    for i in range(40):
        np.testing.assert_array_equal(killed[i].codes, straight[i].codes)
        assert killed[i].id == straight[i].id


def test_shards_of_an_older_format_are_refused(finished, tmp_path):
    code_shards.run(config_for(finished), epath.Path(tmp_path))
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "format": 1}))
    with pytest.raises(InputError, match="is of format 1, expected 2: make the shards again"):
        shard_reader.CodeShards(str(tmp_path))


def test_ten_crops_are_kept_and_one_is_drawn(finished, tmp_path):
    from maskgil_jax.data import pipeline

    code_shards.run(config_for(finished, crops="ten"), epath.Path(tmp_path))
    codes = shard_reader.CodeShards(str(tmp_path))
    assert codes[0][0].shape == (10, 4, 4) and codes.index.views == 10
    load = pipeline.code_loader(codes, codes.grids, base.read_class)
    drawn = {load(0, np.random.default_rng(s))["codes"].tobytes() for s in range(30)}
    assert drawn <= {view.tobytes() for view in codes[0][0]} and len(drawn) > 1


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory):
    """Images that are good, those that are none, and their numbers by kind."""
    folder, patch = tmp_path_factory.mktemp("odd"), Image.new("RGB", (16, 16), (200, 60, 60))
    jpeg = image_files.encoded(image_files.photo(), "JPEG", quality=90)
    files = {
        "p3.png": image_files.encoded(patch, icc_profile=image_files.icc(image_files.DISPLAY_P3)),
        "texts.png": image_files.with_chunks(
            image_files.encoded(patch), [(b"tEXt", b"a\0" + bytes(2_000_000))]
        ),
        "whole.jpg": jpeg,
        "half.jpg": jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "page.jpg": b"<html>404</html>",
        "other page.jpg": b"<html>503</html>",
        "empty.png": b"",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_odd_images_are_read_or_left_out_counted_and_named(finished, odd_images, tmp_path, caplog):
    config = config_for(finished, source=f"folder:{odd_images}", bad_image_limit=0.9)
    code_shards.run(config, epath.Path(tmp_path / "codes"))
    index = json.loads((tmp_path / "codes" / "index.json").read_text())
    assert (index["examples"], index["unreadable"], index["color"]) == (3, 4, "srgb")
    assert "2 x an HTML page, 1 x a damaged image, 1 x an empty file" in caplog.text
    for name in ("half.jpg", "page.jpg", "other page.jpg", "empty.png"):
        assert f"{name}: " in caplog.text
    config.bad_image_limit = 0.5
    with pytest.raises(InputError, match="4 of 7 images cannot be read.*2 x an HTML page"):
        code_shards.run(config, epath.Path(tmp_path / "stopped"))


def test_codes_are_of_the_colours_that_the_index_records(finished, odd_images, tmp_path):
    made = {}
    for color, patch in (("srgb", (219, 37, 49)), ("ignore", (200, 60, 60))):
        config = config_for(
            finished, source=f"folder:{odd_images}", bad_image_limit=0.9, color=color
        )
        code_shards.run(config, epath.Path(tmp_path / color))
        made[color] = read_all(tmp_path / color)[0].codes[0]
        record = next(r for r in sources.open_source(config.source) if r.id.endswith("p3.png"))
        pixels = cropping.center_crop(image_decoder.decode(record.image, color), 8)
        assert np.abs(pixels.astype(int) - patch).max() <= 3
        tokenizer = maskgil_jax.load(config.tokenizer)
        expected = np.asarray(tokenizer.encode(pixels[None].astype(np.float32) / 127.5 - 1))[0]
        np.testing.assert_array_equal(made[color], expected)
    with pytest.raises(InputError, match="another kind.*\n  color: ignore -> srgb"):
        config.color = "srgb"
        code_shards.run(config, epath.Path(tmp_path / "ignore"))


def test_shards_from_before_profiles_were_read_ignored_them(finished, tmp_path):
    code_shards.run(config_for(finished), epath.Path(tmp_path))
    index = json.loads((tmp_path / "index.json").read_text())
    del index["color"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert shard_reader.CodeShards(str(tmp_path)).index.color == "ignore"


def test_shards_of_another_kind_are_not_mixed(finished, tmp_path):
    code_shards.run(config_for(finished), epath.Path(tmp_path))
    with pytest.raises(InputError, match="holds shards of another kind.*\n.*crops: center -> flip"):
        code_shards.run(config_for(finished, crops="flip"), epath.Path(tmp_path))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(tokenizer="/nowhere"), "/nowhere is not a model directory"),
        (dict(crops="five"), "crops = 'five'"),
        (dict(image_size=31), "image_size = 31, expected a multiple of 2"),
        (dict(source="embedded:x"), "embedded:x"),
        (dict(buckets="lumina", crops="ten"), "ten-crop is of squares"),
        (dict(buckets="pixart"), "image_size = 8 with buckets = 'pixart'"),
        (dict(color="p3"), "color = 'p3', expected one of srgb, ignore"),
        (dict(views=2), "views = 2 with crops = 'center': expected random"),
    ],
)
def test_bad_input_is_named(changes, message, finished, tmp_path):
    with pytest.raises(InputError, match=message):
        code_shards.run(config_for(finished, **changes), epath.Path(tmp_path))


@pytest.fixture
def damaged(photos, tmp_path):
    """Twelve images in three shards, three of which are broken, and what is no image."""
    folder = tmp_path / "damaged" / "class"
    folder.mkdir(parents=True)
    for i in range(12):
        data = (photos / f"{i:02}.png").read_bytes()
        (folder / f"{i:02}.png").write_bytes(data[:50] if i in (1, 2, 9) else data)
    (folder / "00.txt").write_text("one")
    (folder / "00.npy").write_bytes(b"")
    return f"folder:{tmp_path}/damaged"


def dies_at(monkeypatch, shard):
    write_shard = shard_files.write_shard

    def write(path, records, grids):
        if shard in path.name:
            raise KeyboardInterrupt
        return write_shard(path, records, grids)

    monkeypatch.setattr(shard_files, "write_shard", write)


def test_the_index_says_what_was_seen_and_names_what_is_left_out(
    finished, damaged, tmp_path, monkeypatch, caplog
):
    config = config_for(finished, source=damaged, shard_size=4, bad_image_limit=0.3)
    output = epath.Path(tmp_path / "codes")
    dies_at(monkeypatch, "00001")
    with pytest.raises(KeyboardInterrupt):
        code_shards.run(config, output)
    monkeypatch.undo()
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        code_shards.run(config, output)
    first = (tmp_path / "codes/index.json").read_text()
    index = json.loads(first)
    assert (index["examples"], index["unreadable"], index["source"]["images"]) == (9, 3, 12)
    names = [fault.partition(": ")[0] for fault in index["unreadable_images"]]
    assert names == [f"{damaged.partition(':')[2]}/class/{i:02}.png" for i in (1, 2, 9)]
    assert index["census"]["captioned"] == 1
    assert index["census"]["not_used"]["suffix .npy"]["names"] == ["class/00.npy"]
    seen = [line for line in caplog.messages if line.startswith(damaged)]
    assert len(seen) == 1 and "12 images of 1 class (class), 1 with captions\n" in seen[0]
    code_shards.run(config, output)
    assert (tmp_path / "codes/index.json").read_text() == first
    census = shard_reader.CodeShards(str(output)).census
    assert census.images == 9 and census.missed() == 4 and census.class_names == ("class",)


def test_images_that_a_cut_run_left_out_still_count(finished, damaged, tmp_path, monkeypatch):
    config = config_for(finished, source=damaged, shard_size=4, bad_image_limit=0.2)
    dies_at(monkeypatch, "00001")
    with pytest.raises(KeyboardInterrupt):
        code_shards.run(config, epath.Path(tmp_path / "codes"))
    monkeypatch.undo()
    with pytest.raises(InputError, match="3 of 12 images cannot be read"):
        code_shards.run(config, epath.Path(tmp_path / "codes"))


def test_nothing_may_be_passed_over_where_the_limit_is_zero(finished, photos, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes((photos / "00.png").read_bytes())
    (images / "b.npy").write_bytes(b"")
    (images / ".DS_Store").write_bytes(b"")
    config = config_for(finished, source=f"folder:{images}", bad_image_limit=0.0)
    with pytest.raises(InputError, match="1 things .* bad_image_limit = 0 .* .suffix .npy.: b.npy"):
        code_shards.run(config, epath.Path(tmp_path / "codes"))
    assert not (tmp_path / "codes").exists()
    (images / "b.npy").unlink()
    code_shards.run(config, epath.Path(tmp_path / "codes"))
