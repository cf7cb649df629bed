import logging

import numpy as np
import pytest
from etils import epath
from PIL import Image

from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny


def folder(path, count, broken):
    rng = np.random.default_rng(0)
    (path / "class").mkdir(parents=True)
    for i in range(count):
        file = path / "class" / f"{i:03}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
        if i in broken:
            file.write_bytes(file.read_bytes()[:100])
    config = tiny.tokenizer()
    config.data.source = f"folder:{path}"
    config.evaluation.update(reference="", count=20)
    config.steps = 10
    return config


@pytest.mark.slow
def test_a_corrupt_image_is_skipped_counted_and_named(tmp_path, caplog):
    config = folder(tmp_path / "images", 40, {7})
    config.data.bad_image_limit = 0.03
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        run_stages(config, epath.Path(tmp_path / "run"))
    named = [r.message for r in caplog.records if "skipped" in r.message and "007.png" in r.message]
    assert named and "image file is truncated" in named[0]
    assert read_log(tmp_path / "run")[-1]["unreadable_images"] == 1


@pytest.mark.slow
def test_too_many_corrupt_images_stop_the_run_with_a_checkpoint(tmp_path):
    config = folder(tmp_path / "images", 40, {3, 7})
    with pytest.raises(InputError) as error:
        run_stages(config, epath.Path(tmp_path / "run"))
    assert "config.data.bad_image_limit = 0.01 allows " in str(error.value)
    assert "a checkpoint of step" in str(error.value)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    with pytest.raises(InputError, match="2 of 40 images cannot be read"):
        run_stages(config, epath.Path(tmp_path / "run"))
    for name in ("003.png", "007.png"):
        whole = tmp_path / "images" / "class" / "000.png"
        (tmp_path / "images" / "class" / name).write_bytes(whole.read_bytes())
    config.steps = 6
    run_stages(config, epath.Path(tmp_path / "run"))
    assert read_log(tmp_path / "run")[-1]["step"] == 6
    assert read_log(tmp_path / "run")[-1]["unreadable_images"] == 0


def test_nothing_but_corrupt_images_is_an_error_before_training(tmp_path):
    config = folder(tmp_path / "images", 5, set(range(5)))
    with pytest.raises(InputError, match="0 of 5 images of .* can be read"):
        run_stages(config, epath.Path(tmp_path / "run"))


@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_training_tells_what_its_source_holds_and_may_require_that_all_is_used(
    stage, tmp_path, caplog
):
    source = folder(tmp_path / "images", 5, set()).data.source
    (tmp_path / "images" / "class" / "x.npy").write_bytes(b"")
    config = tiny.get_config(stage)
    config.data.update(source=source, bad_image_limit=0.0)
    if stage == "generator":
        config.update(tokenizer="/not/read/yet")
        config.evaluation.reference = ""
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        with pytest.raises(InputError, match="bad_image_limit = 0 allows.*.suffix .npy.: class/x"):
            run_stages(config, epath.Path(tmp_path / "run"))
    assert [line for line in caplog.messages if f"{source}: 5 images of 1 class (class)" in line]
