import numpy as np
import pytest
from PIL import Image

from maskgil_jax.data import sources
from maskgil_jax.errors import InputError
from maskgil_jax.metrics import compare


def test_classes_are_compared_by_name(tmp_path):
    for i, name in enumerate(("ant", "bee", "cat")):
        for folder in ("all", "few") if name != "ant" else ("all",):
            (tmp_path / folder / name).mkdir(parents=True)
            for j in range(8):
                shade = (90 * i + j, 0, 0)
                Image.new("RGB", (8, 8), shade).save(tmp_path / folder / name / f"{j}.png")
    whole, few = str(tmp_path / "all"), str(tmp_path / "few")
    assert compare.compare(few, whole, ["accuracy"])["metrics"]["pixel_class_accuracy"] == 1.0
    with pytest.raises(InputError, match="the reference has no images of classes .'ant'."):
        compare.compare(whole, few, ["accuracy"])


def test_another_network_gives_features_under_its_own_name(tmp_path):
    spec = "tests.efficientnet:efficientnet_lite0"
    images, _ = sources.center_crops(sources.open_source("embedded"), 8, 60)
    shuffled = np.random.default_rng(0).permuted(images[:30], axis=2)
    for name, part in (("real", images[:30]), ("other", images[30:]), ("broken", shuffled)):
        np.savez(tmp_path / f"{name}.npz", arr_0=part)
    distances = []
    for name in ("other", "broken"):
        drawn, real = f"{tmp_path}/{name}.npz", f"{tmp_path}/real.npz"
        found = compare.compare(drawn, real, ["frechet"], network=spec)
        assert found["features"] == [spec]
        distances.append(found["metrics"].pop("efficientnet_lite0_frechet_distance"))
        assert not found["metrics"]
    assert distances[0] < distances[1]
    for bad in ("tests.efficientnet", "tests.none:f", "tests.efficientnet:none"):
        with pytest.raises(InputError, match=f"--features={bad}: .*expected MODULE:FUNCTION"):
            compare.chosen(["frechet"], network=bad)
