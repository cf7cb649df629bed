"""Two real processes of 4 devices each draw and reconstruct what one device does."""

import numpy as np
import pytest

from maskgil_jax.pretrained import loading
from tests.helpers import commands, tiny_models
from tests.helpers.two_processes import end_both, start_command
from tests.helpers.work_directories import wait_for


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The directory of a generator, which names that of its tokenizer."""
    directory = tmp_path_factory.mktemp("models")
    tiny_models.tokenizer().save(directory / "tokenizer")
    provenance = loading.load_tokenizer(directory / "tokenizer").provenance
    tiny_models.masked(provenance).save(directory / "generator")
    return directory


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.slow
def test_draws_of_two_processes_are_those_of_one_device_also_where_one_of_them_died(
    models, tmp_path
):
    options = (f"--model={models}/generator", "--classes=all", "--num=400", "--steps=3")
    options += ("--batch_size=8",)
    both = start_command("sample", *options, f"--output={tmp_path}/two")
    wait_for(both[0], lambda: len([*tmp_path.glob("two/*.png")]) >= 64)
    both[1].kill()
    codes, outputs = end_both(both, 120)
    assert codes[0] == 75, outputs
    assert "another process of this run is not there" in outputs[0]
    assert (tmp_path / "two" / "unfinished.json").exists()
    both = start_command("sample", *options, f"--output={tmp_path}/two")
    codes, outputs = end_both(both)
    assert codes == [0, 0], outputs
    assert "of 1600 images are there" in outputs[0] and "images" not in outputs[1]
    done = commands.run("sample", *options, f"--output={tmp_path}/one")
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.slow
def test_reconstructions_of_two_processes_are_those_of_one_device(models, tmp_path):
    options = (f"--tokenizers={models}/tokenizer", "--data=embedded:test", "--image_size=8")
    options += ("--count=100", "--batch_size=7")
    both = start_command("reconstruct", *options, f"--output={tmp_path}/two")
    codes, outputs = end_both(both)
    assert codes == [0, 0], outputs
    done = commands.run("reconstruct", *options, f"--output={tmp_path}/one")
    assert done.returncode == 0, done.stderr
    ours, alone = content(tmp_path / "two"), content(tmp_path / "one")
    assert ours.keys() == alone.keys()
    for name in ("tokenizer.npz", "originals.npz"):
        assert ours[name] == alone[name]
    with np.load(tmp_path / "two" / "tokenizer.npz") as arrays:
        assert arrays["codes"].shape == (100, 4, 4)
