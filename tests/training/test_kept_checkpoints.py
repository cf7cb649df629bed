import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from maskgil_jax import load
from maskgil_jax.pretrained import kept_checkpoints
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import checkpoints
from tests.helpers.commands import call


def newest(run):
    return max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))


def rewritten(source, target, change, notes=None):
    """A copy of a checkpoint, whose leaves `change` gets by name."""
    leaves = {name: np.asarray(leaf) for name, leaf in ocp.load(source).items()}
    change(leaves)
    about = ocp.metadata(source).custom_metadata if notes is None else notes
    ocp.save(target, leaves, custom_metadata=about)
    return target


@pytest.mark.parametrize("stage", ["", "tokenizer"])
def test_the_last_checkpoint_is_the_model_that_training_ends_with(finished, stage):
    run = finished / stage
    step, model = newest(run).name, load(run / "model")
    for place in (f"{run}@{step}", newest(run), f"{newest(run)}/"):
        kept = load(place)
        assert kept.fingerprint == model.fingerprint and kept.kind == model.kind
    assert getattr(kept, "class_names", None) == getattr(model, "class_names", None)


def test_an_earlier_checkpoint_has_the_weights_of_its_step(finished):
    *_, step, last = sorted(int(path.name) for path in (finished / "checkpoints").iterdir())
    kept = load(f"{finished}@{step}")
    leaves = ocp.load(finished / "checkpoints" / str(step))
    average = leaves["ema/blocks/down"]
    np.testing.assert_array_equal(kept.network.blocks.down, average)
    assert kept.fingerprint != load(f"{finished}@{last}").fingerprint


def test_a_checkpoint_is_sampled_with_the_tokenizer_of_its_run(finished, tmp_path):
    options = ["--classes=0", "--num=2", "--steps=2", "--seed=1"]
    pictures = []
    for name, model in (("a", f"{finished}@{newest(finished).name}"), ("b", finished / "model")):
        done = call("sample", f"--model={model}", f"--output={tmp_path / name}", *options)
        assert done.returncode == 0, done.stderr
        pictures.append(np.load(tmp_path / name / "samples.npz")["arr_0"])
    np.testing.assert_array_equal(*pictures)


def test_a_step_that_was_not_kept_is_named_with_those_that_were(finished, tmp_path):
    output = tmp_path / "x"
    done = call("sample", f"--model={finished}@9999", "--classes=0", f"--output={output}")
    assert done.returncode == 1 and "no checkpoint of step 9999" in done.stderr
    assert newest(finished).name in done.stderr
    assert not output.exists()


def test_a_bundle_of_a_checkpoint_is_refused_with_what_makes_a_directory_of_it(finished, tmp_path):
    place = f"{finished}@{newest(finished).name}"
    done = call("convert", "bundle", f"--source={place}", f"--output={tmp_path / 'bundle'}")
    assert done.returncode == 1 and ".save(DIR) makes one of it" in done.stderr
    assert list(tmp_path.iterdir()) == []
    load(place).save(tmp_path / "model")
    done = call("convert", "bundle", f"--source={tmp_path}/model", f"--output={tmp_path}/bundle")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "bundle").fingerprint == load(place).fingerprint


def test_values_that_are_not_those_saved_are_refused_unless_asked_for(finished, tmp_path):
    def damage(leaves):
        leaves["ema/blocks/down"] = leaves["ema/blocks/down"] + 1

    (tmp_path / "checkpoints").mkdir()
    place = rewritten(newest(finished), tmp_path / "checkpoints" / "3", damage)
    with pytest.raises(InputError, match="ema/blocks/down"):
        load(place)
    assert load(place, verify=False).num_classes


def test_a_checkpoint_without_the_note_is_what_the_run_ended_with(finished, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    rewritten(newest(finished), tmp_path / "checkpoints" / "3", lambda leaves: None, {"code": "0"})
    with pytest.raises(InputError, match="does not say what network"):
        load(f"{tmp_path}@3")
    shutil.copytree(finished / "model", tmp_path / "model")
    assert load(f"{tmp_path}@3").fingerprint == load(finished / "model").fingerprint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_checksums_are_those_that_training_saves(dtype):
    values = jnp.asarray(np.random.default_rng(0).normal(size=(7, 5)) * 100, dtype)
    (saved,) = np.asarray(checkpoints._checksums({"x": values}))
    assert kept_checkpoints.checksum(np.asarray(values)) == saved
