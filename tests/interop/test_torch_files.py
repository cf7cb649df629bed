"""Files of PyTorch hold objects and tensors of many kinds; nothing of them is run."""

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
import torch
from safetensors.torch import save_file

from maskgil_jax.interop import conversion, engine
from maskgil_jax.runtime.errors import InputError
from tests.helpers.small_vq import check_read, refused, saved


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


def test_a_file_that_was_zipped_anew_is_read(arrays, state, tmp_path):
    saved(tmp_path / "x.pt", {"model": state})
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    check_read(tmp_path / "y.pt", arrays)


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
        InputError, match="allow_nonfinite=true takes them.*\n  encoder.conv_in.weight: 2 of"
    ):
        conversion.import_model("llamagen-vq", path, str(tmp_path / "m"), {})
    assert not (tmp_path / "m").exists()


def test_weights_that_are_not_finite_are_kept_where_asked(state, tmp_path, caplog):
    bad = {k: v.clone() for k, v in state.items()}
    bad["encoder.conv_in.weight"].view(-1)[0] = float("nan")
    path = str(saved(tmp_path / "x.pt", {"model": bad}))
    conversion.import_model("llamagen-vq", path, str(tmp_path / "m"), {}, allow_nonfinite=True)
    assert "weights are NaN or infinite, and taken: encoder.conv_in.weight" in caplog.text
    assert (tmp_path / "m" / "model.json").exists()


def test_names_for_one_array_may_be_there_once_but_not_differ():
    a, b = (engine.Entry(name, (2,), "table") for name in "ab")
    x, y = np.ones(2, np.float32), np.zeros(2, np.float32)
    assert engine.misfits([a, b], {"b": x}) == []
    assert engine.misfits([a, b], {"a": x, "b": x}) == []
    assert "not the same" in engine.misfits([a, b], {"a": x, "b": y})[0]
    np.testing.assert_array_equal(engine.load([a, b], {"b": x}, {"table": y})["table"], x)
