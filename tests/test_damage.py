"""Model directories that are damaged or odd: one message, or a warning, and never a traceback."""

import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.pretrained import loading, model_directory
from maskgil_jax.runtime import trees
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_gemma, tiny_models


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A generator and its tokenizer."""
    directory = tmp_path_factory.mktemp("saved")
    tiny_models.tokenizer().save(directory / "tokenizer")
    provenance = maskgil_jax.load(directory / "tokenizer").provenance
    tiny_models.masked(provenance).save(directory / "generator")
    return directory


@pytest.fixture(params=["generator", "tokenizer"])
def model(request, saved, tmp_path):
    """A copy to be damaged, of either kind."""
    return shutil.copytree(saved / request.param, tmp_path / request.param)


def largest(directory):
    """The file that holds the values."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def flip(path, at, mask=4):
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)


def described(directory, **changes):
    path = directory / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def changed(directory, like):
    """Replace the parameters, and leave model.json as it was."""
    description = (directory / "model.json").read_bytes()
    kind = json.loads(description)
    arguments = {"kind": kind["kind"], "class": kind["class"], "arguments": kind["arguments"]}
    model_directory.save_model(directory, arguments, like)
    (directory / "model.json").write_bytes(description)


def test_what_is_whole_is_loaded_with_its_fingerprint(saved):
    for name in ("generator", "tokenizer"):
        recorded = json.loads((saved / name / "model.json").read_text())["fingerprint"]
        loaded = maskgil_jax.load(saved / name)
        assert loaded.fingerprint == recorded == model_directory.fingerprint(loaded.network)
    loading.load_pair(saved / "generator", "")


def test_one_changed_bit_of_a_weight_is_refused_unless_told_otherwise(model, capfd):
    network = maskgil_jax.load(model).network
    flat = trees.flatten(network)
    name = sorted(flat)[-1]
    value = np.array(flat[name])
    value.reshape(-1).view(np.uint32)[0] ^= 1
    changed(model, flat | {name: jnp.asarray(value)})
    with pytest.raises(InputError) as raised:
        maskgil_jax.load(model)
    recorded = json.loads((model / "model.json").read_text())["fingerprint"]
    for part in (str(model), recorded, "is damaged or was changed", "verify=false"):
        assert part in str(raised.value)
    assert maskgil_jax.load(model, verify=False).fingerprint == recorded


def test_the_other_files_of_a_model_count_too(tmp_path):
    tiny_gemma.encoder().save(tmp_path / "encoder")
    maskgil_jax.load(tmp_path / "encoder")
    flip(tmp_path / "encoder" / "tokenizer.model", -3, mask=1)
    with pytest.raises(InputError, match=r"its files \(params, tokenizer.model\) have the finger"):
        maskgil_jax.load(tmp_path / "encoder")
    (tmp_path / "encoder" / "tokenizer.model").unlink()
    with pytest.raises(InputError, match="is not whole: it has no tokenizer.model"):
        maskgil_jax.load(tmp_path / "encoder")


