"""Directories, parts, indices, damage: what is not complete is refused and named."""

import argparse
import collections
import json
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch

from maskgil_jax.interop import files, llamagen_vq
from maskgil_jax.runtime.errors import InputError
from tests.helpers.small_vq import check_read, refused, saved


def shards(folder, arrays, suffix="safetensors", index=True, name="model"):
    folder.mkdir(exist_ok=True)
    parts = [f"{name}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    ordered = sorted(arrays)
    for i, file in enumerate(parts):
        part = {k: arrays[k] for k in ordered[i::2]}
        if suffix == "safetensors":
            safetensors.numpy.save_file(part, folder / file)
        else:
            saved(folder / file, {k: torch.from_numpy(x) for k, x in part.items()})
    listed = {k: parts[i % 2] for i, k in enumerate(ordered)}
    if index:
        (folder / f"{name}.{suffix}.index.json").write_text(json.dumps({"weight_map": listed}))
    return [folder / file for file in parts]


@pytest.mark.parametrize("suffix, name", [("safetensors", "model"), ("bin", "pytorch_model")])
@pytest.mark.parametrize("index", [True, False])
def test_a_directory_of_parts_is_read(suffix, name, index, arrays, tmp_path):
    parts = shards(tmp_path / "d", arrays, suffix, index, name)
    (tmp_path / "d" / "README.md").write_text("# words")
    check_read(tmp_path / "d", arrays)
    check_read(",".join(map(str, parts)), arrays)
    if index:
        check_read(tmp_path / "d" / f"{name}.{suffix}.index.json", arrays)
    parts[1].unlink()
    refused(tmp_path / "d", f"{parts[1].name}.* not there|1 of 00002|{parts[1].name}.*missing")
    refused(parts[0], f"not complete: {parts[1].name} of 00002 files are missing")


def test_a_directory_of_several_files_without_numbers_is_read(arrays, tmp_path):
    for side in ("encoder", "decoder", "quant", "post"):
        part = {k: x for k, x in arrays.items() if k.startswith(side)}
        safetensors.numpy.save_file(part, tmp_path / f"{side}.safetensors")
    check_read(tmp_path, arrays)
    safetensors.numpy.save_file(
        {"quant_conv.bias": np.ones(4, np.float32)}, tmp_path / "z.safetensors"
    )
    refused(tmp_path, "quant_conv.bias is both in .*quant.safetensors and in .*z.safetensors")


def test_a_directory_of_several_networks_is_a_choice(arrays, state, tmp_path):
    for name in ("0050000.pt", "0100000.pt"):
        saved(tmp_path / name, {"model": state})
    refused(
        tmp_path, "holds several sets of weights: 0050000.pt, 0100000.pt; give the files of one"
    )
    (tmp_path / "0050000.pt").unlink()
    check_read(tmp_path, arrays)
    shards(tmp_path / "s", arrays, index=False)
    shards(tmp_path / "s", arrays, index=False, name="model.fp32")
    refused(tmp_path / "s", r"several sets of weights: model-\*.safetensors, model.fp32-\*")


@pytest.mark.parametrize(
    "index, message",
    [
        ("[]", "holds a list, expected an object"),
        ("{}", "'weight_map' is missing"),
        ('{"weight_map": {"a": 3}}', "a is in 3, expected a file beside it"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "expected a file beside it"),
        ("{", "not readable JSON"),
        ('{"weight_map": {"b": "model-00001-of-00002.safetensors"}}', "by the index b is in"),
    ],
)
def test_an_index_that_lies_is_refused(index, message, arrays, tmp_path):
    shards(tmp_path / "d", arrays)
    (tmp_path / "d" / "model.safetensors.index.json").write_text(index)
    refused(tmp_path / "d", message)


def test_directories_without_weights_are_named(tmp_path):
    refused(tmp_path, "has no file of tensors")
    (tmp_path / "model.json").write_text("{}")
    refused(tmp_path, "is a model directory of this package already")
    refused(tmp_path / "none", "no such file")


STRANGERS = {
    b"": "is empty",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n": "Git LFS pointer",
    b"<!doctype html><html>": "HTML",
    b'{"error": "not found"}': "JSON",
    b"PK\x05\x06" + bytes(18): "zip file, but not one that torch.save wrote: it holds nothing",
    b"something else": "not a readable PyTorch file|not readable|not a PyTorch",
    struct.pack("<Q", 2**60) + b"{}": "not a readable PyTorch file|not readable safetensors",
}


@pytest.mark.parametrize("suffix", ["pt", "ckpt", "pth", "bin", "safetensors", "msgpack"])
@pytest.mark.parametrize("content", STRANGERS, ids=lambda c: STRANGERS[c][:12])
def test_files_that_are_no_weights_are_named(content, suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    match = STRANGERS[content] if suffix == "pt" or b"PK" not in content else "not"
    refused(path, "x." + suffix + f".*({match}|not readable Flax)")


def test_a_comma_may_stand_in_the_name_of_a_file(arrays, state, tmp_path):
    check_read(saved(tmp_path / "lr=1e-4,steps=3.pt", {"model": state}), arrays)


def test_another_zip_and_another_suffix_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    refused(tmp_path / "x.pt", "not one that torch.save wrote: it holds word/document.xml")
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    refused(tmp_path / "x.npz", "expected a name that ends in .safetensors, .pt")


def lying(offsets, shape=(4,), dtype="F32", size=None):
    text = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    return struct.pack("<Q", size or len(text)) + text + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        lying([0, 64], (16,)),
        lying([8, 24]),
        lying([16, 0]),
        lying([0, 16], (2**62, 8)),
        lying([0, 16], (-4,)),
        lying([0, 16], size=2**40),
        lying([0, 16], dtype="F7"),
        lying([0, 16])[:-1],
        struct.pack("<Q", 4) + b"[[[[",
        struct.pack("<Q", 2) + b"\xff\xfe",
    ],
)
def test_safetensors_whose_header_lies_are_refused(content, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    refused(tmp_path / "x.safetensors", "not readable safetensors")


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "legacy.pt"])
def test_damage_anywhere_is_refused_or_does_no_harm(suffix, tmp_path):
    """Cut or with one byte changed; a .pt has checksums, safetensors none of its numbers."""
    tensors = {"quantize.embedding.weight": np.arange(8, dtype=np.float32), "b.c": np.ones(3)}
    path, rng = tmp_path / f"x.{suffix}", np.random.default_rng(0)
    content = {
        "model": {k: torch.from_numpy(x) for k, x in tensors.items()},
        "args": argparse.Namespace(a=1),
    }
    if suffix == "safetensors":
        safetensors.numpy.save_file(tensors, path)
    else:
        saved(path, content, _use_new_zipfile_serialization=suffix == "pt")
    content, endings = path.read_bytes(), collections.Counter()
    for case in range(120):
        data, at = bytearray(content), int(rng.integers(len(content)))
        if case % 3:
            data[at] ^= 1 << int(rng.integers(8))
        else:
            del data[at:]
        path.write_bytes(data)
        try:
            tensors_read = files.read(str(path), llamagen_vq).tensors
        except InputError as error:
            endings["refused"] += 1
            assert str(path) in str(error) and "\x1b" not in str(error)
        else:
            endings["read"] += 1
            if suffix == "pt":
                assert tensors_read.keys() == tensors.keys()
                for name, x in tensors.items():
                    np.testing.assert_array_equal(tensors_read[name], x)
    assert endings["refused"] > 40
