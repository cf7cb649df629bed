"""Prefixes that wrappers and trainers put before names come off; sets of weights are a choice."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.small_vq import check_read, refused, saved

PREFIXES = {
    "compiled, then DDP": lambda n: f"_orig_mod.module.{n}",
    "DDP, then compiled": lambda n: f"module._orig_mod.{n}",
    "FSDP around all and a module": lambda n: (
        "_fsdp_wrapped_module."
        + n.replace("encoder.", "encoder._fsdp_wrapped_module._checkpoint_wrapped_module.")
    ),
    "a compiled module": lambda n: n.replace("encoder.", "encoder._orig_mod."),
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
    joined = {p + k: v for p, one in zip(prefixes, sets, strict=True) for k, v in one.items()}
    path = saved(tmp_path / "x.pt", joined)
    message = refused(path, "several sets of weights that fit.*arg=weights=NAME")
    assert all(name in message for name in called)
    for name, one in zip(called, sets, strict=True):
        check_read(path, {k: v.numpy() for k, v in one.items()}, weights=name)
    refused(path, "arg=weights=teachers: .* holds", "teachers")


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


def test_model_is_taken_before_ema_and_a_line_says_so(arrays, state, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    raw = {k: v + 1 for k, v in state.items()}
    path = saved(tmp_path / "x.pt", {"ema": state, "model": raw, "steps": 3})
    check_read(path, {k: x + 1 for k, x in arrays.items()})
    assert "took the weights 'model'; it holds others too: arg=weights=ema" in caplog.text
    check_read(path, arrays, weights="ema")
    refused(path, r"arg=weights=emma: .* holds \['ema', 'model'\], expected one", "emma")


@pytest.mark.parametrize("key", ["ema_model", "model_ema", "generator", "vq.state_dict", "net"])
def test_the_only_set_that_fits_is_taken_whatever_its_name(key, arrays, state, tmp_path):
    first, _, second = key.partition(".")
    content = {first: {second: state} if second else state, "disc": {"main.0": torch.ones(2)}}
    path = saved(tmp_path / "x.pt", content)
    check_read(path, arrays)
    check_read(path, arrays, weights=key)


def test_tensors_beside_a_state_dict_are_not_taken_for_it(arrays, state, tmp_path):
    check_read(saved(tmp_path / "x.pt", {"logit_scale": torch.ones(()), "model": state}), arrays)


def test_ema_is_not_taken_for_a_model_that_cannot_be_read(arrays, state, tmp_path):
    path = saved(tmp_path / "x.pt", {"model": torch.nn.Linear(2, 2), "ema": state})
    refused(path, r"model \(torch.nn.modules.linear.Linear\), and model is no state dict")
    check_read(path, arrays, weights="ema")


def test_a_dict_that_holds_itself_is_refused(tmp_path):
    content = {"a": 1}
    content["b"] = content
    refused(saved(tmp_path / "x.pt", content), r"holds a \(int\), b \(dict of int\); expected")


@pytest.mark.parametrize("content", [[1], None, torch.ones(2), {}, {0: torch.ones(1)}])
def test_a_file_without_names_of_tensors_is_refused_without_advice(content, tmp_path):
    message = refused(saved(tmp_path / "x.pt", content), "expected tensors by their names")
    assert "python -c" not in message


def test_sets_of_unusual_names_are_a_choice(state, tmp_path):
    path = saved(tmp_path / "x.pt", {"first": state, "second": state})
    refused(path, "several sets of weights, 'first', 'second': choose one by arg=weights=NAME")


def test_averaged_weights_alone_are_not_taken_for_raw_ones(state, arrays, tmp_path):
    path = saved(tmp_path / "x.pt", {"ema": state})
    check_read(path, arrays)
    refused(path, r"arg=weights=model: .* holds \['ema'\]", "model")
