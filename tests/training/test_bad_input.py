"""Broken tars, members, captions and images, as a user meets them: in training and tokenising."""

import io
import tarfile

import numpy as np
import pytest
from etils import epath
from PIL import Image

from maskgil_jax.data.shards import shard_index, shard_reader
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import code_shards
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, tiny


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))


def sixteen_bits():
    return Image.fromarray(np.full((16, 16), 65535, np.uint16))


UNREADABLE = {
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"no image",
    "truncated.jpg": lambda: encoded(noise(1), "JPEG")[:-60],
    "pixel.png": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "bomb.png": lambda: encoded(Image.new("1", (20000, 20000)), "PNG"),
    "strip.png": lambda: encoded(Image.new("RGB", (1000, 10)), "PNG"),
}
ODD = {
    "gif.jpg": lambda: encoded(noise(2), "GIF", save_all=True, append_images=[noise(3)]),
    "animation.webp": lambda: encoded(noise(2), "WEBP", save_all=True, append_images=[noise(3)]),
    "deep.png": lambda: encoded(sixteen_bits(), "PNG"),
    "cmyk.jpg": lambda: encoded(noise(4).convert("CMYK"), "JPEG"),
}
CAPTIONS = {
    "none.txt": b"",
    "latin.txt": "café".encode("latin-1"),
    "long.txt": b"word " * 10_000,
    "broken.json": b'{"caption": ',
}


def write(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def good(names):
    return [(f"{name}.png", encoded(noise(seed), "PNG")) for seed, name in enumerate(names)]


@pytest.fixture(scope="module")
def bad_tars(tmp_path_factory):
    """Two shards, of 41 images of which 7 cannot be read: 6 of UNREADABLE, and the end of one."""
    folder = tmp_path_factory.mktemp("tars")
    odd = [(name, make()) for name, make in ODD.items()]
    unreadable = [(name, make()) for name, make in UNREADABLE.items()]
    captioned = good(name.partition(".")[0] for name in CAPTIONS)
    write(folder / "0.tar", good(range(20)) + unreadable + odd + captioned + [*CAPTIONS.items()])
    write(folder / "1.tar", good(range(100, 110)))
    whole = (folder / "1.tar").read_bytes()
    with tarfile.open(folder / "1.tar") as file:
        last = file.getmembers()[6]
    (folder / "1.tar").write_bytes(whole[: last.offset_data + 10])
    return f"tar:{folder}/{{0,1}}.tar"


def tokenize(finished, data, output, limit):
    options = {
        "tokenizer": f"{finished}/tokenizer/model",
        "data": data,
        "output": output,
        "image_size": 8,
        "shard_size": 10,
        "batch_size": 8,
        "bad_image_limit": limit,
    }
    return commands.call("tokenize", *(f"--{k}={v}" for k, v in options.items()))


@pytest.mark.slow
def test_tokenize_refuses_bad_input_or_leaves_it_out_and_counts_it(finished, bad_tars, tmp_path):
    refused = tokenize(finished, bad_tars, tmp_path, 0)
    assert refused.returncode == 1 and "images cannot be read" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = tokenize(finished, bad_tars, tmp_path, 0.3)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr + refused.stderr  # what the first run wrote stays
    assert "1.tar: damaged at byte 9,216: a member of" in warnings
    for name in UNREADABLE:
        assert f"0.tar/{name}: " in warnings
    codes = shard_reader.CodeShards(str(tmp_path))
    names = [codes[i].id.rpartition("/")[2].partition(".")[0] for i in range(len(codes))]
    expected = [*map(str, range(20)), *(name.partition(".")[0] for name in [*ODD, *CAPTIONS])]
    assert names == [*expected, *map(str, range(100, 106))]
    assert shard_index.read_index(tmp_path)[1]["unreadable"] == len(UNREADABLE) + 1


@pytest.mark.slow
def test_training_refuses_bad_input_or_passes_over_it_and_counts_it(bad_tars, tmp_path):
    config = tiny.tokenizer()
    config.data.source = bad_tars
    config.evaluation.update(reference="", count=20)
    config.steps = 8
    config.data.bad_image_limit = 0.0
    with pytest.raises(InputError, match="bad_image_limit = 0 allows 0; a checkpoint of step"):
        run_stages(config, epath.Path(tmp_path))
    config.data.bad_image_limit = 0.3
    run_stages(config, epath.Path(tmp_path))
    last = read_log(tmp_path)[-1]
    assert last["step"] == 8 and last["unreadable_images"] == len(UNREADABLE) + 1


def test_odd_images_are_used_like_any_other(finished, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, make in ODD.items():
        (folder / name).write_bytes(make())
    config = tiny.codes()
    config.update(
        tokenizer=f"{finished}/tokenizer/model", source=f"folder:{folder}", bad_image_limit=0.0
    )
    code_shards.run(config, epath.Path(tmp_path / "codes"))
    assert len(shard_reader.CodeShards(str(tmp_path / "codes"))) == len(ODD)


def test_a_compressed_tar_is_refused_before_training(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    config = tiny.tokenizer()
    config.data.source = f"tar:{tmp_path}/a.tar"
    with pytest.raises(InputError, match="a.tar is compressed"):
        run_stages(config, epath.Path(tmp_path / "run"))