DAMAGE = {
    "flipped": lambda path: flip(path, path.stat().st_size // 2),
    "200 bytes": lambda path: path.write_bytes(
        path.read_bytes()[:3000] + bytes(200) + path.read_bytes()[3200:]
    ),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_values_are_one_message(kind, saved, tmp_path, capfd, caplog):
    model = shutil.copytree(saved / "tokenizer", tmp_path / "tokenizer")
    DAMAGE[kind](largest(model / "params"))
    with pytest.raises(InputError, match=str(model)):
        loading.load_pair(saved / "generator", str(model))
    assert "Traceback" not in capfd.readouterr().err and not caplog.records


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"{", bytes(range(256))])
@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
def test_damaged_records_of_orbax_are_one_message(name, content, saved, tmp_path, capfd):
    model = shutil.copytree(saved / "tokenizer", tmp_path / "tokenizer")
    (model / "params" / "state" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{model} does not hold what its model.json says"):
        maskgil_jax.load(model)
    assert "Traceback" not in capfd.readouterr().err


def test_parameters_that_are_not_there_are_one_message(model):
    shutil.rmtree(model / "params")
    with pytest.raises(InputError, match="is not whole: it has no directory params"):
        maskgil_jax.load(model)
    (model / "params").mkdir()
    with pytest.raises(InputError, match="does not hold what its model.json says"):
        maskgil_jax.load(model)
    (model / "params").rmdir()
    (model / "params").write_text("")
    with pytest.raises(InputError, match="it has no directory params"):
        maskgil_jax.load(model)


def test_tensors_of_other_names_or_shapes_are_named(saved, tmp_path):
    flat = trees.flatten(maskgil_jax.load(saved / "tokenizer").network)
    for number, other in enumerate(
        (
            flat | {"codebook": jnp.zeros((3, 4))},
            flat | {"more": jnp.zeros(3)},
            {name: value for name, value in flat.items() if name != "codebook"},
        )
    ):
        model = shutil.copytree(saved / "tokenizer", tmp_path / str(number))
        changed(model, other)
        with pytest.raises(InputError, match="does not hold what its model.json says"):
            maskgil_jax.load(model, verify=False)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"class": 3}, "field 'class' is an integer, expected a text"),
        ({"class": "unet"}, "field 'class' is 'unet', this version knows"),
        ({"format": "1"}, "field 'format' is a text"),
        ({"arguments": [1]}, "field 'arguments' is a list, expected an object"),
        ({"arguments": {"layers": "many"}}, "field 'arguments' has layers = 'many', expected int"),
        ({"arguments": {"wings": 2}}, "field 'arguments' has wings = '2', expected one of"),
        ({"fingerprint": 7}, "field 'fingerprint' is an integer"),
        ({"tokenizer": "DIR"}, "field 'tokenizer' is a text, expected an object"),
        ({"tokenizer": {"path": "DIR"}}, "field 'tokenizer' has no field 'fingerprint'"),
        ({"encoder": {"path": 3, "fingerprint": ""}}, "field 'path' is an integer"),
        ({"class_names": "cat"}, "field 'class_names' is a text, expected a list"),
        ({"class_names": ["cat", 3]}, "field 'class_names' holds 3"),
    ],
)
def test_a_description_of_another_shape_names_the_field(changes, message, saved, tmp_path):
    model = shutil.copytree(saved / "generator", tmp_path / "generator")
    described(model, **changes)
    with pytest.raises(InputError, match=message):
        maskgil_jax.load(model)


@pytest.mark.parametrize("content", [b"null", b"[]", b'"a"', b"{}", b"{", b"\xff\xfe{", b""])
def test_a_description_that_is_none_is_one_message(content, tmp_path):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(InputError, match=str(tmp_path / "model.json")):
        maskgil_jax.load(tmp_path)


def test_a_model_without_a_recorded_fingerprint_is_loaded_with_a_warning(model, caplog):
    path = model / "model.json"
    description = json.loads(path.read_text())
    recorded = description.pop("fingerprint")
    path.write_text(json.dumps(description))
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        assert maskgil_jax.load(model).fingerprint == recorded
    assert "records no fingerprint: nothing is verified" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named_at_load(value, tmp_path, caplog):
    flat = trees.flatten(tiny_models.tokenizer().network)
    broken = flat["codebook"].at[2, 1].set(value).at[5, 0].set(value)
    network = trees.unflatten(tiny_models.tokenizer().network, flat | {"codebook": broken})
    loading.Tokenizer(network).save(tmp_path / "broken")
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        maskgil_jax.load(tmp_path / "broken")
    assert f"{tmp_path}/broken has weights that are not finite" in caplog.text
    assert "codebook (2 of 64)" in caplog.text


def test_large_weights_are_finite(caplog):
    flat = {"large": np.full(4, 3e38, np.float32), "half": np.ones(3, jnp.bfloat16)}
    model_directory._warn_of_what_is_not_finite("DIR", flat)
    assert not caplog.records
    model_directory._warn_of_what_is_not_finite(
        "DIR", flat | {"half": np.array([np.nan], jnp.bfloat16)}
    )
    assert "half (1 of 1)" in caplog.text


def test_the_fingerprint_of_values_is_what_it_always_was():
    """It stands in model directories, shards and generators that were written before."""
    values = {
        "b": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
        "a": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "c": np.float32(2.5),
        "d": np.zeros((0, 2), np.int32),
    }
    assert model_directory.fingerprint(values, {"vocabulary": b"abc"}) == "99d61f818fb688ed"


def test_loaded_parameters_are_jax_arrays_on_one_device(saved):
    leaves = jax.tree.leaves(maskgil_jax.load(saved / "generator").network)
    assert {leaf.sharding.device_set.pop() for leaf in leaves} == {jax.local_devices()[0]}
    assert all(leaf.committed for leaf in leaves)
