"""Files that others wrote, in the ways in which they write them: a small tokenizer comes back."""

import argparse
import collections
import enum
import json
import logging
import os
import pathlib
import pickle
import shlex
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import save_file

from maskgil_jax import convert
from maskgil_jax.errors import InputError
from maskgil_jax.interop import engine, files, llama_cpp, llamagen_vq
from maskgil_jax.tokenizers.vq import VQConfig

CONFIG = VQConfig(
    channels=32,
    channel_multipliers=(1, 1),
    res_blocks=1,
    z_channels=32,
    codebook_size=64,
    codebook_dim=4,
)


@pytest.fixture(scope="module")
def arrays():
    """The tensors of a small tokenizer by LlamaGen's names, random ones."""
    rng = np.random.default_rng(0)
    return {
        entry.name: rng.standard_normal(entry.shape).astype(np.float32)
        for entry in llamagen_vq.entries(CONFIG)
        if entry.path
    }


@pytest.fixture(scope="module")
def state(arrays):
    return {name: torch.from_numpy(x) for name, x in arrays.items()}


def read(source, weights="", **arguments):
    """The tensors that an import takes, by LlamaGen's names: all of `convert` but the writing."""
    content = files.read(str(source), llamagen_vq, weights)
    return convert._fitted("llamagen-vq", llamagen_vq, str(source), content, arguments, weights)[2]


def check_read(source, expected, weights=""):
    found = read(source, weights)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name].astype(np.float32), np.asarray(x))


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refused(source, match, weights=""):
    with pytest.raises(InputError, match=match) as error:
        read(source, weights)
    assert "\x1b" not in str(error.value)
    return str(error.value)


# --- prefixes


PREFIXES = {
    "compiled, then DDP": lambda n: f"_orig_mod.module.{n}",
    "DDP, then compiled": lambda n: f"module._orig_mod.{n}",
    "FSDP around all and a part": lambda n: (
        "_fsdp_wrapped_module."
        + n.replace("encoder.", "encoder._fsdp_wrapped_module._checkpoint_wrapped_module.")
    ),
    "a compiled part": lambda n: n.replace("encoder.", "encoder._orig_mod."),
    "some of them wrapped": lambda n: f"module.{n}" if "decoder" in n else n,
    "lightning": lambda n: f"net.{n}",
    "several modules": lambda n: f"trainer.model._orig_mod.vq.{n}",
}


@pytest.mark.parametrize("kind", PREFIXES)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_prefixes_of_all_names_are_taken_off(kind, suffix, arrays, tmp_path):
    renamed = {PREFIXES[kind](name): torch.from_numpy(x) for name, x in arrays.items()}
    path = tmp_path / f"x.{suffix}"
    saved(path, {"state_dict": renamed}) if suffix == "pt" else save_file(renamed, path)
    check_read(path, arrays)


