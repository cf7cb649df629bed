"""What files of features hold."""

import numpy as np
import pytest

from maskgil_jax.evaluation import feature_files
from maskgil_jax.evaluation.options import FeaturesOptions
from maskgil_jax.evaluation.stored_features import is_features, read_features
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.errors import InputError

VALUES = np.random.default_rng(0).integers(256, size=(9, 4, 4, 3), dtype=np.uint8)


def means(images):
    return images.reshape(len(images), -1, 3).mean(axis=1)


def options(tmp_path, **changes):
    np.savez(tmp_path / "images.npz", arr_0=VALUES)
    given = dict(features=f"{__name__}:means", **changes)
    return FeaturesOptions(
        data=str(tmp_path / "images.npz"),
        output=str(tmp_path / "features.npz"),
        processes=Processes(),
        **given,
    )


@pytest.mark.parametrize("keep", [True, False])
def test_statistics_are_there_with_and_without_the_features(keep, tmp_path):
    feature_files.write_features(options(tmp_path, keep=keep))
    path = str(tmp_path / "features.npz")
    with np.load(path) as arrays:
        assert ("features" in arrays) == keep
        np.testing.assert_allclose(arrays["mu"], means(VALUES).mean(axis=0))
        np.testing.assert_allclose(arrays["sigma"], np.cov(means(VALUES).T))
    assert is_features(path) and read_features(path).count == len(VALUES)


def test_one_network_has_to_be_named(tmp_path):
    with pytest.raises(InputError, match="one of inception=DIR and features=MODULE:FUNCTION is"):
        feature_files.write_features(options(tmp_path, inception="DIR"))
