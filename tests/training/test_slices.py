"""Training on two slices: 8 virtual devices, each run of 4 as one."""

import pytest
from etils import epath

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, tiny, tiny_shards
from tests.helpers.work_directories import assert_same, wait_for

MESH = dict(data=1, fsdp=2, tensor=2, slices=2)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Of a generator on codes; without a tokenizer it only trains."""
    config = tiny.generator()
    config.data.source = f"arrayrecord:{tiny_shards.write(tmp_path_factory.mktemp('codes'))}"
    config.evaluation.reference = ""
    config.mesh.update(MESH)
    config.steps = config.pictures_every = 20
    return config


@pytest.mark.slow
def test_killed_on_two_slices_it_ends_in_the_same_bits(config, tmp_path):
    run_stages(config, epath.Path(tmp_path / "straight"))
    options = (
        "--config=tests/helpers/tiny.py:generator",
        f"--workdir={tmp_path}/killed",
        f"--config.data.source={config.data.source}",
        *("--config.evaluation.reference=", "--config.steps=20", "--config.pictures_every=20"),
        *(f"--config.mesh.{axis}={size}" for axis, size in MESH.items()),
    )
    process = commands.start("main", *options, devices=8)
    checkpoints = tmp_path / "killed" / "checkpoints"
    wait_for(process, lambda: any(path.name.isdecimal() for path in checkpoints.glob("*")))
    process.kill()
    process.wait()
    assert len(read_log(tmp_path / "killed")) < 20
    done = commands.run("main", *options, devices=8)
    assert done.returncode == 0 and "resuming from step" in done.stderr, done.stderr
    assert_same(tmp_path / "straight", tmp_path / "killed")


def test_a_mesh_that_does_not_fit_the_slices_is_refused_before_anything_is_made(config, tmp_path):
    wrong = config.copy_and_resolve_references()
    wrong.mesh.update(fsdp=4)
    with pytest.raises(InputError, match="does not fit 4 devices of each of 2 slices"):
        run_stages(wrong, epath.Path(tmp_path))
    assert not (tmp_path / "checkpoints").exists()