def test_a_line_says_which_prefix_was_taken_off_and_what_was_left(arrays, state, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    content = {f"net.{k}": v for k, v in state.items()} | {"loss.lpips.weight": torch.ones(2)}
    check_read(saved(tmp_path / "x.ckpt", {"state_dict": content}), arrays)
    assert f"took the prefix 'net.' off the names of {len(state)} tensors" in caplog.text
    assert "left out 1 other tensors, loss.lpips.weight" in caplog.text


@pytest.mark.parametrize(
    "prefixes, called",
    [
        (("student.", "teacher."), ("student", "teacher")),
        (("", "ema."), ("model", "ema")),
        (("model.", "ema_model."), ("model", "ema_model")),
        (("", "module."), ("model", "module")),
    ],
)
def test_two_networks_in_one_state_dict_are_told_apart(prefixes, called, arrays, state, tmp_path):
    sets = [{k: v + i for k, v in state.items()} for i in range(2)]
    joined = {p + k: v for p, part in zip(prefixes, sets, strict=True) for k, v in part.items()}
    path = saved(tmp_path / "x.pt", joined)
    message = refused(path, "several sets of weights that fit.*--arg=weights=NAME")
    assert all(name in message for name in called)
    for name, part in zip(called, sets, strict=True):
        check_read(path, {k: v.numpy() for k, v in part.items()}, weights=name)
    refused(path, "--arg=weights=teachers: .* holds", "teachers")


def test_what_was_found_is_shown_where_nothing_fits(tmp_path):
    path = saved(tmp_path / "x.pt", {"unet.a": torch.ones(1), "unet.b": torch.ones(1)})
    refused(path, "none of its 2 tensors is quantize.embedding.weight; it holds unet.a, unet.b")


def test_averaged_copies_of_a_compiled_lightning_module_are_taken(arrays, state, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    copies = {f"model_ema._orig_mod{k.replace('.', '')}": v + 1 for k, v in state.items()}
    raw = {f"_orig_mod.{k}": v for k, v in state.items()}
    path = saved(tmp_path / "x.ckpt", {"state_dict": raw | copies})
    check_read(path, {k: v + 1 for k, v in arrays.items()})
    assert f"averaged copies of {len(arrays)} of {len(arrays)} tensors" in caplog.text
    check_read(path, arrays, weights="model")


# --- sets of weights


def test_model_is_taken_before_ema_and_a_line_says_so(arrays, state, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    raw = {k: v + 1 for k, v in state.items()}
    path = saved(tmp_path / "x.pt", {"ema": state, "model": raw, "steps": 3})
    check_read(path, {k: x + 1 for k, x in arrays.items()})
    assert "took the weights 'model'; it holds others too: --arg=weights=ema" in caplog.text
    check_read(path, arrays, weights="ema")
    refused(path, r"--arg=weights=emma: .* holds \['ema', 'model'\], expected one", "emma")


@pytest.mark.parametrize("key", ["ema_model", "model_ema", "generator", "vq.state_dict", "net"])
def test_the_only_set_that_fits_is_taken_whatever_its_name(key, arrays, state, tmp_path):
    first, _, second = key.partition(".")
    content = {first: {second: state} if second else state, "disc": {"main.0": torch.ones(2)}}
    path = saved(tmp_path / "x.pt", content)
    check_read(path, arrays)
    check_read(path, arrays, weights=key)


def test_sets_of_unusual_names_are_a_choice(state, tmp_path):
    path = saved(tmp_path / "x.pt", {"first": state, "second": state})
    refused(path, "several sets of weights, 'first', 'second': choose one by --arg=weights=NAME")


def test_averaged_weights_alone_are_not_taken_for_raw_ones(state, arrays, tmp_path):
    path = saved(tmp_path / "x.pt", {"ema": state})
    check_read(path, arrays)
    refused(path, r"--arg=weights=model: .* holds \['ema'\]", "model")


# --- objects beside the tensors


class Color(enum.Enum):
    RED = 1


class Attributes(dict):
    """As Lightning keeps hyper-parameters."""


class Names(list):
    """As other libraries keep lists."""


def beside():
    nested = collections.defaultdict(list)
    nested["a"].append(1)
    attributes = Attributes(lr=1e-4)
    attributes.extra = 3
    return {
        "args": argparse.Namespace(lr=1e-4, path=pathlib.PurePosixPath("/data"), kind=Color.RED),
        "nested": nested,
        "attributes": attributes,
        "names": Names("ab"),
        "number": np.float64(2.5),
        "array": np.arange(3),
        "kind": Color,
        "slice": slice(1, 2),
        "set": frozenset((1, 2)),
        "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 1.0}]},
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_objects_beside_the_tensors_are_passed_over(zipped, arrays, state, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    content = {"model": state, **beside()}
    path = saved(tmp_path / "x.pt", content, _use_new_zipfile_serialization=zipped)
    check_read(path, arrays)
    assert (
        "passed over what holds no tensors, nothing of it was run: args (argparse.Namesp"
        in caplog.text
    )


@pytest.mark.parametrize("container", [collections.defaultdict, Attributes])
def test_a_state_dict_may_be_a_dict_of_another_class(container, arrays, state, tmp_path):
    content = container()
    content.update(state)
    check_read(saved(tmp_path / "x.pt", {"model": content}), arrays)


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, open, __import__, subprocess.check_output, os.mkdir, print],
    ids=lambda f: f.__name__,
)
def test_code_in_a_file_is_refused_and_not_run(function, zipped, state, tmp_path, capfd):
    there = tmp_path / "ran"
    argument = str(there) if function in (os.mkdir,) else f"touch {there}"
    if function in (eval, exec):
        argument = f"__import__('pathlib').Path({str(there)!r}).touch()"
    content = {"model": state, "args": Evil(function, argument)}
    path = saved(tmp_path / "x.pt", content, _use_new_zipfile_serialization=zipped)
    message = refused(path, "names .*, which is code that weights have no use for")
    assert "weights_only=False" not in message
    assert not there.exists() and not capfd.readouterr().out


@pytest.mark.parametrize(
    "function, arguments",
    [(pathlib.Path.touch, ()), (torch.hub.load, ("/x", "y")), (pickle.loads, (b"cos\nsystem\n.",))],
)
def test_what_else_a_file_would_call_is_not_called(function, arguments, state, arrays, tmp_path):
    there = tmp_path / "ran"
    call = Evil(function, *(arguments or (there,)))
    path = saved(tmp_path / "x.pt", {"model": state, "args": call})
    try:
        check_read(path, arrays)
    except InputError as error:
        assert "Trying to call reduce for unrecognized function" in str(error)
    assert not there.exists()


def test_the_advised_command_works_as_printed(arrays, state, tmp_path):
    path = tmp_path / "it's odd.pt"
    saved(path, {"model": state, "args": argparse.Namespace(a=1)}, pickle_protocol=4)
    message = refused(path, "not a PyTorch file of tensors alone: Unsupported operand")
    program = shlex.split(message.splitlines()[-1])
    assert program[:2] == ["python", "-c"]
    subprocess.run([sys.executable, "-c", program[2]], cwd=tmp_path, check=True)
    check_read(tmp_path / "tensors.pt", arrays)


def test_a_whole_module_is_named(tmp_path):
    path = saved(tmp_path / "x.pt", torch.nn.Linear(2, 2))
    refused(path, "holds a torch.nn.modules.linear.Linear; expected tensors by their names")


def test_a_torchscript_archive_is_named(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    message = refused(tmp_path / "x.pt", "is a TorchScript archive")
    program = shlex.split(message.splitlines()[-1])[2]
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec(program)
    finally:
        os.chdir(here)
    assert set(torch.load(tmp_path / "tensors.pt", weights_only=True)) == {"weight", "bias"}


# --- kinds of tensors


def test_parameters_are_read(state, arrays, tmp_path):
    content = {k: torch.nn.Parameter(v) for k, v in state.items()}
    check_read(saved(tmp_path / "x.pt", {"model": content}), arrays)


@pytest.mark.parametrize(
    "dtype", ["float64", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_floats_of_any_width_are_read(dtype, suffix, state, tmp_path):
    content = {k: v.to(getattr(torch, dtype)).contiguous() for k, v in state.items()}
    path = tmp_path / f"x.{suffix}"
    saved(path, content) if suffix == "pt" else save_file(content, path)
    check_read(path, {k: v.float().numpy() for k, v in content.items()})


def test_sparse_and_quantised_tensors_are_read_as_what_they_stand_for(state, arrays, tmp_path):
    name = "quantize.embedding.weight"
    sparse = state | {name: state[name].to_sparse()}
    check_read(saved(tmp_path / "sparse.pt", sparse), arrays)
    eight = torch.quantize_per_tensor(state[name], 0.1, 0, torch.qint8)
    path = saved(tmp_path / "eight.pt", state | {name: eight})
    check_read(path, arrays | {name: eight.dequantize().numpy()})


ODD = {
    "meta": (lambda x: x.to("meta"), "has no values to read"),
    "int8": (lambda x: (10 * x).to(torch.int8), "no real numbers: quant.* is int8"),
    "bool": (lambda x: x > 0, "no real numbers: quant.* is bool"),
    "complex": (lambda x: x.to(torch.complex64), "no real numbers: quant.* is complex64"),
    "another shape": (lambda x: x[:, :2].clone(), "mis-shaped|does not fit|do not fit"),
    "a number": (lambda x: 3, "none of its .* tensors is quantize.embedding.weight"),
}


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_weights_are_named(kind, state, tmp_path):
    change, message = ODD[kind]
    name = "quantize.embedding.weight"
    refused(saved(tmp_path / "x.pt", state | {name: change(state[name])}), message)


def test_a_dtype_that_has_no_numbers_of_its_own_is_named(tmp_path):
    header = {"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    refused(tmp_path / "x.safetensors", "a is F8_E8M0, expected one of|not readable safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_weights_that_are_not_finite_are_named(value, state, tmp_path):
    bad = {k: v.clone().double() for k, v in state.items()}
    bad["encoder.conv_in.weight"].view(-1)[:2] = value
    path = str(saved(tmp_path / "x.pt", {"model": bad}))
    with pytest.raises(
        InputError, match="--allow_nonfinite keeps them.*\n  encoder.conv_in.weight: 2 of"
    ):
        convert.import_model("llamagen-vq", path, str(tmp_path / "m"), {})
    assert not (tmp_path / "m").exists()


def test_weights_that_are_not_finite_are_kept_where_asked(state, tmp_path, caplog):
    bad = {k: v.clone() for k, v in state.items()}
    bad["encoder.conv_in.weight"].view(-1)[0] = float("nan")
    path = str(saved(tmp_path / "x.pt", {"model": bad}))
    convert.import_model("llamagen-vq", path, str(tmp_path / "m"), {}, allow_nonfinite=True)
    assert "weights are NaN or infinite, and kept: encoder.conv_in.weight" in caplog.text
    assert (tmp_path / "m" / "model.json").exists()


def test_names_for_one_array_may_be_there_once_but_not_differ():
    a, b = (engine.Entry(name, (2,), "table") for name in "ab")
    x, y = np.ones(2, np.float32), np.zeros(2, np.float32)
    assert engine.misfits([a, b], {"b": x}) == []
    assert engine.misfits([a, b], {"a": x, "b": x}) == []
    assert "not the same" in engine.misfits([a, b], {"a": x, "b": y})[0]
    np.testing.assert_array_equal(engine.load([a, b], {"b": x}, {"table": y})["table"], x)


# --- directories and parts


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
    refused(parts[0], f"not whole: {parts[1].name} of 00002 parts are missing")


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


# --- damage


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
    whole, endings = path.read_bytes(), collections.Counter()
    for case in range(120):
        data, at = bytearray(whole), int(rng.integers(len(whole)))
        if case % 3:
            data[at] ^= 1 << int(rng.integers(8))
        else:
            del data[at:]
        path.write_bytes(data)
        try:
            found = files.read(str(path), llamagen_vq).tensors
        except InputError as error:
            endings["refused"] += 1
            assert str(path) in str(error) and "\x1b" not in str(error)
        else:
            endings["read"] += 1
            if suffix == "pt":
                assert found.keys() == tensors.keys()
                for name, x in tensors.items():
                    np.testing.assert_array_equal(found[name], x)
    assert endings["refused"] > 40


def gguf(settings=b"", tensors=0, count=0):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, count) + settings


def setting(kind, value, name=b"a"):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    "content",
    [
        gguf(count=2**40),
        gguf(tensors=2**40),
        gguf(bytes(2**20), tensors=2**40),
        gguf(setting(9, struct.pack("<IQ", 0, 2**40)), count=1),  # bytes
        gguf(setting(9, struct.pack("<IQ", 8, 2**40)), count=1),  # texts
        gguf(setting(9, struct.pack("<IQ", 9, 2**40)), count=1),  # arrays
        gguf(setting(8, struct.pack("<Q", 2**40)), count=1),  # a text
        gguf(setting(0, b"\1"), count=2**40),
        gguf(setting(9, struct.pack("<IQ", 0, 100) + bytes(50)), count=1),
    ],
)
def test_gguf_whose_header_lies_is_refused_at_once(content, tmp_path):
    pytest.importorskip("gguf")
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match="x.gguf is not readable GGUF: (its header says|it ends)"):
        llama_cpp.read(str(tmp_path / "x.gguf"))
